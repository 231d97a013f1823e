//! What the flags of `amoeba store` mean together: decided before anything is opened or listened on.

use std::path::PathBuf;
use std::time::Duration;

use store::{History, Limits};

use super::initial_cluster::InitialCluster;
use super::tls::KeyPairFiles;
use super::url::Url;
use crate::text::parse_duration;
use crate::verb::store::{Args, CompactionMode};

/// History without end, as the store counts it.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// What a request may grow by between the door and the log.
const REQUEST_MARGIN: usize = 512 << 10;
/// The most often that the leader looks for what can be compacted.
const CHECK_OFTEN: Duration = Duration::from_secs(1);

/// Whom one side of a member lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Door {
    /// What it shows; needed for `https`.
    pub own: Option<KeyPairFiles>,
    /// Who signs those that are let in; without it everybody is.
    pub trusted: Option<PathBuf>,
}

/// Times of Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The length of a tick; a heartbeat every second one.
    pub tick: Duration,
    /// Ticks without a leader after which a member calls an election, at the earliest.
    pub election_ticks: usize,
}

/// Everything that was decided from the flags alone.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The member's name.
    pub name: String,
    /// Where clients are served.
    pub listen_client: Vec<Url>,
    /// Where clients are told to come; empty: where they are served.
    pub advertise_client: Vec<Url>,
    /// Where other members are listened to.
    pub listen_peer: Url,
    /// Where other members are told to come; `None`: where they are listened to.
    pub advertise_peer: Option<Url>,
    /// For clients.
    pub client_door: Door,
    /// For other members.
    pub peer_door: Door,
    /// Raft's times.
    pub beat: Beat,
    /// Largest request of a client in bytes.
    pub max_request_bytes: usize,
    /// Most operations of one branch of a transaction.
    pub max_txn_ops: usize,
    /// How often a quiet watch tells how far it is.
    pub progress_interval: Duration,
    /// Sizes inside the store.
    pub limits: Limits,
    /// Retention.
    pub history: History,
}

impl Settings {
    /// Reads the flags together.
    ///
    /// # Errors
    /// What contradicts itself or would leave the store open to everybody, with the flags to change.
    pub fn decide(args: &Args) -> Result<Self, String> {
        let [listen_peer] = args.listen_peer_urls.as_slice() else {
            return Err("--listen-peer-urls takes one URL: a member listens for others in one place".into());
        };
        let settings = Self {
            name: args.name.clone(),
            listen_client: args.listen_client_urls.clone(),
            advertise_client: args.advertise_client_urls.clone(),
            listen_peer: listen_peer.clone(),
            advertise_peer: advertised_peer(args)?,
            client_door: client_door(args)?,
            peer_door: peer_door(args)?,
            beat: beat(args)?,
            max_request_bytes: args.max_request_bytes,
            max_txn_ops: args.max_txn_ops,
            progress_interval: args.experimental_watch_progress_notify_interval,
            limits: limits(args),
            history: history(args)?,
        };
        settings.check_doors(args.allow_insecure)?;
        settings.check_advertised()?;
        Ok(settings)
    }

    /// Secure unless said otherwise: without certificates on both sides nobody but this machine gets in.
    fn check_doors(&self, allow_insecure: bool) -> Result<(), String> {
        let sides = [
            (
                "--listen-client-urls",
                self.listen_client.as_slice(),
                &self.client_door,
                ["--cert-file", "--trusted-ca-file"],
            ),
            (
                "--listen-peer-urls",
                std::slice::from_ref(&self.listen_peer),
                &self.peer_door,
                ["--peer-cert-file", "--peer-trusted-ca-file"],
            ),
        ];
        for (flag, urls, door, [certificate, authority]) in sides {
            for url in urls {
                if url.secure && door.own.is_none() {
                    return Err(format!("{flag} {url} needs {certificate} and its key"));
                }
                let open = !url.secure || door.trusted.is_none();
                if open && !url.is_loopback() && !allow_insecure {
                    return Err(format!(
                        "{flag} {url} would let everybody in who can reach it: use https with {certificate} and \
                         {authority}, or an address of this machine only, or say --allow-insecure"
                    ));
                }
            }
        }
        Ok(())
    }

