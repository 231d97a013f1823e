//! `amoeba store` is an etcd to etcd's own tool: every command of `etcdctl` gets the same answer from it as
//! from a stock etcd 3.4.

use std::fs;
use std::path::Path;

use e2e::standalone::{Program, StoreProcess, etcdctl, found, leader};
use e2e::{Cluster, Ran, eventually, wait_for_line};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("amoeba-etcd-").tempdir().expect("a temporary directory")
}

/// Ours and a stock one, each alone and fresh.
struct Pair {
    ours: StoreProcess,
    stock: StoreProcess,
    _dir: TempDir,
}

impl Pair {
    fn start() -> Self {
        let dir = folder();
        let mut ours = StoreProcess::new(Program::Amoeba, dir.path(), "ours");
        let mut stock = StoreProcess::new(Program::Etcd, dir.path(), "stock");
        for member in [&mut ours, &mut stock] {
            let cluster = member.as_founder();
            member.flags.extend(["--initial-cluster".to_owned(), cluster]);
            member.start();
        }
        for member in [&ours, &stock] {
            member.e("put first write");
            member.e("del first");
        }
        Self { ours, stock, _dir: dir }
    }

    /// Runs one command on both; exit code, output and complaint must be equal.
    fn same(&self, line: &str) -> Ran {
        self.same_with(line, "")
    }

    fn same_with(&self, line: &str, input: &str) -> Ran {
        let ours = etcdctl(&self.ours.endpoint(), line, input);
        let stock = etcdctl(&self.stock.endpoint(), line, input);
        assert_eq!(
            (ours.ok, shown(&ours.out), complaint(&ours.err)),
            (stock.ok, shown(&stock.out), complaint(&stock.err)),
            "etcdctl {line}: ours (left) differs from etcd (right)"
        );
        ours
    }

    /// Of a command that goes on: the first `count` lines must be equal.
    fn same_lines(&self, line: &str, count: usize) {
        let seen = [&self.ours, &self.stock].map(|member| {
            let (_running, lines) = member.follow(line);
            (0..count).map(|_| lines.recv_timeout(e2e::PATIENCE).expect("a line")).collect::<Vec<_>>()
        });
        assert_eq!(seen[0], seen[1], "etcdctl {line}: ours (left) differs from etcd (right)");
    }
}

/// What etcdctl prints, without what differs between any two clusters.
fn shown(out: &str) -> Vec<&str> {
    let differs = ["\"ClusterID\"", "\"MemberID\"", "\"RaftTerm\""];
    out.lines().filter(|line| !differs.iter().any(|field| line.starts_with(field))).collect()
}

/// What etcdctl says of a failure without the time and the place of its own log lines.
fn complaint(err: &str) -> Vec<String> {
    let words = |line: &str| match line.split_once("\"error\":\"") {
        Some((_, error)) => error.trim_end_matches("\"}").to_owned(),
        None => line.to_owned(),
    };
    // A line of etcdctl's log without an error only tells how it retries.
    let lines = err.lines().filter(|line| !line.starts_with('{') || line.contains("\"error\""));
    lines.map(words).collect()
}

#[test]
fn keys_are_put_got_and_deleted_as_by_etcd() {
    let pair = Pair::start();
    for line in [
        "put a 1",
        "put b 2",
        "put a 3 --prev-kv",
        "put c/1 x",
        "put c/2 y",
        "put nowhere z --ignore-value",
        "put a --ignore-value",
        "put b 2 --lease=123",
        "get a",
        "get missing",
        "get a -w fields",
        "get --prefix c/",
        "get --prefix c/ --keys-only",
        "get --prefix c/ --print-value-only",
        "get --prefix --count-only c/ -w fields",
        "get a c",
        "get b --from-key",
        "get b --from-key --limit 1",
        "get --prefix c/ --order=DESCEND",
        "get --prefix  --sort-by=MODIFY --order=ASCEND",
        "get a --rev=5",
        "get a --rev=3",
        "get a --rev=999",
        "get a --consistency=s",
        "get a --hex",
        "del missing",
        "del a --prev-kv",
        "get a --rev=6",
        "del --prefix c/",
        "put r1 1",
        "put r2 2",
        "put r3 3",
        "del r1 r3",
        "del --from-key r",
        "get --prefix ",
    ] {
        pair.same(line);
    }
}

