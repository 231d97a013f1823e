//! Three members and three nodes on three machines of their own, which are network namespaces on one switch:
//! pods reach each other by address, by Service and by name; a machine that is cut off is done without and comes
//! back; with all of the control plane gone what is routed stays routed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::store::namespace::{Switch, address};
use e2e::{Cluster, Ran, amoeba_binary, eventually};
use serde_json::Value;

const WEB: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: host
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        ports: [{name: http, containerPort: 8080, hostPort: 8081}]
        command: [sh, -c, 'd=$(mktemp -d) && echo on $NODE > $d/index.html && exec busybox httpd -f -p 8080 -h $d']
        readinessProbe: {httpGet: {path: /index.html, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http, nodePort: 30080}]}
"#;

const DENY: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}
"#;

/// A pod that succeeds once it has heard every pod of the DaemonSet, under its address, and by the Service's name.
fn client(node: &str, addresses: &[String]) -> String {
    let each: String = addresses
        .iter()
        .map(|ip| format!("          until curl -sf -m 2 http://{ip}:8080/; do sleep 0.2; done\n"))
        .collect();
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: client-{node}, labels: {{app: client}}}}
spec:
  nodeName: {node}
  restartPolicy: Never
  containers:
  - name: client
    image: host
    command:
    - sh
    - -ec
    - |
{each}          until curl -sf -m 2 http://web/; do sleep 0.2; done
          until curl -sf -m 2 http://web.default.svc.cluster.local/; do sleep 0.2; done
          until curl -sk -m 2 https://kubernetes.default/version; do sleep 0.2; done
"#
    )
    .replace("          ", "      ")
}

struct Hosts {
    switch: Switch,
    dir: tempfile::TempDir,
    running: Vec<Child>,
}

