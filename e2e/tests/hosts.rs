//! Three members and three nodes on three machines of their own, which are network namespaces on one switch:
//! pods reach each other by address, by Service and by name; a machine that is cut off is done without and comes
//! back; with all of the control plane gone what is routed stays routed.

use std::collections::BTreeSet;

use e2e::eventually;
use e2e::machines::{Flags, Machines};
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

/// Clocks as fast as those of `amoeba up`.
const FLAGS: Flags = Flags {
    members: "--tick 50ms --cluster-cidr 10.244.0.0/16 --leader-elect-lease-duration 1500ms \
              --leader-elect-renew-deadline 1s --leader-elect-retry-period 300ms --node-monitor-grace-period 2s \
              --default-toleration-seconds 3600",
    nodes: "--pod-cidr auto --lease-renew-interval 400ms --lease-duration 2s --stop-pods-on-shutdown",
};

/// Three machines on a switch, each with a member and a node.
struct Hosts(Machines);

impl Hosts {
    fn new() -> Self {
        Self(Machines::on_a_switch(3, FLAGS))
    }

    /// Each joins by the member beside it.
    fn start_node(&mut self, host: usize) {
        let told = self.0.joining(host, "");
        let joining: Vec<&str> = told.iter().map(String::as_str).collect();
        self.0.start_node(host, &format!("n{host}"), &joining);
    }

    fn k(&self, line: &str) -> String {
        self.0.k(1, line)
    }

    fn apply(&self, yaml: &str) {
        self.0.apply(1, yaml);
    }

    /// What a machine hears at a URL.
    fn fetch(&self, host: Option<usize>, url: &str) -> Option<String> {
        let ran = self.0.run_on(host, "curl", &["-sf", "-m", "2", url]);
        ran.ok.then_some(ran.out)
    }

    fn web(&self) -> Vec<(String, String)> {
        let list = self.0.object(1, "pods -l app=web").expect("a list");
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
        let ran = self.0.run_on(Some(host), "nft", &[rules]);
        assert!(ran.ok, "{}", ran.err);
    }

    fn wait_for_ready(&self, node: &str, status: &str) {
        self.k(&format!("wait --for=condition=Ready={status} node/{node} --timeout=60s"));
    }
}

#[test]
fn pods_of_several_machines_reach_each_other_through_cuts_and_without_a_control_plane() {
    let mut hosts = Hosts::new();
    (1..=3).for_each(|host| hosts.start_node(host));
    let nodes = ["n1", "n2", "n3"];
    for node in nodes {
        eventually("the node registers", || hosts.0.object(1, &format!("node {node}")));
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
    for (host, node) in (1..).zip(nodes) {
        let url = |port: u16| format!("http://{}:{port}/", hosts.0.address(host));
        assert!(eventually("the node port", || hosts.fetch(None, &url(30080))).starts_with("on n"));
        assert_eq!(eventually("the host port", || hosts.fetch(None, &url(8081))), format!("on {node}\n"));
    }

    // Who isn't a friend is kept out, on whatever machine; pods of the machine itself stay probed and ready.
    hosts.apply(DENY);
    let (_, far) = hosts.web()[1].clone();
    eventually("strangers are kept out", || {
        hosts.fetch(Some(1), &format!("http://{far}:8080/")).is_none().then_some(())
    });
    hosts.meet(&nodes[..2]);
    hosts.k("delete networkpolicy web");
    eventually("strangers are let in", || hosts.fetch(Some(1), &format!("http://{far}:8080/")));

    // A machine that is cut off is done without.
    let service = format!("http://{}/", hosts.k("get service web -o jsonpath={.spec.clusterIP}"));
    hosts.cut(3);
    hosts.wait_for_ready("n3", "Unknown");
    let third = hosts.web()[2].1.clone();
    eventually("the Service does without the third", || {
        let ready = hosts.k("get endpointslices -l kubernetes.io/service-name=web -o jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].nodeName}");
        (!ready.contains("n3")).then_some(())
    });
    eventually("the first machine knows", || {
        (0..20).all(|_| hosts.fetch(Some(1), &service).is_some()).then_some(())
    });
    assert!(hosts.fetch(Some(1), &format!("http://{third}:8080/")).is_none(), "it is cut off");
    hosts.nft(3, "delete table ip cut");
    hosts.wait_for_ready("n3", "True");
    eventually("it is reached again", || hosts.fetch(Some(1), &format!("http://{third}:8080/")));

    // Without any member everything that is there goes on.
    ["m1", "m2", "m3"].into_iter().for_each(|member| hosts.0.kill(member));
    for host in 1..=3 {
        let heard: BTreeSet<String> = (0..40).filter_map(|_| hosts.fetch(Some(host), &service)).collect();
        assert!(heard.len() >= 2, "machine {host}: {heard:?}");
        let ran = hosts.0.run_on(
            Some(host),
            "busybox",
            &["nslookup", "web.default.svc.cluster.local", "10.96.0.10"],
        );
        assert!(
            ran.out.contains(service.trim_start_matches("http://").trim_end_matches('/')),
            "{}{}",
            ran.out,
            ran.err
        );
    }
}
