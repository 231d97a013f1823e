//! `amoeba token`: the bootstrap tokens by which machines join, as kubeadm's `token`.

mod control_plane;

use std::path::PathBuf;
use std::time::Duration;

use api::bootstrap_token::{
    BootstrapToken, CONTROL_PLANE_GROUP, DEFAULT_GROUP, KeyPin, NAMESPACE, SECRET_TYPE, TokenTerms,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{note, say};
use crate::app::App;
use crate::cluster::{Cluster, kubeconfig};
use crate::failure::Failure;
use crate::print::table::{Grid, Layout, Printer};
use crate::text::parse_duration;

/// Make, list or delete the tokens by which machines join
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make a token and print it
    Create(CreateArgs),
    /// Show the tokens; their secrets only if asked
    List(ListArgs),
    /// Delete tokens: machines that have joined by them stay
    Delete(DeleteArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The token; without it one is made up
    token: Option<BootstrapToken>,
    /// How long it is good; 0 is for ever [default: 24h, for the control plane 2h]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// What it is for, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// What it may be used for
    #[arg(long, value_name = "USAGE,…", value_delimiter = ',', default_value = "signing,authentication",
        value_parser = ["signing", "authentication"])]
    usages: Vec<String>,
    /// Groups of who shows it; below system:bootstrappers: only
    #[arg(long, value_name = "GROUP,…", value_delimiter = ',', default_value = DEFAULT_GROUP)]
    groups: Vec<String>,
    /// Print the command by which a machine joins, instead of the token alone
    #[arg(long)]
    print_join_command: bool,
    /// For one new member of the control plane: leaves the cluster's authorities for it, sealed, and prints the command by
    /// which it joins, with their key. Whoever has that command can do everything
    #[arg(long, conflicts_with_all = ["usages", "groups"])]
    control_plane: bool,
    /// Where this member has the authorities [default: pki in the data directory]
    #[arg(long, value_name = "DIR", requires = "control_plane")]
    pki_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Show whole tokens, with their secrets
    #[arg(long)]
    show_secrets: bool,
}

#[derive(Debug, clap::Args)]
struct DeleteArgs {
    /// Tokens, or their ids
    #[arg(required = true, value_name = "TOKEN")]
    tokens: Vec<String>,
}

/// Does one of them.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let cluster = app.cluster().await?;
    match args.what {
        What::Create(args) => create(app, &cluster, args).await,
        What::List(args) => list(&cluster, &args).await,
        What::Delete(args) => delete(&cluster, &args).await,
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/secrets{name}")
}

async fn create(app: &App, cluster: &Cluster, args: CreateArgs) -> Result<(), Failure> {
    let token = args.token.clone().unwrap_or_else(|| BootstrapToken::from_random(rand::random()));
    let terms = terms(&args, &token, Timestamp::now())?;
    let made = cluster.create(&path(""), &token.to_secret(&terms)).await?;
    if args.control_plane {
        let pki_dir = match args.pki_dir {
            Some(dir) => dir,
            None => app.data_dir()?.join("pki"),
        };
        let key = control_plane::hand_over(cluster, &token, &made, &pki_dir).await?;
        say(format!("{} --certificate-key {key}", join_command(app, "server", &token)?));
        note("add --listen and --peer-address of the new member; the token ends when it has joined");
        return Ok(());
    }
    match args.print_join_command {
        true => say(join_command(app, "node", &token)?),
        false => say(token.shown()),
    }
    Ok(())
}

/// How long a token is good unless it is said: one that opens the authorities for as long as kubeadm's.
const TTL: Duration = Duration::from_secs(24 * 3600);
const CONTROL_PLANE_TTL: Duration = Duration::from_secs(2 * 3600);

fn terms(args: &CreateArgs, token: &BootstrapToken, now: Timestamp) -> Result<TokenTerms, Failure> {
    let wrong = args.groups.iter().find(|group| !group.starts_with("system:bootstrappers:"));
    if let Some(group) = wrong {
        return Err(Failure::Usage(format!(
            "--groups: bootstrap group {group:?} is invalid: it must begin with system:bootstrappers:"
        )));
    }
    let ttl = args.ttl.unwrap_or(if args.control_plane { CONTROL_PLANE_TTL } else { TTL });
    if args.control_plane && ttl.is_zero() {
        return Err(Failure::Usage("--ttl: a token of the control plane has to end".to_owned()));
    }
    let uses = |usage: &str| args.usages.iter().any(|own| own == usage);
    let lasts = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX);
    let groups = match args.control_plane {
        true => vec![CONTROL_PLANE_GROUP.to_owned(), token.own_group()],
        false => args.groups.clone(),
    };
    Ok(TokenTerms {
        expiration: (!ttl.is_zero()).then(|| now.saturating_add(lasts).unwrap_or(Timestamp::MAX)),
        description: args.description.clone(),
        signing: uses("signing"),
        authentication: uses("authentication"),
        groups,
    })
}

