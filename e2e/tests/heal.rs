//! The demonstration itself: kill a node, kill the Raft leader, lose nothing.

use std::process::Command;

use e2e::{Cluster, amoeba_binary, eventually, manifest};
use nix::sched::{CloneFlags, unshare};

#[test]
fn the_demo_holds_what_it_shows() {
    // A machine of its own, so that its pods can have addresses and a Service, whatever else runs beside.
    if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("iproute2").success());
    }
    let home = tempfile::tempdir().expect("a directory");
    let ran = Command::new(amoeba_binary())
        .args(["demo", "self-heal"])
        .env("HOME", home.path())
        .env_remove("KUBECONFIG")
        .output()
        .expect("the demo runs");
    let out = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{out}\n{}", String::from_utf8_lossy(&ran.stderr));
    if nix::unistd::Uid::effective().is_root() {
        assert!(out.contains("no request through the Service failed"), "{out}");
    }
}

#[test]
fn a_frozen_node_is_replaced_and_obeys_when_it_thaws() {
    let cluster = Cluster::up(1, 2);
    cluster.k(&format!("apply -f {}", manifest("web.yaml")));
    cluster.ready_pods("app=web", 6);
    let nodes = cluster.k("get nodes -o name");
    let frozen = nodes.lines().next().and_then(|line| line.strip_prefix("node/")).expect("a node").to_owned();

    cluster.a(&format!("chaos stop {frozen}"));
    eventually("all six pods run on the other node", || {
        let pods = cluster.items("pods -l app=web");
        let live =
            pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null() && e2e::is_ready(pod));
        (live.filter(|pod| pod["spec"]["nodeName"] != frozen.as_str()).count() == 6).then_some(())
    });

    cluster.a(&format!("chaos resume {frozen}"));
    // The thawed node learns that its pods were evicted, ends them, and is Ready again.
    cluster.ready_pods("app=web", 6);
    eventually("the node is Ready and untainted", || {
        let node = cluster.items(&format!("node {frozen}")).remove(0);
        (e2e::is_ready(&node) && node["spec"]["taints"].is_null()).then_some(())
    });
}

#[test]
fn without_a_quorum_nothing_is_acknowledged_and_with_one_all_goes_on() {
    let cluster = Cluster::up(3, 1);
    let write =
        |name: &str| cluster.apply(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n"));
    let first = write("before");
    assert!(first.ok, "{}", first.err);
    for member in ["m1", "m2"] {
        cluster.a(&format!("chaos kill {member}"));
    }
    let ran = cluster.kubectl(["create", "configmap", "during", "--request-timeout=3s", "--validate=false"]);
    assert!(!ran.ok, "a minority acknowledged a write: {}", ran.out);
    for member in ["m1", "m2"] {
        cluster.a(&format!("chaos resume {member}"));
    }
    eventually("writes go on", || write("after").ok.then_some(()));
    cluster.k("get configmap before");
}
