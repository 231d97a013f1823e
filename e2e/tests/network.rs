//! Pods with addresses of their own, Services and names, on real processes. The whole cluster is on a machine
//! of the test's own, which is a network namespace.

use e2e::{Cluster, eventually};
use nix::sched::{CloneFlags, unshare};

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: host
        env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
        command: [sh, -c, 'd=$(mktemp -d) && echo pod $IP > $d/index.html && exec busybox httpd -f -p 8080 -h $d']
        readinessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: each}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
"#;

/// What a client sees from within a pod.
fn client(name: &str) -> String {
    format!(
        r#"
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  backoffLimit: 20
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: client
        image: host
        command:
        - sh
        - -ec
        - |
          # Another agent that takes over needs a moment.
          until curl -sf -m 5 http://web/index.html; do sleep 0.2; done
          echo "each $(getent ahostsv4 each | grep -c STREAM)"
          echo "web $(curl -sf -m 5 http://web/index.html)"
          echo "full $(curl -sf -m 5 http://web.default.svc.cluster.local/index.html)"
          echo "api $(curl -sk -m 5 https://kubernetes.default/version | grep -c amoeba)"
          echo "told $(curl -sf -m 5 $WEB_SERVICE_HOST:$WEB_SERVICE_PORT_HTTP/index.html)"
          echo "linked $(curl -sk -m 5 https://${{KUBERNETES_PORT#tcp://}}/version | grep -c amoeba)"
"#
    )
}

fn run_client(cluster: &Cluster, name: &str) -> String {
    assert!(cluster.apply(&client(name)).ok);
    cluster.k(&format!("wait --for=condition=complete job/{name} --timeout=120s"));
    let succeeded = "--field-selector=status.phase=Succeeded";
    let pod = cluster.k(&format!("get pods -l job-name={name} -o name {succeeded}"));
    cluster.k(&format!("logs {}", pod.trim()))
}

fn fetch(url: &str) -> Option<String> {
    let output =
        std::process::Command::new("curl").args(["-sf", "-m", "5", url]).output().expect("curl runs");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The pods' network namespaces that files hold.
fn namespaces() -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    mounts.lines().filter(|line| line.contains(" /run/amoeba/network/")).map(str::to_owned).collect()
}

#[test]
fn pods_have_addresses_services_lead_to_them_and_names_to_services() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own (the test needs root)");
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.expect("iproute2").success());
    let held = namespaces();
    let mut cluster = Cluster::up_with(1, 2, &["--pod-network", "bridge"]);
    assert!(cluster.apply(WEB).ok);
    cluster.k("rollout status deployment/web --timeout=120s");

    let addresses = cluster.k("get pods -l app=web -o jsonpath={.items[*].status.podIP}");
    let mut distinct: Vec<&str> = addresses.split(' ').collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 3, "each pod has an address of its own: {addresses}");
    assert!(distinct.iter().all(|ip| ip.starts_with("10.244.")), "{addresses}");

    let ip = cluster.k("get service web -o jsonpath={.spec.clusterIP}");
    let service = format!("http://{ip}/index.html");
    eventually("the Service leads somewhere", || fetch(&service));
    let answers: std::collections::BTreeSet<String> = (0..60).filter_map(|_| fetch(&service)).collect();
    assert_eq!(answers.len(), 3, "all pods are led to: {answers:?}");
    assert!(fetch("http://10.244.1.1:30080/index.html").is_some(), "the node's port leads to a pod");

    let seen = run_client(&cluster, "client");
    assert!(seen.contains("each 3\n"), "{seen}");
    for line in ["web pod 10.244.", "full pod 10.244.", "api 1", "told pod 10.244.", "linked 1"] {
        assert!(seen.contains(line), "{line}: {seen}");
    }

    // Whichever agent routed the Services: afterwards the other one does.
    for node in ["n1", "n2"] {
        cluster.a(&format!("chaos kill {node}"));
        cluster.k(&format!("wait --for=condition=Ready=Unknown node/{node} --timeout=60s"));
        let seen = run_client(&cluster, &format!("without-{node}"));
        assert!(seen.contains("web pod 10.244."), "{seen}");
        cluster.a(&format!("chaos resume {node}"));
        cluster.k(&format!("wait --for=condition=Ready node/{node} --timeout=60s"));
        cluster.k("rollout status deployment/web --timeout=120s");
    }
    cluster.k("delete deployments,jobs --all --timeout=60s");
    eventually("nothing of pods that are gone is held", || (namespaces() == held).then_some(()));
    assert!(cluster.apply(WEB).ok);
    cluster.k("rollout status deployment/web --timeout=120s");
    cluster.stop();
    assert_eq!(namespaces(), held, "a cluster that was stopped holds nothing");
}
