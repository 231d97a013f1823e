//! Everything that was acknowledged survives the loss of every process at once, and what runs keeps running.

use std::collections::BTreeMap;

use e2e::{Cluster, manifest};
use serde_json::Value;

#[test]
fn a_cluster_killed_at_once_comes_back_as_it_was() {
    let mut cluster = Cluster::up(3, 2);
    assert!(cluster.apply(&kept_with(1)).ok);
    cluster.k(&format!("apply -f {}", manifest("web.yaml")));
    let before = containers(&cluster.ready_pods("app=web", 6));
    let kept = cluster.k("get configmap kept -o json");

    cluster.kill_control();
    cluster.start();

    assert_eq!(cluster.k("get configmap kept -o json"), kept, "same object, same resourceVersion");
    let after = containers(&cluster.ready_pods("app=web", 6));
    assert_eq!(after, before, "containers were adopted, not restarted");
    assert!(cluster.apply(&kept_with(2)).ok);
    let (old, new) = (revision(&kept), revision(&cluster.k("get configmap kept -o json")));
    assert!(new > old, "revisions go on: {new} after {old}");
}

#[test]
fn a_cluster_stopped_in_order_comes_back_and_leaves_no_process() {
    let mut cluster = Cluster::up(1, 1);
    cluster.k(&format!("apply -f {}", manifest("web.yaml")));
    cluster.ready_pods("app=web", 6);
    cluster.stop();
    assert_eq!(cluster.leftovers(), Vec::<Vec<String>>::new(), "an ordered stop ends every process");
    cluster.start();
    cluster.ready_pods("app=web", 6);
}

fn kept_with(value: u32) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: kept}}\ndata: {{a: '{value}'}}\n")
}

/// Of each pod: uid → (container id, restarts, start of the container).
fn containers(pods: &[Value]) -> BTreeMap<String, [Value; 3]> {
    pods.iter()
        .map(|pod| {
            let container = &pod["status"]["containerStatuses"][0];
            let identity = [
                container["containerID"].clone(),
                container["restartCount"].clone(),
                container["state"]["running"]["startedAt"].clone(),
            ];
            (pod["metadata"]["uid"].as_str().expect("a uid").to_owned(), identity)
        })
        .collect()
}

fn revision(object: &str) -> u64 {
    let object: Value = serde_json::from_str(object).expect("JSON");
    object["metadata"]["resourceVersion"].as_str().expect("a resourceVersion").parse().expect("a number")
}
