//! A snapshot holds what was there, is refused when it isn't whole, and becomes a cluster that nobody can
//! mistake for the old one.

use std::fs;
use std::path::Path;

use e2e::standalone::{Program, StoreProcess, a, amoeba, found};
use e2e::{Cluster, eventually, wait_for_line};
use serde_json::Value;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("amoeba-backup-").tempdir().expect("a temporary directory")
}

fn revision(member: &StoreProcess) -> u64 {
    let status: Value = serde_json::from_str(&member.e("endpoint status -w json")).expect("JSON");
    status[0]["Status"]["header"]["revision"].as_u64().expect("a revision")
}

#[test]
fn a_restored_cluster_has_the_data_and_goes_beyond_every_old_revision() {
    let dir = folder();
    let mut old = StoreProcess::new(Program::Amoeba, dir.path(), "old");
    old.start();
    for number in 0..20 {
        old.e(&format!("put key/{number} {number}"));
    }
    let file = dir.path().join("one.snapshot");
    let saved = a(&format!("snapshot save {} --endpoints {}", file.display(), old.endpoint()));
    assert!(saved.contains("verified"), "{saved}");
    // etcd's own tool saves the same.
    let by_etcdctl = dir.path().join("two.snapshot");
    old.e(&format!("snapshot save {}", by_etcdctl.display()));
    let manifest: Value =
        serde_json::from_str(&a(&format!("snapshot verify -o json {}", by_etcdctl.display()))).expect("JSON");
    assert_eq!(manifest["revision"].as_u64(), Some(revision(&old)));
    old.e("put key/0 later");
    let newest_ever = revision(&old);
    old.stop();

    for (name, file) in [("by-amoeba", &file), ("by-etcdctl", &by_etcdctl)] {
        let mut new = StoreProcess::new(Program::Amoeba, dir.path(), name);
        let flags = format!("--name {name} --initial-advertise-peer-urls {}", new.peer_url());
        a(&format!("snapshot restore {} --data-dir {} {flags}", file.display(), new.dir.display()));
        new.start();
        assert_eq!(new.e("get key/0 --print-value-only"), "0\n");
        assert_eq!(new.e("get key/ --prefix --keys-only").split_whitespace().count(), 20);
        assert!(revision(&new) > newest_ever, "{} after {newest_ever}", revision(&new));
        // A watcher that knows the old cluster can't go on as if nothing had happened.
        let told = new.etcdctl(&format!("watch key/0 --rev={newest_ever}"));
        assert!(
            format!("{}{}", told.out, told.err).contains("required revision has been compacted"),
            "{told:?}"
        );
        new.e("put key/0 new");
    }
}

#[test]
fn what_is_not_whole_is_refused_and_nothing_is_overwritten() {
    let dir = folder();
    let mut member = StoreProcess::new(Program::Amoeba, dir.path(), "m");
    member.start();
    member.e("put k v");
    let file = dir.path().join("good");
    a(&format!("snapshot save {} --endpoints {}", file.display(), member.endpoint()));
    let again = amoeba(&format!("snapshot save {} --endpoints {}", file.display(), member.endpoint()));
    assert!(!again.ok && again.err.contains("exists"), "{again:?}");
    let whole = fs::read(&file).expect("the snapshot");
    let bad = dir.path().join("bad");
    let refuse = |what: &str, bytes: &[u8]| {
        fs::write(&bad, bytes).expect("written");
        let ran = amoeba(&format!("snapshot verify {}", bad.display()));
        assert!(!ran.ok && ran.err.contains(&bad.display().to_string()), "{what}: {ran:?}");
        let target = dir.path().join("never");
        let ran = amoeba(&format!("snapshot restore {} --data-dir {}", bad.display(), target.display()));
        assert!(!ran.ok && !target.join("store").exists(), "{what}: {ran:?}");
    };
    refuse("cut short", &whole[..whole.len() - 1]);
    refuse("cut in half", &whole[..whole.len() / 2]);
    refuse("empty", &[]);
    for at in [0, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        refuse(&format!("a bit at {at} flipped"), &flipped);
    }
    refuse("another file", b"SQLite format 3\0 and so on");
    // A directory with a member in it stays as it is.
    member.stop();
    let ran = amoeba(&format!("snapshot restore {} --data-dir {}", file.display(), member.dir.display()));
    assert!(!ran.ok && ran.err.contains("not empty"), "{ran:?}");
    member.start();
    assert_eq!(member.e("get k"), "k\nv\n");
}