#[test]
fn transactions_compare_and_write_as_in_etcd() {
    let pair = Pair::start();
    pair.same("put flag on");
    for txn in [
        // Holds; writes two keys and reads one back.
        "value(\"flag\") = \"on\"\nversion(\"flag\") > \"0\"\n\nput x 1\nput y 2\nget x\n\nput x no\n\n",
        // Doesn't hold: the other branch.
        "mod(\"flag\") < \"1\"\n\nput x no\n\nget --prefix x\ndel y\n\n",
        "create(\"missing\") = \"0\"\n\nput made yes\n\n\n",
        // The same key twice.
        "version(\"flag\") = \"1\"\n\nput k 1\nput k 2\n\n\n",
        "\nput always 1\n\n\n",
    ] {
        pair.same_with("txn", txn);
    }
    pair.same("get --prefix  -w fields --rev=5");
}

#[test]
fn history_is_watched_and_compacted_as_in_etcd() {
    let pair = Pair::start();
    for line in ["put k 1", "put k 2", "put other x", "del k", "put k 3"] {
        pair.same(line);
    }
    pair.same_lines("watch k --rev=4 --prev-kv", 16);
    pair.same_lines("watch --prefix  --rev=5", 12);
    pair.same_lines("watch a z --rev=4", 15);
    pair.same("compaction 6");
    for line in ["get k --rev=5", "get k --rev=6", "compaction 5", "compaction 99", "watch k --rev=4"] {
        pair.same(line);
    }
    pair.same("compaction 8 --physical");
}

#[test]
fn a_watch_that_waits_gets_what_comes() {
    let pair = Pair::start();
    for member in [&pair.ours, &pair.stock] {
        let (_running, lines) = member.follow("watch --prefix job/ --prev-kv");
        // etcdctl doesn't say when the watch stands: write until it has seen something.
        let first = eventually("the watch stands", || {
            member.e("put job/1 start");
            lines.recv_timeout(std::time::Duration::from_millis(200)).ok()
        });
        assert_eq!(first, "PUT");
        member.e("del job/1");
        let told = wait_for_line(&lines, "DELETE");
        assert_eq!(told, "DELETE");
        assert_eq!(wait_for_line(&lines, "job/1"), "job/1");
        assert_eq!(wait_for_line(&lines, "start"), "start", "the value before it was deleted");
    }
}

#[test]
fn leases_live_and_end_as_in_etcd() {
    let pair = Pair::start();
    for member in [&pair.ours, &pair.stock] {
        let granted = member.e("lease grant 600");
        let id = granted.split(' ').nth(1).expect("lease ID granted with TTL(600s)").to_owned();
        assert_eq!(granted, format!("lease {id} granted with TTL(600s)\n"));
        member.e(&format!("put --lease={id} leased 1"));
        assert_eq!(member.e("lease list"), format!("found 1 leases\n{id}\n"));
        let left = member.e(&format!("lease timetolive {id} --keys"));
        assert!(
            left.contains("granted with TTL(600s)") && left.ends_with("attached keys([leased])\n"),
            "{left}"
        );
        let kept = member.e(&format!("lease keep-alive --once {id}"));
        assert_eq!(kept, format!("lease {id} keepalived with TTL(600)\n"));
        assert_eq!(member.e(&format!("lease revoke {id}")), format!("lease {id} revoked\n"));
        assert_eq!(member.e("get leased"), "");
        let gone = member.e(&format!("lease timetolive {id}"));
        assert_eq!(gone, format!("lease {id} already expired\n"));
    }
    pair.same("lease revoke 4242");
    pair.same("put x 1 --lease=4242");
    let short = pair.ours.e("lease grant 1");
    let id = short.split(' ').nth(1).expect("an id").to_owned();
    pair.ours.e(&format!("put --lease={id} short 1"));
    eventually("the key ends with its lease", || pair.ours.e("get short").is_empty().then_some(()));
}

