//! What a user asks of a living cluster: why a pod waits, what a change led to, and where a claim's volume is.

use e2e::{Cluster, eventually};
use serde_json::Value;

const OBJECTS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: i, command: [sleep, '3600']}]}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local-path}
provisioner: amoeba.dev/local-path
volumeBindingMode: WaitForFirstConsumer
parameters: {path: PATH}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {storageClassName: local-path, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  containers: [{name: c, image: i, command: [sleep, '3600']}]
";

#[test]
fn a_cluster_says_why_and_what_for() {
    let cluster = Cluster::up(1, 1);
    let node = cluster.k("get nodes -o jsonpath={.items[0].metadata.name}");
    let file = cluster.path().join("why.yaml");
    let volumes = cluster.path().join("volumes").display().to_string();
    let (web, rest) = OBJECTS.split_once("---").expect("several documents");
    std::fs::write(&file, web).expect("write the manifest");
    cluster.k(&format!("apply -f {}", file.display()));
    cluster.ready_pods("app=web", 1);
    traced(&cluster);
    cluster.k(&format!("cordon {node}"));
    std::fs::write(&file, rest.replace("PATH", &volumes)).expect("write the manifest");
    cluster.k(&format!("apply -f {}", file.display()));
    explained(&cluster, &node);
    claimed(&cluster, &node);
}

/// From the apply to the running pod every step names its cause.
fn traced(cluster: &Cluster) {
    let trace: Value = serde_json::from_str(&cluster.a("trace deployment/web -o json")).expect("JSON");
    let steps = trace["steps"].as_array().expect("steps");
    let step = |object: &str, what: &str| {
        let is_it = |step: &&Value| {
            step["object"].as_str().is_some_and(|name| name.starts_with(object))
                && step["what"].as_str().is_some_and(|text| text.contains(what))
        };
        steps.iter().find(is_it).unwrap_or_else(|| panic!("no {object} {what} in {trace:#}"))
    };
    let way = [
        step("deployment/web", "created"),
        step("replicaset/web-", "created"),
        step("pod/web-", "created"),
        step("pod/web-", "bound to"),
        step("pod/web-", "running"),
    ];
    let depths: Vec<u64> = way.iter().filter_map(|step| step["depth"].as_u64()).collect();
    assert!(depths.windows(2).all(|pair| pair[0] < pair[1]), "{trace:#}");
    assert!(way.iter().all(|step| step["causeIsGuess"] == false), "{trace:#}");
}

/// What would help is said, and helps.
fn explained(cluster: &Cluster, node: &str) {
    eventually("the scheduler has spoken", || {
        let answer = cluster.a("why pod/late");
        answer.contains("written at revision").then_some(answer)
    });
    let answer = cluster.a("why pod/late");
    for words in ["late waits for a node: 0/1", "NodeUnschedulable", &format!("kubectl uncordon {node}")] {
        assert!(answer.contains(words), "no {words:?} in\n{answer}");
    }
    cluster.k(&format!("uncordon {node}"));
    cluster.k("wait --for=condition=Ready pod/late --timeout=60s");
    let answer = cluster.a("why pod/late");
    assert!(answer.contains(&format!("runs on {node} and is ready")), "{answer}");
    assert!(answer.contains(&format!("bound to {node} at revision")), "{answer}");
}

/// A claim waits for its first pod and gets a directory of its node.
fn claimed(cluster: &Cluster, node: &str) {
    let answer = cluster.a("why pvc/data");
    assert!(answer.contains("waits for the first pod that uses it, and no pod does"), "{answer}");
    let chosen = format!("volume.kubernetes.io/selected-node={node}");
    cluster.k(&format!("annotate pvc data {chosen}"));
    cluster.k("wait --for=jsonpath={.status.phase}=Bound pvc/data --timeout=60s");
    let volume = cluster.k("get pvc data -o jsonpath={.spec.volumeName}");
    let of_volume = |path: &str| cluster.k(&format!("get pv {volume} -o jsonpath={path}"));
    assert_eq!(of_volume("{.status.phase}/{.spec.claimRef.name}"), "Bound/data");
    let affinity = "{.spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].values[0]}";
    assert_eq!(of_volume(affinity), node);
}