/// With what the kubeconfig says of the cluster.
fn join_command(app: &App, verb: &str, token: &BootstrapToken) -> Result<String, Failure> {
    let unusable =
        |why: String| Failure::Usage(format!("--print-join-command: the kubeconfig can't be used: {why}"));
    let paths =
        kubeconfig::find(app, &|path| path.exists()).map_err(crate::cluster::connect::ConnectError::from)?;
    let read = kubeconfig::read(&paths).map_err(|error| unusable(error.to_string()))?;
    let (servers, ca_pem) = client::kubeconfig::cluster_of(&read).map_err(unusable)?;
    let pin = KeyPin::of_certificate(&ca_pem).map_err(unusable)?;
    let (servers, token) = (servers.join(","), token.shown());
    Ok(format!("amoeba {verb} --join {servers} --token {token} --ca-cert-hash {pin}"))
}

async fn list(cluster: &Cluster, args: &ListArgs) -> Result<(), Failure> {
    let secrets =
        cluster.get(&path(&format!("?fieldSelector=type%3D{}", SECRET_TYPE.replace('/', "%2F")))).await?;
    let secrets = secrets["items"].as_array().cloned().unwrap_or_default();
    let now = Timestamp::now();
    // Items of a list don't say what they are, but these are of the type that was asked for.
    let rows = secrets.iter().filter_map(|secret| row(secret, args.show_secrets, now)).collect();
    let header = ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"];
    let grid = Grid { header: header.map(str::to_owned).to_vec(), rows };
    Printer::default().lines(&grid, &Layout::default()).iter().for_each(say);
    Ok(())
}

fn row(secret: &Value, shows_secret: bool, now: Timestamp) -> Option<Vec<String>> {
    let token = BootstrapToken::of_secret(secret)?;
    let terms = TokenTerms::of_secret(secret);
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let left = |end: Timestamp| match end.duration_since(now).as_secs() {
        seconds if seconds > 0 => api::time::human_duration(seconds),
        _ => "<invalid>".to_owned(),
    };
    let usages = [("authentication", terms.authentication), ("signing", terms.signing)];
    let usages = usages.iter().filter(|(_, is_used)| *is_used).map(|(usage, _)| *usage);
    Some(vec![
        if shows_secret { token.shown() } else { token.id.clone() },
        terms.expiration.map_or_else(|| "<forever>".to_owned(), left),
        terms.expiration.map_or_else(|| "<never>".to_owned(), api::time::rfc3339),
        or_none(usages.collect::<Vec<_>>().join(",")),
        or_none(terms.description),
        or_none(terms.groups.join(",")),
    ])
}

async fn delete(cluster: &Cluster, args: &DeleteArgs) -> Result<(), Failure> {
    for text in &args.tokens {
        let id = text.split('.').next().unwrap_or_default();
        let is_id =
            id.len() == 6 && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !is_id {
            return Err(Failure::Usage(format!("{id:?} is no token or token id of the form [a-z0-9]{{6}}")));
        }
        cluster.delete(&path(&format!("/bootstrap-token-{id}")), &json!({})).await?;
        say(format!("bootstrap token {id:?} deleted"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: CreateArgs,
    }

    fn asked(flags: &[&str]) -> Result<TokenTerms, Failure> {
        let command = Command::try_parse_from(["test"].iter().chain(flags)).expect("flags");
        let token = "abcdef.0123456789abcdef".parse().expect("a token");
        terms(&command.args, &token, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_token_of_the_control_plane_ends_soon_and_is_for_that_alone() {
        let terms = asked(&["--control-plane"]).expect("terms");
        assert_eq!(terms.expiration, Some(Timestamp::from_second(2 * 3600).expect("a time")));
        let own = format!("{CONTROL_PLANE_GROUP}:abcdef");
        assert_eq!(terms.groups, [CONTROL_PLANE_GROUP, &own]);
        let refused = asked(&["--control-plane", "--ttl", "0"]).expect_err("for ever").to_string();
        assert!(refused.contains("has to end"), "{refused}");
        for flags in [&["--control-plane", "--groups", DEFAULT_GROUP][..], &["--pki-dir", "/x"]] {
            assert!(Command::try_parse_from(["test"].iter().chain(flags)).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn a_token_is_good_for_a_day_and_for_joining() {
        let terms = asked(&[]).expect("terms");
        assert_eq!(terms.expiration, Some(Timestamp::from_second(24 * 3600).expect("a time")));
        assert!(terms.signing && terms.authentication);
        assert_eq!(terms.groups, [DEFAULT_GROUP]);
        assert_eq!(asked(&["--ttl", "0"]).expect("terms").expiration, None);
        assert!(!asked(&["--usages", "signing"]).expect("terms").authentication);
        let refused = asked(&["--groups", "system:masters"]).expect_err("nobody becomes an administrator");
        assert!(refused.to_string().contains("system:masters"), "{refused}");
        assert!(Command::try_parse_from(["test", "--usages", "else"]).is_err());
        assert!(Command::try_parse_from(["test", "short"]).is_err());
    }

    #[test]
    fn a_list_tells_secrets_only_if_asked() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().expect("a token");
        let secret = token.to_secret(&asked(&["--description", "rack 3"]).expect("terms"));
        let row = |shows| row(&secret, shows, Timestamp::from_second(3600).expect("a time")).expect("a row");
        assert_eq!(row(false)[..3], ["abcdef", "23h", "1970-01-02T00:00:00Z"]);
        assert_eq!(row(true)[0], "abcdef.0123456789abcdef");
        assert_eq!(row(false)[3..], ["authentication,signing", "rack 3", DEFAULT_GROUP]);
    }
}