#[test]
fn an_operators_commands_work() {
    let pair = Pair::start();
    let ours = &pair.ours;
    ours.e("put k v");
    let status = ours.e("endpoint status -w json");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let status = &status[0]["Status"];
    assert_eq!(status["leader"], status["header"]["member_id"], "{status}");
    assert_eq!(status["header"]["revision"], 4);
    assert!(status["dbSize"].as_u64().is_some_and(|size| size > 0), "{status}");
    let health = ours.etcdctl("endpoint health");
    assert!(health.ok && health.err.contains("is healthy"), "{health:?}");
    let hash = ours.e("endpoint hashkv");
    assert_eq!(hash, ours.e("endpoint hashkv"), "the hash of the same keys is the same");
    ours.e("put k w");
    assert_ne!(hash, ours.e("endpoint hashkv"));
    assert_eq!(ours.e("alarm list"), "");
    assert_eq!(ours.e("alarm disarm"), "");
    let defragmented = ours.e("defrag");
    assert!(defragmented.starts_with("Finished defragmenting etcd member"), "{defragmented}");
    let members = ours.e("member list");
    assert!(members.contains(", started, ours, ") && members.contains(&ours.endpoint()), "{members}");
    pair.same("move-leader 1234");
    pair.same("role list");
    // Users are what certificates say: that can't be changed by a call, and the answer says so.
    let refused = ours.etcdctl("user add root:pw");
    assert!(!refused.ok && refused.err.contains("client certificates"), "{refused:?}");
}

#[test]
fn locks_are_held_by_one_and_elections_won_by_one() {
    let pair = Pair::start();
    for member in [&pair.ours, &pair.stock] {
        assert_eq!(member.e("lock alone echo mine"), "mine\n");
        let (holder, held) = member.follow("lock mutex");
        let key = wait_for_line(&held, "mutex/");
        let (_second, waiting) = member.follow("lock mutex");
        assert!(waiting.recv_timeout(std::time::Duration::from_millis(300)).is_err(), "only one holds it");
        member.e(&format!("del {key}"));
        assert_ne!(wait_for_line(&waiting, "mutex/"), key);
        drop(holder);
        let (_campaign, won) = member.follow("elect post alice");
        let leader = wait_for_line(&won, "post/");
        assert_eq!(wait_for_line(&won, "alice"), "alice");
        let (_observer, observed) = member.follow("elect -l post");
        assert_eq!(wait_for_line(&observed, "post/"), leader);
        assert_eq!(wait_for_line(&observed, "alice"), "alice");
    }
}

#[test]
fn three_members_found_a_cluster_and_move_its_leader() {
    let dir = folder();
    let mut members = ["a", "b", "c"].map(|name| StoreProcess::new(Program::Amoeba, dir.path(), name));
    found(&mut members);
    let all = members.iter().map(StoreProcess::endpoint).collect::<Vec<_>>().join(",");
    members[0].e("put k v");
    for member in &members {
        assert_eq!(member.e("get k"), "k\nv\n");
        assert_eq!(member.e("member list").lines().count(), 3);
    }
    let old = leader(&members);
    let new = (old + 1) % 3;
    let id = id_of(&members[new]);
    let moved = etcdctl(&members[old].endpoint(), &format!("move-leader {id:x}"), "");
    assert!(moved.ok && moved.out.contains(&format!("{id:x}")), "{moved:?}");
    eventually("the leader has moved", || (leader(&members) == new).then_some(()));
    let hashes = etcdctl(&all, "endpoint hashkv", "").out;
    let hashes: Vec<&str> = hashes.lines().filter_map(|line| line.split(", ").nth(1)).collect();
    assert!(hashes.len() == 3 && hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert!(members.iter_mut().all(|member| member.stop().success()), "each ends in order");
}

fn id_of(member: &StoreProcess) -> u64 {
    let status: serde_json::Value = serde_json::from_str(&member.e("endpoint status -w json")).expect("JSON");
    status[0]["Status"]["header"]["member_id"].as_u64().expect("an id")
}

#[test]
fn a_member_stopped_or_killed_comes_back_with_everything() {
    let dir = folder();
    let mut member = StoreProcess::new(Program::Amoeba, dir.path(), "m");
    member.start();
    member.e("put k 1");
    assert!(member.stop().success());
    member.start();
    member.e("put k 2");
    member.kill();
    // Flags that found a cluster count only at its first start, as with etcd.
    member = StoreProcess::new(Program::Amoeba, dir.path(), "m");
    member.start();
    assert_eq!(member.e("get k"), "k\n2\n");
    let mut second = StoreProcess::new(Program::Amoeba, dir.path(), "n");
    second.dir = member.dir.clone();
    let refused = second.run_to_end();
    assert!(!refused.ok && refused.err.contains("in use"), "{refused:?}");
}

/// Writes an authority `NAME-ca.crt` and a certificate for this machine that it signed, `NAME.crt` and `.key`.
fn write_certificates(dir: &Path, name: &str) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("a key");
    let signed = authority.self_signed(&authority_key).expect("an authority");
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let subjects = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let own = CertificateParams::new(subjects).expect("names").signed_by(&key, &issuer).expect("signed");
    for (file, text) in [("-ca.crt", signed.pem()), (".crt", own.pem()), (".key", key.serialize_pem())] {
        fs::write(dir.join(format!("{name}{file}")), text).expect("written");
    }
}