    /// An address that means "all of mine" can be listened on, but not called.
    fn check_advertised(&self) -> Result<(), String> {
        let clients =
            if self.advertise_client.is_empty() { &self.listen_client } else { &self.advertise_client };
        if let Some(url) = clients.iter().find(|url| url.is_unspecified()) {
            return Err(format!("clients can't call {url}: say where they can with --advertise-client-urls"));
        }
        let peer = self.advertise_peer.as_ref().unwrap_or(&self.listen_peer);
        if peer.is_unspecified() {
            return Err(format!(
                "other members can't call {peer}: say where they can with --initial-advertise-peer-urls"
            ));
        }
        if peer.secure != self.listen_peer.secure {
            return Err(format!(
                "{peer} is advertised, but {} is listened on: one is https",
                self.listen_peer
            ));
        }
        Ok(())
    }
}

/// The flag's URL, or the one that `--initial-cluster` gives to this member.
fn advertised_peer(args: &Args) -> Result<Option<Url>, String> {
    let listed = args.initial_cluster.as_ref().and_then(|cluster| cluster.urls(&args.name));
    match (args.initial_advertise_peer_urls.as_slice(), listed) {
        ([], None) => Ok(None),
        ([], Some(listed)) => Ok(listed.first().cloned()),
        (given, None) => Ok(given.first().cloned()),
        (given, Some(listed)) if sorted(given) == sorted(listed) => Ok(given.first().cloned()),
        (given, Some(listed)) => Err(format!(
            "--initial-cluster gives {} the peer URLs {}, but --initial-advertise-peer-urls says {}: they must be \
             the same",
            args.name,
            join(listed),
            join(given)
        )),
    }
}

fn sorted(urls: &[Url]) -> Vec<Url> {
    let mut urls = urls.to_vec();
    urls.sort();
    urls
}

/// URLs as etcd's flags list them.
pub fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",")
}

fn client_door(args: &Args) -> Result<Door, String> {
    let own = pair(&args.cert_file, &args.key_file, ["--cert-file", "--key-file"])?;
    if args.client_cert_auth && args.trusted_ca_file.is_none() {
        return Err(
            "--client-cert-auth needs --trusted-ca-file: who signs the certificates of clients".into()
        );
    }
    Ok(Door { own, trusted: args.trusted_ca_file.clone() })
}

/// Members always know each other's authority when they use TLS.
fn peer_door(args: &Args) -> Result<Door, String> {
    let own = pair(&args.peer_cert_file, &args.peer_key_file, ["--peer-cert-file", "--peer-key-file"])?;
    if own.is_some() && args.peer_trusted_ca_file.is_none() {
        return Err(
            "--peer-cert-file needs --peer-trusted-ca-file: who signs the certificates of members".into()
        );
    }
    Ok(Door { own, trusted: args.peer_trusted_ca_file.clone() })
}

/// A certificate and its key: both or none.
pub fn pair(
    certificate: &Option<PathBuf>,
    key: &Option<PathBuf>,
    flags: [&str; 2],
) -> Result<Option<KeyPairFiles>, String> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            Ok(Some(KeyPairFiles { certificate: certificate.clone(), key: key.clone() }))
        }
        _ => Err(format!("{} and {} go together: give both or none", flags[0], flags[1])),
    }
}

fn beat(args: &Args) -> Result<Beat, String> {
    let (heartbeat, election) = (args.heartbeat_interval, args.election_timeout);
    if election < 3 * heartbeat {
        return Err(format!(
            "--election-timeout {election} must be at least three times --heartbeat-interval {heartbeat}: one \
             late heartbeat must not cost a leader its place"
        ));
    }
    let tick = Duration::from_millis(heartbeat) / 2;
    let ticks = Duration::from_millis(election).as_micros() / tick.as_micros();
    Ok(Beat { tick, election_ticks: usize::try_from(ticks).unwrap_or(usize::MAX) })
}

