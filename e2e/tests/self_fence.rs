//! A pod that fences itself fails over from a node that nobody hears of within seconds, and never runs twice; another
//! one waits for its node, as in Kubernetes.

use std::fs;

use e2e::{Cluster, eventually, is_ready, pause};
use serde_json::Value;
use std::time::Duration;

/// One identity, whose pod writes its uid down all the time.
fn stateful_set(name: &str, annotations: &str, grace: u32, file: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: {name}}}\nspec:\n  serviceName: {name}\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    \
         metadata: {{labels: {{app: {name}}}, annotations: {{{annotations}}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: {grace}\n      automountServiceAccountToken: false\n      containers:\n      \
         - name: main\n        image: plain\n        imagePullPolicy: Never\n        \
         env: [{{name: UID_OF_POD, valueFrom: {{fieldRef: {{fieldPath: metadata.uid}}}}}}]\n        \
         command: [sh, -c, 'while :; do echo $UID_OF_POD >> {file}; sleep 0.02; done']\n"
    )
}

fn field<'a>(pod: &'a Value, path: &str) -> &'a str {
    pod.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn lines(file: &str) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn an_identity_fails_over_in_seconds_and_never_runs_twice() {
    const SIGSTOP: i32 = 19;
    const SIGCONT: i32 = 18;
    let cluster = Cluster::up(1, 2);
    let [fenced, plain] = ["fenced", "plain"].map(|name| cluster.path().join(name).display().to_string());
    assert!(cluster.apply(&stateful_set("db", "amoeba.dev/self-fence: 'true'", 0, &fenced)).ok);
    let first = cluster.ready_pods("app=db", 1).remove(0);
    let node = field(&first, "/spec/nodeName").to_owned();
    // On the same node, which will be silent.
    // A grace of zero would take its object away at once, as in Kubernetes.
    let pinned = stateful_set("old", "", 30, &plain)
        .replace("    spec:\n      ", "    spec:\n      nodeName: NODE\n      ");
    assert!(cluster.apply(&pinned.replace("NODE", &node)).ok);
    let left = cluster.ready_pods("app=old", 1).remove(0);

    // The agent hangs; what it supervises doesn't.
    cluster.signal(&node, SIGSTOP);
    let second = eventually("the identity runs elsewhere", || {
        let pods = cluster.items("pods -l app=db");
        pods.into_iter().find(|pod| is_ready(pod) && field(pod, "/spec/nodeName") != node)
    });
    assert_ne!(field(&second, "/metadata/uid"), field(&first, "/metadata/uid"));
    let before = lines(&plain).len();
    pause(Duration::from_millis(300));
    assert!(lines(&plain).len() > before, "who didn't ask for it runs on");
    let still = cluster.items("pods -l app=old").remove(0);
    assert_eq!(field(&still, "/metadata/uid"), field(&left, "/metadata/uid"), "and isn't replaced");

    cluster.signal(&node, SIGCONT);
    eventually("the node is back", || {
        cluster.items(&format!("node {node}")).iter().all(is_ready).then_some(())
    });
    pause(Duration::from_millis(500));
    let mut runs = lines(&fenced);
    runs.dedup();
    let (times, mut each) = (runs.len(), runs.clone());
    each.sort();
    each.dedup();
    assert_eq!(each.len(), times, "one ended before the next began: {runs:?}");
    assert!(times >= 2, "{runs:?}");
}