#[test]
fn three_members_restored_from_one_file_are_one_cluster() {
    let dir = folder();
    let mut old = StoreProcess::new(Program::Amoeba, dir.path(), "old");
    old.start();
    old.e("put k v");
    let file = dir.path().join("snapshot");
    a(&format!("snapshot save {} --endpoints {}", file.display(), old.endpoint()));
    old.kill();
    let mut members: Vec<_> =
        ["a", "b", "c"].map(|name| StoreProcess::new(Program::Amoeba, dir.path(), name)).into();
    let cluster = members.iter().map(StoreProcess::as_founder).collect::<Vec<_>>().join(",");
    for member in &members {
        let (file, dir, name) = (file.display(), member.dir.display(), &member.name);
        a(&format!("snapshot restore {file} --data-dir {dir} --name {name} --initial-cluster {cluster}"));
    }
    found(&mut members);
    members[1].e("put after restore");
    let hashes: Vec<String> = members
        .iter()
        .map(|member| {
            assert_eq!(member.e("get k"), "k\nv\n");
            member.e("endpoint hashkv").split(", ").nth(1).expect("a hash").to_owned()
        })
        .collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

#[test]
fn a_survivor_goes_on_alone_and_says_what_may_be_lost() {
    let dir = folder();
    let mut members: Vec<_> =
        ["a", "b", "c"].map(|name| StoreProcess::new(Program::Amoeba, dir.path(), name)).into();
    found(&mut members);
    members[0].e("put k v");
    eventually("the survivor has it", || {
        (members[2].etcdctl("get k --consistency=s").out == "k\nv\n").then_some(())
    });
    let old = revision(&members[2]);
    members.iter_mut().for_each(StoreProcess::kill);
    let mut survivor = members.pop().expect("three members");
    let lost = members;
    let (said, lines) = survivor.spawn_with("--force-new-cluster");
    wait_for_line(&said, "is LOST");
    wait_for_line(&lines, "ready");
    assert_eq!(survivor.e("get k"), "k\nv\n");
    assert!(revision(&survivor) > old);
    survivor.e("put k after");
    assert_eq!(survivor.e("member list").lines().count(), 1);
    survivor.stop();
    // Left in a unit file, the flag must not make yet another cluster.
    let again = survivor.run_to_end_with("--force-new-cluster");
    assert!(!again.ok && again.err.contains("alone already"), "{again:?}");
    survivor.start();
    // The two that were thought lost come back: they are a cluster of their own, not its members.
    let mut lost = lost;
    let lines: Vec<_> = lost.iter_mut().map(StoreProcess::spawn).collect();
    lines.iter().for_each(|lines| drop(wait_for_line(lines, "ready")));
    lost[0].e("put k other");
    assert_eq!(survivor.e("get k"), "k\nafter\n", "the old cluster has no way into the new one");
}

#[test]
fn a_control_plane_is_saved_and_restored() {
    let mut cluster = Cluster::up(1, 0);
    assert!(cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: '1'}}").ok);
    let file = cluster.path().join("snapshot");
    let file = file.to_str().expect("UTF-8 path");
    cluster.a(&format!("snapshot save {file}"));
    let members = cluster.a("member list");
    assert!(members.contains("m1") && members.contains("leader"), "{members}");
    cluster.k("delete configmap kept");
    cluster.stop();
    let dir = cluster.path().join("members/m1");
    fs::remove_dir_all(dir.join("store")).expect("removed");
    cluster.a(&format!("snapshot restore {file} --data-dir {} --member-id 1", utf8(&dir)));
    cluster.start();
    assert_eq!(cluster.k("get configmap kept -o jsonpath={.data.a}"), "1");
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8 path")
}