fn limits(args: &Args) -> Limits {
    let defaults = Limits::default();
    Limits {
        // A request is judged at the door; inside it has some more bytes around it.
        max_request_bytes: args.max_request_bytes.saturating_add(REQUEST_MARGIN),
        log_keep_entries: args.snapshot_count.unwrap_or(defaults.log_keep_entries),
        ..defaults
    }
}

fn history(args: &Args) -> Result<History, String> {
    let defaults = History::default();
    if args.auto_compaction_mode == CompactionMode::Revision {
        return Err("--auto-compaction-mode revision is not offered: history is kept by time \
                    (--auto-compaction-retention) and by size (--history-max-bytes)"
            .into());
    }
    let keep = match &args.auto_compaction_retention {
        None => defaults.keep,
        Some(text) => retention(text)?,
    };
    Ok(History {
        keep,
        max_bytes: args.history_max_bytes.unwrap_or(defaults.max_bytes),
        check_every: (keep / 4).clamp(CHECK_OFTEN, defaults.check_every),
    })
}

/// As etcd reads it: a bare number is hours, and zero is never.
fn retention(text: &str) -> Result<Duration, String> {
    let keep = match text.parse::<u64>() {
        Ok(hours) => Duration::from_secs(hours.saturating_mul(3600)),
        Err(_) => parse_duration(text).map_err(|why| format!("--auto-compaction-retention: {why}"))?,
    };
    Ok(if keep.is_zero() { FOREVER } else { keep.min(FOREVER) })
}

/// The members that start the cluster: as listed, or this one alone.
pub fn founding(args: &Args, advertised: &Url) -> Result<InitialCluster, String> {
    match &args.initial_cluster {
        None => Ok(InitialCluster::sole(&args.name, vec![advertised.clone()])),
        Some(cluster) if cluster.urls(&args.name).is_some() => Ok(cluster.clone()),
        Some(_) => Err(format!("--initial-cluster doesn't list {}, the --name of this member", args.name)),
    }
}

