//! What operators do with a cluster, with unmodified kubectl on real processes: volumes that follow their first pod,
//! drains that respect budgets, autoscaling by what pods use.

use e2e::{Cluster, Ran, eventually, image};

#[test]
fn volumes_budgets_and_autoscaling_work_together() {
    let cluster = Cluster::up(1, 2);
    if nix::unistd::geteuid().is_root() {
        image::load(&cluster, "box:1", "sleep 1000000");
        a_claim_waits_for_its_first_pod_and_the_second_follows_it(&cluster);
    } else {
        eprintln!("NOT TESTED: volumes need containers from images, and those root");
    }
    a_drain_respects_budgets(&cluster);
    busy_pods_are_joined_by_others(&cluster);
}

fn applied(ran: &Ran) {
    assert!(ran.ok, "{}", ran.err);
}

fn with_claim(name: &str, command: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: box:1
    command: [/bin/sh, -c, '{command}']
    volumeMounts: [{{name: data, mountPath: /data}}]
    readinessProbe: {{exec: {{command: [cat, /data/written]}}, periodSeconds: 1}}
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]
---
"
    )
}

fn a_claim_waits_for_its_first_pod_and_the_second_follows_it(cluster: &Cluster) {
    applied(&cluster.apply(&with_claim("writer", "echo by-the-writer > /data/written; sleep 1000000")));
    let told = |message: &str| {
        let path = "jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}";
        let text = cluster.kubectl(["get", "pod", "writer", "-o", path]).out;
        text.contains(message).then_some(())
    };
    eventually("its user is told that the claim is missing", || {
        told("0/2 nodes are available: persistentvolumeclaim \"data\" not found.")
    });
    let volumes = cluster.path().join("volumes");
    applied(&cluster.apply(&format!(
        "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: local}}
provisioner: amoeba.dev/local-path
reclaimPolicy: Retain
volumeBindingMode: WaitForFirstConsumer
parameters: {{path: {}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: local
  resources: {{requests: {{storage: 1Mi}}}}
",
        volumes.display()
    )));
    cluster.ready_pods("app=writer", 1);
    let node = cluster.k("get pod writer -o jsonpath={.spec.nodeName}");
    let claim = "get pvc data -o jsonpath={.status.phase}/{.metadata.annotations.volume\\.kubernetes\\.io/selected-node}";
    assert_eq!(cluster.k(claim), format!("Bound/{node}"), "the scheduler chose the node, and said so");
    cluster.k("delete pod writer");

    // The volume is a directory of that node: there is no other place for the next pod.
    cluster.k(&format!("cordon {node}"));
    applied(&cluster.apply(&with_claim("reader", "cat /data/written; sleep 1000000")));
    eventually("the reader waits for that node", || {
        let path = "jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}";
        let text = cluster.kubectl(["get", "pod", "reader", "-o", path]).out;
        text.contains("1 node(s) didn't match PersistentVolume's node affinity").then_some(())
    });
    cluster.k(&format!("uncordon {node}"));
    cluster.ready_pods("app=reader", 1);
    assert_eq!(cluster.k("get pod reader -o jsonpath={.spec.nodeName}"), node);
    eventually("it reads what the writer wrote", || {
        (cluster.k("logs reader") == "by-the-writer\n").then_some(())
    });
    cluster.k("delete pod reader");
    cluster.k("delete pvc data");
}

fn a_drain_respects_budgets(cluster: &Cluster) {
    applied(&cluster.apply(
        "apiVersion: apps/v1
kind: Deployment
metadata: {name: kept}
spec:
  replicas: 2
  selector: {matchLabels: {app: kept}}
  template:
    metadata: {labels: {app: kept}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {topologyKey: kubernetes.io/hostname, maxSkew: 1, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: kept}}}
      containers: [{name: c, image: any, command: [sleep, '1000000']}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: kept}
spec:
  minAvailable: 2
  selector: {matchLabels: {app: kept}}
",
    ));
    let pods = cluster.ready_pods("app=kept", 2);
    let node = pods[0]["spec"]["nodeName"].as_str().expect("bound").to_owned();
    eventually("the budget is counted", || {
        let healthy =
            cluster.k("get pdb kept -o jsonpath={.status.currentHealthy}/{.status.disruptionsAllowed}");
        (healthy == "2/0").then_some(())
    });
    let refused = cluster.kubectl(["drain", &node, "--ignore-daemonsets", "--force", "--timeout=7s"]);
    assert!(!refused.ok, "{}", refused.out);
    assert!(
        refused.err.contains("Cannot evict pod as it would violate the pod's disruption budget."),
        "{}",
        refused.err
    );
    assert_eq!(cluster.ready_pods("app=kept", 2).len(), 2, "nobody left");

    cluster.k("patch pdb kept --type=merge -p {\"spec\":{\"minAvailable\":1}}");
    cluster.k(&format!("drain {node} --ignore-daemonsets --force --timeout=80s"));
    let elsewhere = cluster.ready_pods("app=kept", 2);
    assert!(elsewhere.iter().all(|pod| pod["spec"]["nodeName"] != node.as_str()), "the node is empty");
    cluster.k(&format!("uncordon {node}"));
    cluster.k("delete deployment/kept pdb/kept");
}

/// By the resource metrics that the nodes serve.
fn busy_pods_are_joined_by_others(cluster: &Cluster) {
    applied(&cluster.apply(
        "apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  replicas: 1
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: c, image: any, command: [/bin/sh, -c, 'while :; do :; done'], resources: {requests: {cpu: 20m}}}
",
    ));
    cluster.ready_pods("app=busy", 1);
    cluster.k("autoscale deployment busy --cpu=50% --min=1 --max=2");
    eventually("a second pod shares the work", || {
        (cluster.k("get deployment busy -o jsonpath={.spec.replicas}") == "2").then_some(())
    });
    let conditions =
        cluster.k("get hpa busy -o jsonpath={range.status.conditions[*]}{.type}={.status},{end}");
    assert!(
        conditions.contains("AbleToScale=True") && conditions.contains("ScalingActive=True"),
        "{conditions}"
    );
    let events =
        cluster.k("get events --field-selector reason=SuccessfulRescale -o jsonpath={.items[*].message}");
    assert!(events.contains("New size: 2; reason: cpu resource utilization"), "{events}");
    cluster.k("delete hpa/busy deployment/busy");
}
