//! Scheduling at large on simulated nodes, with real kubectl: preemption, gangs, and the parts started alone.

use e2e::{Background, Cluster, amoeba_binary, eventually};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

/// Each node has room for one such pod.
const BIG: &str = "20";

#[test]
fn pods_find_their_places_among_many_nodes() {
    let cluster = Cluster::up_with(1, 0, &["--fake-nodes", "20"]);
    assert_eq!(cluster.items("nodes").len(), 20);
    workloads_come_to_their_ends(&cluster);
    the_important_drive_others_away(&cluster);
    gangs_start_together_or_not_at_all(&cluster);
    profiles_place_by_their_rules(&cluster);
    // Last: the nodes that it starts end with it, and would take pods for a while yet.
    parts_run_alone(&cluster);
}

fn workloads_come_to_their_ends(cluster: &Cluster) {
    let applied = cluster.apply(
        "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 40
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: any}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: sums}
spec:
  completions: 10
  parallelism: 10
  template:
    metadata: {annotations: {amoeba.dev/run-time: 100ms}}
    spec: {restartPolicy: Never, containers: [{name: sum, image: any}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: wrong}
spec:
  backoffLimit: 0
  template:
    metadata: {annotations: {amoeba.dev/run-time: 100ms, amoeba.dev/exit-code: '3'}}
    spec: {restartPolicy: Never, containers: [{name: sum, image: any}]}
",
    );
    assert!(applied.ok, "{}", applied.err);
    cluster.k("rollout status deployment/web --timeout=60s");
    cluster.k("wait --for=condition=Complete job/sums --timeout=60s");
    cluster.k("wait --for=condition=Failed job/wrong --timeout=60s");
    let code = "{.items[0].status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(cluster.k(&format!("get pods -l job-name=wrong -o jsonpath={code}")), "3");
    cluster.k("delete deployment/web job/sums job/wrong");
    eventually("their pods are gone", || cluster.items("pods").is_empty().then_some(()));
}

fn pod(name: &str, cpu: &str, more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  containers: [{{name: c, image: any, resources: {{requests: {{cpu: '{cpu}'}}}}}}]
{more}---
"
    )
}

