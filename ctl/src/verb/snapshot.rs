//! `amoeba snapshot`: a store's whole state in one file, judged, and made into a new cluster.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use store::ClusterId;
use store::backup::{self, BackupError, Manifest, RestoreOptions, Restored};
use store::kv::MemberId;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use super::{note, say, say_raw};
use crate::app::App;
use crate::etcdctl::cluster::{CallError, SnapshotStream, StoreCluster};
use crate::etcdctl::endpoints::{EndpointFlags, Endpoints};
use crate::failure::Failure;
use crate::print::table::simple;
use crate::standalone::initial_cluster::{self, InitialCluster};
use crate::standalone::url::Url;

/// Save, judge or restore the whole state of a store
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A restored cluster is a new one: members of the old one never talk to it, its revisions \
    are beyond any that the old one issued, and watchers of the old one have to read again."
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write the state of a running store into a file
    Save {
        /// The file; must not exist
        file: PathBuf,
        /// Which store.
        #[command(flatten)]
        endpoints: EndpointFlags,
    },
    /// Read a snapshot and say whether it can be restored, and what is in it
    #[command(visible_alias = "status")]
    Verify {
        /// The file
        file: PathBuf,
        /// As table or json
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Form,
    },
    /// Make the directory of a member of a new cluster from a snapshot
    Restore(RestoreArgs),
}

/// `-o`
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The new member; `--data-dir` says where.
#[derive(Debug, clap::Args)]
#[command(after_help = "Run it once for each member of the new cluster, with the same file and the same \
    --initial-cluster (or --peer), then start all members.")]
struct RestoreArgs {
    /// The file
    file: PathBuf,
    /// Name of the member, for `amoeba store`
    #[arg(long, value_name = "NAME", default_value = "default")]
    name: String,
    /// All members of the new cluster [default: this one alone]
    #[arg(long, value_name = "NAME=URL,…")]
    initial_cluster: Option<InitialCluster>,
    /// Where the member will listen for others [default: as --initial-cluster says]
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:2380")]
    initial_advertise_peer_urls: Url,
    /// Goes into the ids of members and cluster
    #[arg(long, value_name = "TOKEN", default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// Number of the member, for `amoeba server` or `up`
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["initial_cluster"])]
    member_id: Option<u64>,
    /// All members of the new control plane with their peer addresses [default: this one alone]
    #[arg(long = "peer", value_name = "NUMBER=ADDRESS", value_parser = super::server::parse_peer,
        requires = "member_id")]
    peers: Vec<(u64, SocketAddr)>,
    /// Added to the newest revision: more than the old cluster can have issued since the snapshot
    #[arg(long, value_name = "NUMBER", default_value_t = backup::BUMP_REVISION)]
    bump_revision: u64,
}

/// Saves, verifies or restores.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    match args.action {
        Action::Save { file, endpoints } => save(app, &endpoints, &file).await,
        Action::Verify { file, output } => verify(&file, output),
        Action::Restore(args) => restore(app, &args),
    }
}

/// The file appears under its name only when it is whole, on the disk and verified.
async fn save(app: &App, flags: &EndpointFlags, path: &Path) -> Result<(), Failure> {
    if path.exists() {
        let text = format!("{} exists: choose another name, or remove it first", path.display());
        return Err(Failure::Usage(text));
    }
    let endpoints = Endpoints::find(app, flags).map_err(Failure::Usage)?;
    let cluster = StoreCluster::connect(&endpoints).await.map_err(CallError::from)?;
    let part = path.with_added_extension("part");
    let written = receive(cluster.snapshot().await?, &part).await;
    let finished = written.and_then(|bytes| {
        let manifest = backup::verify(&part).map_err(|error| unusable(&cluster.url, &error))?;
        fs::rename(&part, path).map_err(|source| Failure::io(format!("write {}", path.display()), source))?;
        Ok((bytes, manifest))
    });
    let (bytes, manifest) = finished.inspect_err(|_| {
        // What isn't whole is of no use to anybody.
        let _ = fs::remove_file(&part);
    })?;
    let (revision, url) = (manifest.revision, &cluster.url);
    say(format!("{} holds revision {revision} of {url} ({} bytes, verified)", path.display(), bytes));
    Ok(())
}

/// What came over the network isn't a whole snapshot of ours.
fn unusable(url: &Url, error: &BackupError) -> Failure {
    Failure::NotHeld(format!(
        "what {url} sent can't be used, and isn't kept: {}. (If that is a stock etcd: its snapshots are saved and \
         restored by etcdctl)",
        api::error::chain(error)
    ))
}

async fn receive(mut stream: SnapshotStream, part: &Path) -> Result<u64, Failure> {
    let failed = |source| Failure::io(format!("write {}", part.display()), source);
    let mut file = File::create(part).await.map_err(failed)?;
    let progress = ProgressBar::new(0).with_style(style());
    let mut bytes = 0;
    while let Some((piece, remaining)) = stream.next().await? {
        file.write_all(&piece).await.map_err(failed)?;
        bytes += piece.len() as u64;
        progress.set_length(bytes + remaining);
        progress.set_position(bytes);
    }
    file.sync_all().await.map_err(failed)?;
    progress.finish_and_clear();
    Ok(bytes)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} {bytes} of about {total_bytes}, {bytes_per_sec}")
        .expect("the template is right")
}

