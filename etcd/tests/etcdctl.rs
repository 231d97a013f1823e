//! Debian's `etcdctl` against our server.

mod common;

use common::Server;
use tokio::process::Command;

async fn etcdctl(server: &Server, args: &[&str]) -> (bool, String) {
    let output = Command::new("etcdctl")
        .args(["--endpoints", &server.endpoint()])
        .args(args)
        .env("ETCDCTL_API", "3")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(std::time::Duration::from_secs(20), output).await;
    let output = output.expect("etcdctl ends").expect("etcdctl is installed: apt install etcd-client");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn put_get_del() {
    let server = Server::start().await;
    for args in [
        &["put", "a", "1"][..],
        &["put", "b", "2"],
        &["get", "a", "-w", "json"],
        &["get", "", "--prefix", "--order=DESCEND", "--sort-by=KEY"],
        &["del", "a", "--prev-kv"],
        &["put", "", "x"],
        &["lease", "grant", "100"],
    ] {
        println!("{args:?} -> {:?}", etcdctl(&server, args).await);
    }
    server.stop().await;
}