impl Hosts {
    /// The switch with three machines, and the certificates that `amoeba up` makes for three nodes.
    fn new() -> Self {
        let mut cluster = Cluster::up(1, 3);
        cluster.stop();
        let dir = tempfile::Builder::new().prefix("amoeba-e2e-hosts-").tempdir().expect("a directory");
        let copied = Command::new("cp").arg("-r").arg(cluster.path().join("pki")).arg(dir.path()).status();
        assert!(copied.expect("cp runs").success());
        let local = format!("https://127.0.0.1:{}", cluster.port());
        for (from, to, host) in [
            ("admin.kubeconfig", "admin", 0),
            ("nodes/n1/kubeconfig", "n1", 0),
            ("nodes/n2/kubeconfig", "n2", 1),
            ("nodes/n3/kubeconfig", "n3", 2),
        ] {
            let text = std::fs::read_to_string(cluster.path().join(from)).expect("a kubeconfig");
            assert!(text.contains(&local), "{text}");
            let text = text.replace(&local, &format!("https://{}:6443", address(host)));
            std::fs::write(dir.path().join(to), text).expect("written");
        }
        Self { switch: Switch::new(3).expect("namespaces (the test needs root)"), dir, running: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&mut self, host: usize, name: &str, flags: &str) {
        let log = std::fs::File::create(self.path(&format!("{name}.log"))).expect("a log");
        let mut command = Command::new(amoeba_binary());
        command.args(flags.split(' ')).arg("--data-dir").arg(self.path(&format!("data-{name}")));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir(self.dir.path());
        let child = self.switch.keeper.spawn(command, Some(self.switch.host(host))).expect("started");
        self.running.push(child);
    }

    fn start_member(&mut self, host: usize) {
        let peers: String = (0..3).map(|n| format!(" --peer {}={}:7001", n + 1, address(n))).collect();
        let own = address(host);
        let flags = format!(
            "server --name m{0} --member-id {0}{peers} --listen {own}:6443 --pki-dir pki --tick 50ms \
             --cluster-cidr 10.244.0.0/16 --leader-elect-lease-duration 1500ms --leader-elect-renew-deadline 1s \
             --leader-elect-retry-period 300ms --node-monitor-grace-period 2s --default-toleration-seconds 3600",
            host + 1
        );
        self.start(host, &format!("m{}", host + 1), &flags);
    }

    fn start_node(&mut self, host: usize) {
        let (name, own) = (format!("n{}", host + 1), address(host));
        let flags = format!(
            // A machine that is short of disk needn't fail.
            "node --name {name} --kubeconfig {name} --address {own} --listen {own}:10250 --pod-cidr auto \
             --eviction-hard memory.available<1Mi --lease-renew-interval 400ms --lease-duration 2s --stop-pods-on-shutdown"
        );
        self.start(host, &name, &flags);
    }

    /// Runs a command on a machine, or beside them.
    fn run(&self, program: impl AsRef<Path>, line: &str, host: Option<usize>) -> Ran {
        let mut command = Command::new(program.as_ref());
        command.args(line.split(' ')).stdin(Stdio::null()).current_dir(self.dir.path());
        command.env("KUBECONFIG", self.path("admin")).env("HOME", self.dir.path());
        self.switch.keeper.output(command, host.map(|host| self.switch.host(host))).expect("run").into()
    }

    fn kubectl(&self, line: &str) -> Ran {
        self.run(&e2e::kubectls()[0], line, None)
    }

    fn k(&self, line: &str) -> String {
        let ran = self.kubectl(line);
        assert!(ran.ok, "kubectl {line}\n{}{}", ran.out, ran.err);
        ran.out
    }

    fn apply(&self, yaml: &str) {
        std::fs::write(self.path("apply.yaml"), yaml).expect("written");
        self.k("apply -f apply.yaml");
    }

    /// What a machine hears at a URL.
    fn fetch(&self, host: Option<usize>, url: &str) -> Option<String> {
        let ran = self.run("curl", &format!("-sf -m 2 {url}"), host);
        ran.ok.then_some(ran.out)
    }

    fn web(&self) -> Vec<(String, String)> {
        let list: Value = serde_json::from_str(&self.k("get pods -l app=web -o json")).expect("JSON");
        let text = |pod: &Value, place: &str| {
            pod.pointer(place).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let pods = list["items"].as_array().expect("a list").iter();
        let mut pods: Vec<_> =
            pods.map(|pod| (text(pod, "/spec/nodeName"), text(pod, "/status/podIP"))).collect();
        pods.sort();
        pods
    }

    /// A pod on each of these nodes reaches all pods, and names.
    fn meet(&self, nodes: &[&str]) {
        let addresses: Vec<String> = self.web().into_iter().map(|(_, ip)| ip).collect();
        for node in nodes {
            self.apply(&client(node, &addresses));
        }
        for node in nodes {
            self.k(&format!(
                "wait --for=jsonpath={{.status.phase}}=Succeeded pod/client-{node} --timeout=60s"
            ));
        }
        self.k("delete pods -l app=client --wait=false");
    }

    /// Nothing comes in or goes out of a machine, but what it says to itself and its pods.
    fn cut(&self, host: usize) {
        let rules = "add table ip cut; add chain ip cut in { type filter hook prerouting priority -400 ; }; \
                     add rule ip cut in iifname eth0 drop; \
                     add chain ip cut out { type filter hook postrouting priority 400 ; }; add rule ip cut out oifname eth0 drop";
        self.nft(host, rules);
    }

    fn nft(&self, host: usize, rules: &str) {
        let mut command = Command::new("nft");
        command.arg(rules);
        let ran: Ran = self.switch.keeper.output(command, Some(self.switch.host(host))).expect("nft").into();
        assert!(ran.ok, "{}", ran.err);
    }

    fn wait_for_ready(&self, node: &str, status: &str) {
        self.k(&format!("wait --for=condition=Ready={status} node/{node} --timeout=60s"));
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for child in &mut self.running {
            child.kill().ok();
            child.wait().ok();
        }
        e2e::end_all_on(self.dir.path());
        if std::thread::panicking() {
            for name in ["m1", "m2", "m3", "n1", "n2", "n3"] {
                let text = std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(25).collect();
                eprintln!("--- {name}");
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

#[test]
fn pods_of_several_machines_reach_each_other_through_cuts_and_without_a_control_plane() {
    let mut hosts = Hosts::new();
    (0..3).for_each(|host| hosts.start_member(host));
    eventually("the members serve", || hosts.kubectl("get --raw /readyz").ok.then_some(()));
    (0..3).for_each(|host| hosts.start_node(host));
    let nodes = ["n1", "n2", "n3"];
    for node in nodes {
        eventually("the node registers", || hosts.kubectl(&format!("get node {node}")).ok.then_some(()));
        hosts.wait_for_ready(node, "True");
    }
    let ranges = hosts.k("get nodes -o jsonpath={.items[*].spec.podCIDRs[0]}");
    let mut ranges: Vec<&str> = ranges.split(' ').collect();
    ranges.sort_unstable();
    assert_eq!(
        ranges,
        ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"],
        "each node has a range of its own"
    );

    hosts.apply(WEB);
    hosts.k("rollout status daemonset/web --timeout=90s");
    hosts.meet(&nodes);
    let dns = hosts.k("get endpointslices -n kube-system kube-dns -o jsonpath={.endpoints[*].nodeName}");
    assert_eq!(dns, "n1 n2 n3");
    // From beside the machines every node's port leads to a pod, and each machine's hostPort to its own.
    for (host, node) in nodes.iter().enumerate() {
        let url = |port: u16| format!("http://{}:{port}/", address(host));
        assert!(eventually("the node port", || hosts.fetch(None, &url(30080))).starts_with("on n"));
        assert_eq!(eventually("the host port", || hosts.fetch(None, &url(8081))), format!("on {node}\n"));
    }

    // Who isn't a friend is kept out, on whatever machine; pods of the machine itself stay probed and ready.
    hosts.apply(DENY);
    let (_, far) = hosts.web()[1].clone();
    eventually("strangers are kept out", || {
        hosts.fetch(Some(0), &format!("http://{far}:8080/")).is_none().then_some(())
    });
    hosts.meet(&nodes[..2]);
    hosts.k("delete networkpolicy web");
    eventually("strangers are let in", || hosts.fetch(Some(0), &format!("http://{far}:8080/")));

    // A machine that is cut off is done without.
    let service = format!("http://{}/", hosts.k("get service web -o jsonpath={.spec.clusterIP}"));
    hosts.cut(2);
    hosts.wait_for_ready("n3", "Unknown");
    let third = hosts.web()[2].1.clone();
    eventually("the Service does without the third", || {
        let ready = hosts.k("get endpointslices -l kubernetes.io/service-name=web -o jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].nodeName}");
        (!ready.contains("n3")).then_some(())
    });
    eventually("the first machine knows", || {
        (0..20).all(|_| hosts.fetch(Some(0), &service).is_some()).then_some(())
    });
    assert!(hosts.fetch(Some(0), &format!("http://{third}:8080/")).is_none(), "it is cut off");
    hosts.nft(2, "delete table ip cut");
    hosts.wait_for_ready("n3", "True");
    eventually("it is reached again", || hosts.fetch(Some(0), &format!("http://{third}:8080/")));

    // Without any member everything that is there goes on.
    for member in hosts.running.drain(..3).collect::<Vec<_>>().iter_mut() {
        member.kill().expect("killed");
        member.wait().expect("ended");
    }
    for host in 0..3 {
        let heard: std::collections::BTreeSet<String> =
            (0..40).filter_map(|_| hosts.fetch(Some(host), &service)).collect();
        assert!(heard.len() >= 2, "machine {host}: {heard:?}");
        let ran = hosts.run("busybox", "nslookup web.default.svc.cluster.local 10.96.0.10", Some(host));
        assert!(
            ran.out.contains(service.trim_start_matches("http://").trim_end_matches('/')),
            "{}{}",
            ran.out,
            ran.err
        );
    }
}