fn verify(path: &Path, form: Form) -> Result<(), Failure> {
    let manifest = backup::verify(path)?;
    let bytes = fs::metadata(path).map(|data| data.len()).unwrap_or_default();
    match form {
        Form::Json => say_raw(&format!("{:#}\n", as_json(&manifest, bytes))),
        Form::Table => {
            let header = [
                "REVISION",
                "COMPACTED",
                "CLUSTER",
                "MEMBER",
                "RAFT TERM",
                "RAFT INDEX",
                "BYTES",
                "WRITTEN BY",
            ];
            simple(&header, vec![row(&manifest, bytes)]).iter().for_each(say);
            note("the snapshot is whole and can be restored");
        }
    }
    Ok(())
}

fn row(manifest: &Manifest, bytes: u64) -> Vec<String> {
    vec![
        manifest.revision.to_string(),
        manifest.compacted.to_string(),
        format!("{:x}", manifest.cluster.0),
        format!("{:x}", manifest.member.0),
        manifest.term.to_string(),
        manifest.index.to_string(),
        bytes.to_string(),
        format!("amoeba {}", manifest.program),
    ]
}

fn as_json(manifest: &Manifest, bytes: u64) -> serde_json::Value {
    json!({
        "revision": manifest.revision.0,
        "compactedRevision": manifest.compacted.0,
        "clusterId": format!("{:x}", manifest.cluster.0),
        "memberId": format!("{:x}", manifest.member.0),
        "raftTerm": manifest.term,
        "raftIndex": manifest.index,
        "digest": format!("{:016x}", manifest.digest),
        "liveDigest": format!("{:016x}", manifest.live_digest),
        "schema": manifest.schema,
        "bytes": bytes,
        "program": manifest.program,
    })
}

fn restore(app: &App, args: &RestoreArgs) -> Result<(), Failure> {
    let Some(dir) = &app.target.data_dir else {
        return Err(Failure::Usage("say where the new member's data goes, with --data-dir DIR".into()));
    };
    let manifest = backup::verify(&args.file)?;
    let (id, peers) = match args.member_id {
        None => as_founder(args).map_err(Failure::Usage)?,
        Some(id) => as_server(id, &args.peers).map_err(Failure::Usage)?,
    };
    let options = RestoreOptions {
        dir: dir.join("store"),
        id,
        cluster: new_cluster(&manifest, &peers),
        peers,
        bump_revision: args.bump_revision,
        mark_compacted: true,
    };
    fs::create_dir_all(dir)
        .map_err(|source| Failure::io(format!("make the directory {}", dir.display()), source))?;
    let restored = backup::restore(&args.file, &options)?;
    tell(dir, &options, &restored);
    Ok(())
}

fn tell(dir: &Path, options: &RestoreOptions, restored: &Restored) {
    say(format!("{} is member {:x} of the new cluster {:x}", dir.display(), options.id.0, options.cluster.0));
    note(format!(
        "revision {} became {}: clients that knew the old cluster have to read again",
        restored.manifest.revision, restored.revision
    ));
}

/// A member of `amoeba store`, with the id that its flags will give it.
fn as_founder(args: &RestoreArgs) -> Result<(MemberId, BTreeMap<MemberId, String>), String> {
    let alone = || InitialCluster::sole(&args.name, vec![args.initial_advertise_peer_urls.clone()]);
    let cluster = args.initial_cluster.clone().unwrap_or_else(alone);
    let founders = cluster.founders(&args.initial_cluster_token);
    let own = founders.get(args.name.as_str());
    let id = own.ok_or_else(|| format!("--initial-cluster doesn't list {}, the --name", args.name))?.id;
    Ok((id, founders.values().map(|founder| (founder.id, founder.peer.authority())).collect()))
}

/// A member of `amoeba server`.
fn as_server(id: u64, peers: &[(u64, SocketAddr)]) -> Result<(MemberId, BTreeMap<MemberId, String>), String> {
    let mut all: BTreeMap<MemberId, String> =
        peers.iter().map(|(number, address)| (MemberId(*number), address.to_string())).collect();
    if all.is_empty() {
        all.insert(MemberId(id), String::new());
    }
    match all.contains_key(&MemberId(id)) {
        true => Ok((MemberId(id), all)),
        false => Err(format!("--peer doesn't list {id}, the --member-id")),
    }
}

/// The same for all members that restore the same file as the same cluster, and never the old one's.
fn new_cluster(manifest: &Manifest, peers: &BTreeMap<MemberId, String>) -> ClusterId {
    let text = format!("{manifest:?}{peers:?}");
    ClusterId(initial_cluster::hash(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::kv::Revision;

    fn manifest() -> Manifest {
        Manifest {
            cluster: ClusterId(7),
            member: MemberId(1),
            term: 2,
            index: 3,
            revision: Revision(4),
            compacted: Revision(0),
            digest: 5,
            live_digest: 6,
            schema: 1,
            program: "0.1.0".into(),
        }
    }

    #[test]
    fn all_members_agree_on_the_new_cluster() {
        let (_, peers) = as_server(1, &[(1, ([127, 0, 0, 1], 1).into()), (2, ([127, 0, 0, 1], 2).into())])
            .expect("listed");
        let same = new_cluster(&manifest(), &peers);
        assert_eq!(new_cluster(&manifest(), &peers), same);
        assert_ne!(same, manifest().cluster);
        let later = Manifest { revision: Revision(5), ..manifest() };
        assert_ne!(new_cluster(&later, &peers), same, "another snapshot is another cluster");
    }

    #[test]
    fn the_new_member_must_be_listed() {
        assert!(as_server(3, &[(1, ([127, 0, 0, 1], 1).into())]).expect_err("not listed").contains("--peer"));
        assert_eq!(as_server(3, &[]).expect("alone").1, BTreeMap::from([(MemberId(3), String::new())]));
    }
}
