//! Debian's `etcdctl` against our server and against a real etcd: every command must end the same way and
//! print the same.

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::{RealEtcd, Server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

/// A command's end: whether it succeeded, and what it printed, without what differs between any two clusters.
async fn etcdctl(endpoint: &str, args: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("etcdctl");
    command.args(["--endpoints", endpoint]).args(args).env("ETCDCTL_API", "3").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("etcdctl is installed: apt install etcd-client");
    let mut stdin = child.stdin.take().expect("it is piped");
    // Most commands read none, and may have ended already.
    let _unread = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("etcdctl {args:?} doesn't end")).expect("it ran");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let errors = stderr.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n");
    (output.status.success(), normalize(&format!("{stdout}{errors}")))
}

/// Replaces what differs between any two clusters: ids, terms, addresses.
fn normalize(text: &str) -> String {
    let mut out = String::new();
    let is_hex = |c: char| c.is_ascii_hexdigit();
    for word in text.split_inclusive(|c: char| !is_hex(c)) {
        let digits = word.trim_end_matches(|c: char| !is_hex(c));
        if digits.len() == 16 {
            out.push_str("<id>");
            out.push_str(&word[16..]);
        } else {
            out.push_str(word);
        }
    }
    for field in ["\"cluster_id\":", "\"member_id\":", "\"raft_term\":"] {
        while let Some(at) = out.find(field) {
            let end = out[at..].find([',', '}']).map_or(out.len(), |end| at + end);
            out.replace_range(at..end, &field[1..3]);
        }
    }
    out
}

/// Runs the lines against both and compares; `|` separates a command from its input, whose lines are
/// separated by `;`.
async fn same(script: &str) {
    let (ours, theirs) = (Server::start().await, RealEtcd::start().await);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (command, input) = line.split_once('|').unwrap_or((line, ""));
        let args: Vec<_> = command.split_whitespace().map(|arg| if arg == "''" { "" } else { arg }).collect();
        let input: String = input.trim().split(';').map(|line| format!("{}\n", line.trim())).collect();
        let expected = etcdctl(&theirs.endpoint, &args, &input).await;
        assert_eq!(etcdctl(&ours.endpoint(), &args, &input).await, expected, "etcdctl {line}");
    }
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn put_and_get() {
    same(
        "put a 1
         put b 2
         put a 3 --prev-kv
         put c 4 -w json
         get a
         get a -w json
         get nothing -w json
         get '' --prefix
         get a c
         get a c -w json
         get b --from-key
         get '' --from-key --limit=2
         get '' --prefix --limit=2 -w json
         get '' --prefix --keys-only
         get '' --prefix --count-only -w json
         get '' --prefix --count-only --limit=1 -w json
         get '' --prefix --print-value-only
         get '' --prefix --order=DESCEND --sort-by=KEY
         get '' --prefix --order=ASCEND --sort-by=MODIFY
         get '' --prefix --order=DESCEND --sort-by=CREATE
         get '' --prefix --order=DESCEND --sort-by=VERSION --limit=1 -w json
         get '' --prefix --order=ASCEND --sort-by=VALUE --keys-only
         get a --rev=5
         get a --rev=4 -w json
         get a --rev=999
         get a --consistency=s
         get c a
         put a --ignore-value
         put nothing --ignore-value
         put nothing x --ignore-lease
         put '' x
         get b -w json",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_and_compact() {
    same(
        "put a 1
         put b 2
         put c 3
         put c 4
         del a --prev-kv
         del a
         del nothing -w json
         del b --from-key --prev-kv -w json
         put a 5
         compaction 5
         compaction 5
         compaction 4
         compaction 999
         get a --rev=4
         get c --rev=5
         get a --rev=7
         del '' --prefix
         get '' --prefix -w json
         compaction 10 --physical",
    )
    .await;
}

/// Both begin at revision 1. (etcd takes `compaction 0` only once.)
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_store() {
    same(
        "get a -w json
         get a --rev=1 -w json
         get a --rev=2
         del a -w json
         txn -w json | ; ; ;
         compaction 2
         compaction 0
         compaction 1
         compaction 1
         get a --rev=1 -w json
         put a 1 -w json
         get a -w json
         get a --rev=1 -w json
         compaction 0
         compaction 2",
    )
    .await;
}

/// A watch from the first revision on brings the first write, which is the second, and so does one from there.
#[tokio::test(flavor = "multi_thread")]
async fn watches_from_the_first_revisions() {
    let (ours, theirs) = (Server::start().await, RealEtcd::start().await);
    for endpoint in [&ours.endpoint(), &theirs.endpoint] {
        etcdctl(endpoint, &["put", "k", "v"], "").await;
    }
    for revision in ["--rev=1", "--rev=2"] {
        let expected = first_watched(&theirs.endpoint, revision).await;
        assert!(expected.contains("\"mod_revision\":2"), "{expected}");
        assert_eq!(first_watched(&ours.endpoint(), revision).await, expected, "watch {revision}");
    }
    ours.stop().await;
}

/// The first line that a watch prints.
async fn first_watched(endpoint: &str, revision: &str) -> String {
    let mut command = Command::new("etcdctl");
    command.args(["--endpoints", endpoint, "watch", "k", revision, "-w", "json"]).env("ETCDCTL_API", "3");
    let mut watch = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("etcdctl is installed");
    let mut lines = BufReader::new(watch.stdout.take().expect("it is piped")).lines();
    let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await;
    normalize(&line.expect("an event comes").expect("it is text").expect("the watch goes on"))
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions() {
    same(
        "put a 1
         txn -w json | ver(\"a\") = \"1\"; ; put b 2; get a; ; put c 3; ;
         txn | mod(\"a\") = \"1\"; ; put b 2; ; get a; ;
         txn | c(\"a\") > \"0\"; val(\"a\") = \"1\"; ; del a; put d 1; get '' --prefix; ; get d; ;
         txn -w json | val(\"nothing\") = \"\"; ; get b; ; get d; ;
         txn -w json | ver(\"nothing\") = \"0\"; ; put e 1; put f 2; get e; ; get d; ;
         txn | ver(\"a\") < \"0\"; ; ; get d --print-value-only; get e; ;
         txn | ; put g 1; put g 2; ; ;
         txn | ; del g; put g 2; ; ;
         txn | ; put '' 2; ; ;
         txn -w json | ; del b; get b; ; ;
         get '' --prefix -w json",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases() {
    same(
        "lease grant 100
         lease revoke 123456
         lease timetolive 123456
         lease timetolive 123456 --keys -w json
         lease keep-alive 123456 --once
         put k v --lease=123456
         get k -w json",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance() {
    same(
        "alarm list
         alarm disarm
         user list
         role list
         auth disable
         auth enable
         user get nobody
         role get nothing
         move-leader 123456
         snapshot save",
    )
    .await;
}