/// etcdctl's flags for the certificate of `shown`, trusting `trusted`.
fn tls_flags(dir: &Path, trusted: &str, shown: Option<&str>) -> String {
    let dir = dir.display();
    let own =
        shown.map(|name| format!(" --cert {dir}/{name}.crt --key {dir}/{name}.key")).unwrap_or_default();
    format!("--cacert {dir}/{trusted}-ca.crt{own}")
}

#[test]
fn certificates_decide_who_gets_in() {
    let dir = folder();
    let at = dir.path().display();
    for name in ["client", "peer", "stranger"] {
        write_certificates(dir.path(), name);
    }
    let flags = format!(
        "--cert-file {at}/client.crt --key-file {at}/client.key --trusted-ca-file {at}/client-ca.crt \
         --client-cert-auth --peer-cert-file {at}/peer.crt --peer-key-file {at}/peer.key \
         --peer-trusted-ca-file {at}/peer-ca.crt --peer-client-cert-auth=true"
    );
    let mut members = ["a", "b", "c"].map(|name| {
        let mut member = StoreProcess::new(Program::Amoeba, dir.path(), name).with(&flags);
        member.scheme = "https";
        member
    });
    found(&mut members);
    let trusted = tls_flags(dir.path(), "client", Some("client"));
    members[0].e(&format!("put k v {trusted}"));
    assert_eq!(members[1].e(&format!("get k {trusted}")), "k\nv\n");
    assert!(members[2].e(&format!("endpoint status {trusted}")).contains("https://"));
    let urls = members[0].e(&format!("member list {trusted}"));
    assert!(urls.contains(&members[1].peer_url()), "peers are https: {urls}");
    for shown in [None, Some("stranger"), Some("peer")] {
        let flags = tls_flags(dir.path(), "client", shown);
        let refused = members[0].etcdctl(&format!("get k --command-timeout=1s {flags}"));
        assert!(!refused.ok, "{shown:?}: {refused:?}");
    }
    // A member with the certificate of another authority is none.
    let mut stranger = StoreProcess::new(Program::Amoeba, dir.path(), "d")
        .with(&flags.replace("/peer.", "/stranger.").replace("/peer-ca.", "/stranger-ca."));
    stranger.scheme = "https";
    let cluster = format!("{},{}", members[0].as_founder(), stranger.as_founder());
    let stranger = stranger.with(&format!("--initial-cluster-state existing --initial-cluster {cluster}"));
    let ran = stranger.run_to_end();
    assert!(!ran.ok && ran.err.contains("no member of the cluster to join answered"), "{ran:?}");
}

#[test]
fn the_store_of_a_control_plane_opens_to_one_certificate_only() {
    let cluster = Cluster::up(1, 1);
    let left = fs::read_to_string(cluster.path().join("etcd-endpoints.json")).expect("left behind");
    let left: serde_json::Value = serde_json::from_str(&left).expect("JSON");
    let endpoint = left["endpoints"][0].as_str().expect("an endpoint");
    let file = |name: &str| left[name].as_str().expect("a path").to_owned();
    let keys = "get /registry/ --prefix --keys-only --command-timeout=2s";
    let trusted = format!("{keys} --cacert {}", file("cacert"));
    let opened = etcdctl(endpoint, &format!("{trusted} --cert {} --key {}", file("cert"), file("key")), "");
    assert!(opened.ok && opened.out.contains("/registry/"), "{opened:?}");
    let node = cluster.path().join("nodes/n1/kubelet").display().to_string();
    let as_node = etcdctl(endpoint, &format!("{trusted} --cert {node}.crt --key {node}.key"), "");
    let as_nobody = etcdctl(endpoint, &trusted, "");
    assert!(!as_node.ok && !as_nobody.ok, "a node, or nobody, reads every Secret: {as_node:?} {as_nobody:?}");
}
