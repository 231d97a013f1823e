//! A control plane on a stock etcd: kubectl notices no difference, and it outlives etcd's absence.

use std::fs;

use e2e::standalone::{Program, StoreProcess};
use e2e::{Cluster, eventually, manifest};

#[test]
fn a_deployment_runs_on_a_stock_etcd_which_may_die_and_come_back() {
    let dir = tempfile::Builder::new().prefix("amoeba-on-etcd-").tempdir().expect("a temporary directory");
    let mut etcd = StoreProcess::new(Program::Etcd, dir.path(), "stock");
    let founder = etcd.as_founder();
    etcd.flags.extend(["--initial-cluster".to_owned(), founder]);
    etcd.start();
    let cluster = Cluster::up_with(1, 1, &["--etcd-servers", &etcd.endpoint()]);
    let log = fs::read_to_string(cluster.path().join("members/m1/server.log")).expect("the member's log");
    assert!(log.contains("keeps no journal"), "what is missing is said: {log}");

    cluster.k(&format!("apply -f {}", manifest("web.yaml")));
    cluster.ready_pods("app=web", 6);
    let applied = "{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: '1'}}";
    assert!(cluster.apply(applied).ok);
    assert_eq!(cluster.k("get configmap kept -o jsonpath={.data.a}"), "1");
    let stored = etcd.e("get /registry/ --prefix --keys-only");
    assert!(stored.contains("kept") && !cluster.path().join("members/m1/store").exists(), "{stored}");

    etcd.kill();
    let refused = cluster.k_fails("create configmap lost --request-timeout=3s");
    assert!(!refused.is_empty());
    etcd.start();
    eventually("writes go on when etcd is back", || {
        cluster.kubectl(["create", "configmap", "after", "--request-timeout=3s"]).ok.then_some(())
    });
    cluster.k("delete configmap kept");
    // What runs in the cluster follows again, too: a pod is replaced by the watches of controllers and nodes.
    cluster.k("scale deployment web --replicas=2");
    eventually("the deployment is scaled", || {
        let pods = cluster.items("pods -l app=web");
        let live = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).count();
        (live == 2).then_some(())
    });
}