/// The other members of a living cluster, whom a new one asks who it is.
pub fn living(args: &Args, advertised: &Url) -> Result<Vec<String>, String> {
    let listed = args.initial_cluster.iter().flat_map(InitialCluster::all_urls);
    let others: Vec<String> = listed.filter(|url| *url != advertised).map(Url::authority).collect();
    match others.is_empty() {
        true => {
            Err("--initial-cluster-state existing needs --initial-cluster with at least one member that \
                     runs: `member add` prints it"
                .into())
        }
        false => Ok(others),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn decide(flags: &[&str]) -> Result<Settings, String> {
        let line = ["amoeba", "store"].iter().chain(flags);
        let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        let Command::Store(args) = cli.command else { unreachable!("the verb is `store`") };
        Settings::decide(&args)
    }

    fn refused(flags: &[&str]) -> String {
        decide(flags).expect_err("refused")
    }

    #[test]
    fn without_flags_it_is_alone_and_private() {
        let settings = decide(&[]).expect("the defaults go together");
        assert_eq!(join(&settings.listen_client), "http://127.0.0.1:2379");
        assert_eq!(settings.listen_peer.to_string(), "http://127.0.0.1:2380");
        assert_eq!(settings.history.keep, Duration::from_secs(3600));
        assert_eq!(settings.beat, Beat { tick: Duration::from_millis(50), election_ticks: 6 });
    }

    #[test]
    fn a_unit_file_of_etcd_is_understood() {
        let flags = "--name=m1 --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379 \
            --advertise-client-urls=https://10.0.0.1:2379 --listen-peer-urls=https://10.0.0.1:2380 \
            --initial-advertise-peer-urls=https://10.0.0.1:2380 --initial-cluster=m1=https://10.0.0.1:2380 \
            --cert-file=s.crt --key-file=s.key --trusted-ca-file=ca.crt --client-cert-auth=true \
            --peer-cert-file=p.crt --peer-key-file=p.key --peer-trusted-ca-file=ca.crt \
            --peer-client-cert-auth=true --snapshot-count=10000 --strict-reconfig-check=true \
            --experimental-initial-corrupt-check=true --experimental-watch-progress-notify-interval=5s \
            --logger=zap --log-outputs=stderr --quota-backend-bytes=8589934592";
        let settings = decide(&flags.split_whitespace().collect::<Vec<_>>()).expect("understood");
        assert_eq!(settings.listen_client.len(), 2);
        assert_eq!(settings.progress_interval, Duration::from_secs(5));
    }

    #[test]
    fn nobody_is_let_in_from_outside_without_being_asked_for() {
        for url in ["http://10.0.0.1:2379", "http://0.0.0.0:2379"] {
            let why =
                refused(&["--listen-client-urls", url, "--advertise-client-urls", "http://10.0.0.1:2379"]);
            assert!(why.contains("--allow-insecure") && why.contains(url), "{why}");
        }
        let flags = ["--listen-client-urls", "https://10.0.0.1:2379", "--cert-file", "c", "--key-file", "k"];
        assert!(refused(&flags).contains("--trusted-ca-file"));
        assert!(decide(&[&flags[..], &["--trusted-ca-file", "ca"]].concat()).is_ok());
        assert!(decide(&["--listen-peer-urls", "http://10.0.0.1:1", "--allow-insecure"]).is_ok());
        assert!(refused(&["--listen-peer-urls", "http://10.0.0.1:1"]).contains("--peer-trusted-ca-file"));
    }

    #[test]
    fn certificates_come_with_what_they_need() {
        assert!(refused(&["--cert-file", "c"]).contains("go together"));
        assert!(refused(&["--client-cert-auth"]).contains("--trusted-ca-file"));
        assert!(refused(&["--listen-client-urls", "https://127.0.0.1:1"]).contains("--cert-file"));
        assert!(
            refused(&["--peer-cert-file", "c", "--peer-key-file", "k"]).contains("--peer-trusted-ca-file")
        );
    }

    #[test]
    fn advertised_urls_can_be_called_and_agree_with_the_cluster() {
        let all = ["--listen-client-urls", "http://0.0.0.0:1", "--allow-insecure"];
        assert!(refused(&all).contains("--advertise-client-urls"));
        let cluster = ["--name", "a", "--initial-cluster", "a=http://127.0.0.1:5,b=http://127.0.0.1:6"];
        let settings = decide(&cluster).expect("listed");
        assert_eq!(settings.advertise_peer.map(|url| url.port), Some(5));
        let other = [&cluster[..], &["--initial-advertise-peer-urls", "http://127.0.0.1:7"]].concat();
        assert!(refused(&other).contains("must be the same"));
    }

    #[test]
    fn history_is_kept_as_etcd_reads_it() {
        let keep = |text: &str| decide(&["--auto-compaction-retention", text]).map(|s| s.history.keep);
        assert_eq!(keep("2"), Ok(Duration::from_secs(7200)));
        assert_eq!(keep("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(keep("0"), Ok(FOREVER));
        assert!(keep("soon").is_err());
        assert!(refused(&["--auto-compaction-mode", "revision"]).contains("--history-max-bytes"));
    }

    #[test]
    fn an_election_waits_for_several_heartbeats() {
        let settings =
            decide(&["--heartbeat-interval", "100", "--election-timeout", "1000"]).expect("etcd's");
        assert_eq!(settings.beat, Beat { tick: Duration::from_millis(50), election_ticks: 20 });
        assert!(
            refused(&["--heartbeat-interval", "100", "--election-timeout", "200"]).contains("three times")
        );
    }
}
