//! `amoeba member`: who is in a store's cluster, and changes of that while it lives.
//!
//! A new member is a learner at first: it gets everything but doesn't count for the quorum, so that a member
//! that never starts costs nobody a write. `promote` makes it a voter.

use std::time::Duration;

use etcd::proto::etcdserverpb as pb;
use serde_json::json;

use super::{note, say, say_raw};
use crate::app::App;
use crate::etcdctl::cluster::{CallError, Members, StoreCluster};
use crate::etcdctl::endpoints::{EndpointFlags, Endpoints};
use crate::failure::Failure;
use crate::print::table::simple;
use crate::standalone::url::Url;
use crate::text::parse_duration;

/// Between two attempts to promote a learner that is catching up.
const RETRY: Duration = Duration::from_millis(200);

/// Show or change the members of a store's cluster
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Growing from one to three:\n  amoeba member add b --peer-urls http://10.0.0.2:2380   \
    (prints how to start b)\n  amoeba member promote b                                  (waits until b has \
    everything)\n  and the same for c."
)]
pub struct Args {
    /// Which store.
    #[command(flatten)]
    endpoints: EndpointFlags,
    /// What to do.
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show the members
    #[command(visible_alias = "ls")]
    List {
        /// As table or json
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Form,
    },
    /// Let a new member in, and print how to start it
    Add {
        /// Its name
        name: String,
        /// Where it will listen for the other members
        #[arg(long, value_name = "URL")]
        peer_urls: Url,
        /// Let it vote at once. Until it runs and has caught up, writes may have to wait for it
        #[arg(long)]
        voter: bool,
    },
    /// Make a learner a voter, as soon as it has caught up
    Promote {
        /// Its name or id
        member: String,
        /// How long it may take to catch up
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
        timeout: Duration,
    },
    /// Remove a member for ever; its data directory is of no use afterwards
    Remove {
        /// Its name or id
        member: String,
    },
    /// Tell the others that a member is reached elsewhere now
    Update {
        /// Its name or id
        member: String,
        /// Where it listens for the other members
        #[arg(long, value_name = "URL")]
        peer_urls: Url,
    },
}

/// `-o`
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Asks or changes.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let endpoints = Endpoints::find(app, &args.endpoints).map_err(Failure::Usage)?;
    let cluster = StoreCluster::connect(&endpoints).await.map_err(CallError::from)?;
    match args.action {
        Action::List { output } => list(&cluster, output).await,
        Action::Add { name, peer_urls, voter } => add(&cluster, &endpoints, &name, &peer_urls, voter).await,
        Action::Promote { member, timeout } => promote(&cluster, &member, timeout).await,
        Action::Remove { member } => remove(&cluster, &member).await,
        Action::Update { member, peer_urls } => update(&cluster, &member, &peer_urls).await,
    }
}

async fn list(cluster: &StoreCluster, form: Form) -> Result<(), Failure> {
    let found = cluster.members().await?;
    match form {
        Form::Json => say_raw(&format!("{:#}\n", as_json(&found))),
        Form::Table => {
            let header = ["ID", "NAME", "ROLE", "PEER URLS", "CLIENT URLS"];
            simple(&header, found.members.iter().map(|member| row(&found, member)).collect())
                .iter()
                .for_each(say);
        }
    }
    Ok(())
}

fn row(found: &Members, member: &pb::Member) -> Vec<String> {
    let name = if member.name.is_empty() { "(not started)" } else { member.name.as_str() };
    vec![
        format!("{:x}", member.id),
        name.to_owned(),
        role(found, member).to_owned(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
    ]
}

fn role(found: &Members, member: &pb::Member) -> &'static str {
    match member {
        member if member.is_learner => "learner",
        member if member.id == found.leader => "leader",
        _ => "voter",
    }
}

fn as_json(found: &Members) -> serde_json::Value {
    let member = |member: &pb::Member| {
        json!({
            "id": format!("{:x}", member.id),
            "name": member.name,
            "role": role(found, member),
            "peerURLs": member.peer_ur_ls,
            "clientURLs": member.client_ur_ls,
        })
    };
    json!({
        "clusterId": format!("{:x}", found.cluster),
        "members": found.members.iter().map(member).collect::<Vec<_>>(),
    })
}

async fn add(
    cluster: &StoreCluster,
    endpoints: &Endpoints,
    name: &str,
    peer: &Url,
    voter: bool,
) -> Result<(), Failure> {
    let (added, all) = cluster.add(peer, !voter).await?;
    let role = if voter { "voter" } else { "learner" };
    note(format!("member {:x} is added as a {role}. Start it on its machine:", added.id));
    say(match endpoints.control_plane {
        true => start_server(name, peer, &others(&all, added.id)),
        false => start_store(name, peer, &others(&all, added.id)),
    });
    if !voter {
        note(format!("Then let it vote:  amoeba member promote {:x}", added.id));
    }
    Ok(())
}

fn others(all: &[pb::Member], new: u64) -> Vec<&pb::Member> {
    all.iter().filter(|member| member.id != new && !member.peer_ur_ls.is_empty()).collect()
}