fn the_important_drive_others_away(cluster: &Cluster) {
    let low: String = (0..20).map(|number| pod(&format!("low-{number}"), BIG, "")).collect();
    assert!(cluster.apply(&low).ok);
    eventually("all nodes are full", || {
        cluster.items("pods").iter().all(|pod| pod["status"]["phase"] == "Running").then_some(())
    });
    let class = "apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: important}
value: 1000
---
";
    let polite = "apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: polite}
value: 2000
preemptionPolicy: Never
---
";
    assert!(cluster.apply(&(class.to_owned() + polite)).ok);
    assert!(cluster.apply(&pod("polite", BIG, "  priorityClassName: polite\n")).ok);
    let message = "{.status.conditions[?(@.type==\"PodScheduled\")].message}";
    let text = eventually("the polite pod is told why it waits", || {
        let told = cluster.kubectl(["get", "pod", "polite", "-o", &format!("jsonpath={message}")]).out;
        (!told.is_empty()).then_some(told)
    });
    assert_eq!(
        text,
        "0/20 nodes are available: 20 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
    );
    cluster.k("delete pod polite");
    assert!(cluster.apply(&pod("high", BIG, "  priorityClassName: important\n")).ok);
    cluster.k("wait --for=condition=Ready pod/high --timeout=60s");
    let left = cluster.items("pods");
    assert_eq!(left.iter().filter(|pod| name(pod).starts_with("low-")).count(), 19, "one had to go");
    let events = cluster.k("get events -o jsonpath={range.items[*]}{.reason}:{.message}{\"\\n\"}{end}");
    assert!(events.contains("Preempted:Preempted by pod"), "{events}");
    cluster.k("delete pods --all");
    cluster.k("delete priorityclass important polite");
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn gangs_start_together_or_not_at_all(cluster: &Cluster) {
    let gang = |name: &str, size: usize| {
        let group = format!(
            "apiVersion: scheduling.k8s.io/v1beta1
kind: PodGroup
metadata: {{name: {name}}}
spec: {{schedulingPolicy: {{gang: {{minCount: {size}}}}}}}
---
"
        );
        let member = format!("  schedulingGroup: {{podGroupName: {name}}}\n");
        group + &(0..size).map(|number| pod(&format!("{name}-{number}"), BIG, &member)).collect::<String>()
    };
    let applied = cluster.apply(&gang("first", 15));
    assert!(applied.ok, "{}", applied.err);
    eventually("the first gang runs", || (running(cluster, "first-") == 15).then_some(()));
    assert!(cluster.apply(&gang("second", 10)).ok);
    eventually("the second gang is told why it waits", || {
        let told = cluster.k("get pod second-0 -o jsonpath={.status.conditions[*].message}");
        told.starts_with("5 of the 10 pods that PodGroup \"second\" needs at once fit: ").then_some(())
    });
    assert_eq!(running(cluster, "second-"), 0, "a gang never runs in part");
    let condition = "jsonpath={.status.conditions[?(@.type==\"PodGroupInitiallyScheduled\")].status}";
    let said = |group: &str, status: &str| {
        let told = cluster.kubectl(["get", "podgroup", group, "-o", condition]).out;
        (told == status).then_some(())
    };
    eventually("the first group's condition", || said("first", "True"));
    eventually("the second group's condition", || said("second", "False"));
    cluster.k("delete pods -l app!=none --field-selector=status.phase=Running --wait=false");
    eventually("the second gang runs", || (running(cluster, "second-") == 10).then_some(()));
    cluster.k("delete pods --all");
}

fn running(cluster: &Cluster, prefix: &str) -> usize {
    let runs = |pod: &&Value| name(pod).starts_with(prefix) && pod["status"]["phase"] == "Running";
    cluster.items("pods").iter().filter(runs).count()
}

/// A scheduler of its own for pods that name it, and more simulated nodes: with nothing but a kubeconfig.
fn parts_run_alone(cluster: &Cluster) {
    let start = |line: &str| {
        let mut command = Command::new(amoeba_binary());
        command.args(line.split(' ')).arg("--kubeconfig").arg(cluster.kubeconfig()).stdin(Stdio::null());
        Background::new(command.spawn().expect("it starts"))
    };
    assert!(cluster.apply(&pod("mine", "1", "  schedulerName: mine\n")).ok);
    let _nodes = start("node --fake 2 --name extra --label disk=fast");
    cluster.k("wait --for=condition=Ready node/extra-1 node/extra-2 --timeout=60s");
    assert!(cluster.k("get pod mine -o jsonpath={.spec.nodeName}").is_empty(), "nobody else takes it");
    let _scheduler = start("scheduler --scheduler-name mine");
    cluster.k("wait --for=condition=Ready pod/mine --timeout=60s");
    assert!(cluster.apply(&pod("picky", "1", "  nodeSelector: {disk: fast}\n")).ok);
    cluster.k("wait --for=condition=Ready pod/picky --timeout=60s");
    assert!(cluster.k("get pod picky -o jsonpath={.spec.nodeName}").starts_with("extra-"));
}

/// One profile fills nodes, the other spreads over them.
const PROFILES: &str = "apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {resourceName: profiles, leaseDuration: 3s, renewDeadline: 2s, retryPeriod: 300ms}
profiles:
- schedulerName: packer
  plugins:
    score:
      disabled: [{name: NodeResourcesBalancedAllocation}]
      enabled: [{name: NodeResourcesFit, weight: 5}]
  pluginConfig:
  - name: NodeResourcesFit
    args:
      scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}]}
- schedulerName: spreader
";

fn profiles_place_by_their_rules(cluster: &Cluster) {
    let file = cluster.path().join("scheduler.yaml");
    std::fs::write(&file, PROFILES.replace("MostAllocated", "FullestFirst")).expect("a writable directory");
    let start = || {
        let mut command = Command::new(amoeba_binary());
        command.args(["scheduler", "--config"]).arg(&file).arg("--kubeconfig").arg(cluster.kubeconfig());
        command.stdin(Stdio::null());
        command
    };
    let refused = start().output().expect("it ends");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    let field = "profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: \"FullestFirst\"";
    assert!(!refused.status.success() && told.contains(field), "{told}");

    std::fs::write(&file, PROFILES).expect("a writable directory");
    let _scheduler = Background::new(start().spawn().expect("it starts"));
    let pods = |profile: &str| -> String {
        let line = format!("  schedulerName: {profile}\n");
        (0..4).map(|number| pod(&format!("{profile}-{number}"), "1", &line)).collect()
    };
    assert!(cluster.apply(&(pods("packer") + &pods("spreader"))).ok);
    let nodes = |profile: &str| {
        let names = (0..4).map(|number| format!(" pod/{profile}-{number}")).collect::<String>();
        cluster.k(&format!("wait --for=condition=Ready{names} --timeout=60s"));
        let all = cluster.items("pods");
        let of = all.iter().filter(|pod| name(pod).starts_with(profile));
        of.map(|pod| pod["spec"]["nodeName"].to_string()).collect::<BTreeSet<_>>()
    };
    assert_eq!((nodes("packer").len(), nodes("spreader").len()), (1, 4));
}
