//! Each part of a cluster as a process of its own, with nothing but a kubeconfig, and each of them replaceable.

use e2e::{Background, Cluster, amoeba_binary, eventually};
use std::process::{Command, Stdio};

const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: any}]}
";

fn start(cluster: &Cluster, line: &str) -> Background {
    let mut command = Command::new(amoeba_binary());
    command.args(line.split(' ')).env("KUBECONFIG", cluster.kubeconfig()).stdin(Stdio::null());
    Background::new(command.spawn().expect("it starts"))
}

/// An API server that runs nothing else, on the directory of a cluster that had everything.
fn server_alone(cluster: &Cluster) -> Background {
    let (member, pki) = (cluster.path().join("members/m1"), cluster.path().join("pki"));
    let mut command = Command::new(amoeba_binary());
    command.args(["server", "--no-controllers", "--no-scheduler", "--name", "m1", "--data-dir"]);
    command.arg(member).arg("--pki-dir").arg(pki);
    command.args(["--listen", &format!("127.0.0.1:{}", cluster.port())]).stdin(Stdio::null());
    Background::new(command.spawn().expect("it starts"))
}

#[test]
fn each_part_runs_alone_and_is_missed_when_it_is_gone() {
    let mut cluster = Cluster::up(1, 0);
    cluster.stop();
    let _server = server_alone(&cluster);
    eventually("the API is served", || cluster.kubectl(["get", "--raw", "/readyz"]).ok.then_some(()));
    assert!(cluster.apply(WEB).ok);
    let times = "--leader-elect-lease-duration 1500ms --leader-elect-renew-deadline 1s --leader-elect-retry-period 300ms";

    let controllers = start(&cluster, &format!("controllers {times}"));
    eventually("the controllers make the pods", || {
        (cluster.items("pods -l app=web").len() == 2).then_some(())
    });
    let nodes = "get pods -l app=web -o jsonpath={.items[*].spec.nodeName}";
    assert_eq!(cluster.k(nodes), "", "no scheduler has run since the pods are there");

    let _nodes = start(&cluster, "node --fake 2 --name part");
    let scheduler = start(&cluster, &format!("scheduler {times}"));
    cluster.ready_pods("app=web", 2);
    drop(scheduler);
    drop(controllers);

    let applied = "get deployment web -o jsonpath={.status.observedGeneration}";
    let seen = cluster.k(applied);
    cluster.k("scale deployment web --replicas=3");
    let _scheduler = start(&cluster, &format!("scheduler {times}"));
    assert_eq!(cluster.k(applied), seen, "without controllers nobody answers");
    let _controllers = start(&cluster, &format!("controllers {times}"));
    cluster.ready_pods("app=web", 3);
}