/// The command that starts the new member of `amoeba store`s.
fn start_store(name: &str, peer: &Url, others: &[&pb::Member]) -> String {
    let mut listed: Vec<String> =
        others.iter().map(|member| format!("{}={}", founder_name(member), member.peer_ur_ls[0])).collect();
    listed.push(format!("{name}={peer}"));
    let tls = match peer.secure {
        true => " --peer-cert-file … --peer-key-file … --peer-trusted-ca-file …",
        false => "",
    };
    format!(
        "  amoeba store --name {name} --data-dir {name} --listen-peer-urls {peer} --initial-cluster-state existing \
         --initial-cluster {}{tls}",
        listed.join(",")
    )
}

/// A member that never started has no name; its id will do.
fn founder_name(member: &pb::Member) -> String {
    if member.name.is_empty() { format!("{:x}", member.id) } else { member.name.clone() }
}

/// The command that starts the new member of a control plane.
fn start_server(name: &str, peer: &Url, others: &[&pb::Member]) -> String {
    let joined: Vec<String> = others
        .iter()
        .filter_map(|member| Some(member.peer_ur_ls[0].split_once("://")?.1.to_owned()))
        .collect();
    format!(
        "  amoeba server --name {name} --data-dir {name} --pki-dir COPY-OF-THE-CLUSTERS-PKI --peer-address {} --join {}",
        peer.authority(),
        joined.join(",")
    )
}

async fn promote(cluster: &StoreCluster, member: &str, patience: Duration) -> Result<(), Failure> {
    let id = find(cluster, member).await?;
    let deadline = tokio::time::Instant::now() + patience;
    let mut told = false;
    loop {
        match cluster.promote(id).await {
            Err(error) if error.is_not_caught_up() && tokio::time::Instant::now() + RETRY < deadline => {
                if !std::mem::replace(&mut told, true) {
                    note(format!("member {id:x} is catching up; waiting up to {} s", patience.as_secs()));
                }
                // Nobody tells a client when a learner has caught up: it has to ask.
                tokio::time::sleep(RETRY).await;
            }
            outcome => {
                outcome?;
                say(format!("member {id:x} votes"));
                return Ok(());
            }
        }
    }
}

async fn remove(cluster: &StoreCluster, member: &str) -> Result<(), Failure> {
    let id = find(cluster, member).await?;
    cluster.remove(id).await?;
    say(format!("member {id:x} is removed"));
    Ok(())
}

async fn update(cluster: &StoreCluster, member: &str, peer: &Url) -> Result<(), Failure> {
    let id = find(cluster, member).await?;
    cluster.update(id, peer).await?;
    say(format!("member {id:x} is expected at {peer}"));
    Ok(())
}

/// The id of a member that the user named by name or id.
async fn find(cluster: &StoreCluster, wanted: &str) -> Result<u64, Failure> {
    let found = cluster.members().await?;
    pick(&found.members, wanted).map_err(Failure::Usage)
}

fn pick(members: &[pb::Member], wanted: &str) -> Result<u64, String> {
    let named: Vec<u64> =
        members.iter().filter(|member| member.name == wanted).map(|member| member.id).collect();
    match (named.as_slice(), u64::from_str_radix(wanted.trim_start_matches("0x"), 16)) {
        ([only], _) => Ok(*only),
        ([], Ok(id)) if members.iter().any(|member| member.id == id) => Ok(id),
        ([], _) => Err(format!(
            "the cluster has no member {wanted}: it has {}",
            crate::text::and(&members.iter().map(founder_name).collect::<Vec<_>>())
        )),
        (_, _) => Err(format!("several members are called {wanted}: say which by its id")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str) -> pb::Member {
        let peer_ur_ls = vec![format!("http://10.0.0.{id}:2380")];
        pb::Member { id, name: name.to_owned(), peer_ur_ls, ..pb::Member::default() }
    }

    #[test]
    fn members_are_found_by_name_or_id() {
        let members = [member(1, "a"), member(0xab, ""), member(3, "twin"), member(4, "twin")];
        assert_eq!(pick(&members, "a"), Ok(1));
        assert_eq!(pick(&members, "ab"), Ok(0xab));
        assert!(pick(&members, "twin").expect_err("two").contains("by its id"));
        assert!(pick(&members, "z").expect_err("none").contains("a, ab, twin and twin"));
    }

    #[test]
    fn the_printed_command_starts_the_new_member() {
        let (one, two) = (member(1, "a"), member(2, "b"));
        let peer: Url = "http://10.0.0.3:2380".parse().expect("a URL");
        let line = start_store("c", &peer, &[&one, &two]);
        assert!(line.contains(
            "--initial-cluster a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380"
        ));
        assert!(line.contains("--initial-cluster-state existing") && !line.contains("--peer-cert-file"));
        let line = start_server("c", &peer, &[&one, &two]);
        assert!(line.contains("--peer-address 10.0.0.3:2380 --join 10.0.0.1:2380,10.0.0.2:2380"), "{line}");
    }

    #[test]
    fn roles_are_shown() {
        let learner = pb::Member { is_learner: true, ..member(3, "") };
        let found = Members { cluster: 9, leader: 1, members: vec![member(1, "a"), member(2, "b"), learner] };
        let shown: Vec<_> = found.members.iter().map(|member| row(&found, member)[2].clone()).collect();
        assert_eq!(shown, ["leader", "voter", "learner"]);
        assert_eq!(as_json(&found)["members"][2]["role"], "learner");
        assert_eq!(row(&found, &found.members[2])[1], "(not started)");
    }
}
