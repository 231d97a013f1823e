//! Kills what has no place in a running group's workload: the tools that restore a backup or make one survivor a
//! cluster (done again, they give the whole state), and the rare record of a long lease.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Output;
use std::time::Duration;

use etcd_client::LeaseGrantOptions;

use super::client::Clients;
use super::group::{Group, Program, Shape, client_url, peer_url};
use super::history::{Change, Request};
use super::recovery::recover;
use super::schedule::inside;
use super::workload::{Run, look};

/// Keys that must be there afterwards; some of them are large.
const KEYS: usize = 40;
/// Until a long lease is written down.
const CHECKPOINT: Duration = Duration::from_secs(400);
/// How long a member may take to pass a failpoint of its start.
const START: Duration = Duration::from_secs(20);

fn value(number: usize) -> String {
    format!("v{number}{}", if number.is_multiple_of(2) { "~65536" } else { "" })
}

/// A group whose first member holds the keys, and clients of that member.
fn prepared(members: usize) -> (Group, Run) {
    let group = Group::start(Shape::plain(Program::Amoeba, members));
    let clients = group.switch.clients.handle().expect("a descriptor");
    let run = inside(&clients, async {
        recover(&Run::new(Clients::connect(&group.endpoints()).await, 0)).await.expect("a new group serves");
        let run = Run::new(Clients::connect(&group.endpoints()[..1]).await, 0);
        for number in 0..KEYS {
            let change = Change::Put { key: format!("k{number}"), value: value(number), lease: 0 };
            let call = run.clients.call(0, 0, Request::Write { guard: None, changes: vec![change] }).await;
            assert!(call.reply().is_some(), "{call:?}");
            run.record(call);
        }
        run
    });
    (group, run)
}

/// The first member serves, writes go on above every old revision, and every key is there.
fn holds_everything(group: &Group, old: &Run) {
    let clients = group.switch.clients.handle().expect("a descriptor");
    inside(&clients, async {
        let run = Run::new(Clients::connect(&group.endpoints()[..1]).await, 0);
        recover(&run).await.expect("the member serves");
        assert!(run.known() > old.known(), "{} comes after {}", run.known(), old.known());
        for number in 0..KEYS {
            let found = look(&run, 0, &format!("k{number}")).await.expect("an answer");
            assert_eq!(found.map(|state| state.value), Some(value(number)), "k{number}");
        }
    });
}

fn killed(output: &Output) -> bool {
    output.status.signal() == Some(libc::SIGKILL)
}

/// Kills a restore at the failpoint, does it again, and starts the member.
///
/// # Panics
/// If the failpoint isn't reached, or something is lost.
pub fn kill_restore(name: &str) {
    let (mut group, run) = prepared(1);
    let file = group.file("backup");
    let saved = group.tool(0, &[], &["snapshot", "save", &file, "--endpoints", &client_url(0)]);
    assert!(saved.status.success(), "{saved:?}");
    let (member, peer) = group.wipe(0);
    let (dir, cluster) = (group.data_dir(0), format!("{member}={}", peer_url(0)));
    let arguments = [
        &["snapshot", "restore", &file, "--data-dir", dir.to_str().expect("UTF-8"), "--name", &member][..],
        &["--initial-cluster", &cluster, "--initial-advertise-peer-urls", &peer][..],
    ]
    .concat();
    let first = group.tool(0, &[("FAILPOINTS", &format!("{name}=return(kill)"))], &arguments);
    assert!(killed(&first), "{name} isn't reached: {first:?}");
    let second = group.tool(0, &[], &arguments);
    // What is complete is not restored over.
    let complete = name == "restore_after_rename";
    assert_eq!(second.status.success(), !complete, "{name}: {second:?}");
    group.admit();
    group.spawn(0, &[]);
    holds_everything(&group, &run);
}

/// Kills `--force-new-cluster` at the failpoint, and does it again.
///
/// # Panics
/// If the failpoint isn't reached, or something is lost.
pub fn kill_recovery(name: &str) {
    let (mut group, run) = prepared(3);
    group.kill_all();
    let setting = format!("{name}=return(kill)");
    group.spawn_with(0, &[("FAILPOINTS", &setting)], &["--force-new-cluster"]);
    let ended = group.wait_for_end(0, START);
    let signal = ended.and_then(|status| status.signal());
    assert_eq!(signal, Some(libc::SIGKILL), "{name} isn't reached: {ended:?}");
    // What is done is refused a second time: a flag that stays in a unit file mustn't found a cluster at each start.
    let again: &[&str] = if name == "recover_after_write" { &[] } else { &["--force-new-cluster"] };
    group.spawn_with(0, &[], again);
    holds_everything(&group, &run);
}

/// Kills a member when it writes down what is left of a long lease: the lease and its key stay.
///
/// # Panics
/// If the failpoint isn't reached, or something is lost.
pub fn kill_checkpoint(name: &str) {
    const LEASE: i64 = 7;
    let mut group = Group::start(Shape::plain(Program::Amoeba, 1));
    group.kill(0);
    group.spawn(0, &[("FAILPOINTS", &format!("{name}=return(kill)"))]);
    let clients = group.switch.clients.handle().expect("a descriptor");
    let endpoints = group.endpoints();
    inside(&clients, async {
        let run = Run::new(Clients::connect(&endpoints).await, 0);
        recover(&run).await.expect("a new group serves");
        let options = LeaseGrantOptions::new().with_id(LEASE);
        run.clients.of(0).lease_grant(3600, Some(options)).await.expect("a lease");
        let change = Change::Put { key: "k".to_owned(), value: "v".to_owned(), lease: LEASE };
        let call = run.clients.call(0, 0, Request::Write { guard: None, changes: vec![change] }).await;
        assert!(call.reply().is_some(), "{call:?}");
    });
    let ended = group.wait_for_end(0, CHECKPOINT);
    assert_eq!(
        ended.and_then(|status| status.signal()),
        Some(libc::SIGKILL),
        "{name} isn't reached: {ended:?}"
    );
    group.spawn(0, &[]);
    inside(&clients, async {
        let run = Run::new(Clients::connect(&endpoints).await, 0);
        recover(&run).await.expect("the member serves");
        let found = look(&run, 0, "k").await.expect("an answer").expect("the key");
        assert_eq!((found.value.as_str(), found.lease), ("v", LEASE));
        let left = run.clients.of(0).lease_time_to_live(LEASE, None).await.expect("an answer").ttl();
        assert!((3000..=3600).contains(&left), "{left} s are left");
    });
}
