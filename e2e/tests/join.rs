//! A machine joins by a token, renews its certificates while it runs, and goes on with another API server when the
//! one it knows dies.

use std::fs;
use std::process::Command;

use e2e::machines::Machines;
use e2e::{Ran, eventually, is_ready};

#[test]
fn a_machine_joins_renews_and_outlives_an_api_server() {
    let mut machines = Machines::start(3);
    strangers_are_refused(&mut machines);
    let told = machines.joining(1, "--ttl 1h --description worker");
    let joining: Vec<&str> = told.iter().map(String::as_str).collect();
    machines.start_node(1, "worker", &[joining.as_slice(), &["--renew-certificates-every", "3s"]].concat());
    eventually("the node is ready", || machines.object(1, "node worker").filter(is_ready).map(drop));
    run_pod(&machines, 1, "first");
    logs_come_through_the_nodes_api(&machines, "first");
    what_is_written_is_private(&machines);

    let before = eventually("both certificates", || certificates(&machines));
    eventually("both are renewed", || {
        certificates(&machines).filter(|now| now[0] != before[0] && now[1] != before[1])
    });
    logs_come_through_the_nodes_api(&machines, "first");
    callers_are_asked_about(&machines);

    // It joined by the first; the others it learned of.
    eventually("the node knows all servers", || {
        let kubeconfig = fs::read_to_string(machines.path("worker/kubelet.kubeconfig")).ok()?;
        (2..=3).all(|number| kubeconfig.contains(&machines.endpoint(number))).then_some(())
    });
    machines.kill("m1");
    run_pod(&machines, 2, "second");
    logs_come_through_the_nodes_api(&machines, "second");

    // What it got is enough to start again, without token and URL.
    machines.a(2, &format!("token delete {}", joining[3].split('.').next().expect("an id")));
    machines.kill("worker");
    machines.start_node(1, "worker", &[]);
    run_pod(&machines, 2, "third");
    let restarts = "{.status.containerStatuses[0].restartCount}";
    assert_eq!(machines.k(2, &format!("get pod first -o jsonpath={restarts}")), "0", "it was adopted");
}

#[test]
fn machines_become_members_by_tokens_and_outlive_the_first() {
    let mut machines = Machines::start_first();
    machines.k(1, "create configmap before --from-literal=a=b");
    strangers_get_no_authorities(&mut machines);
    for number in [2, 3] {
        let flags = inviting(&machines);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        machines.start_joining_member(number, &flags);
        eventually("it votes", || (voters(&machines, 1) == number).then_some(()));
        // It is a member like any other, and what let it in is no more.
        assert_eq!(machines.k(number, "get configmap before -o jsonpath={.data.a}"), "b");
        let id = flags[3].split('.').next().expect("an id");
        for object in ["secret bootstrap-token-", "secret amoeba-authorities-", "role amoeba-authorities-"] {
            let line = format!("get -n kube-system {object}{id}");
            eventually(&line, || machines.kubectl(1, &line).err.contains("NotFound").then_some(()));
        }
    }
    machines.kill("m1");
    eventually("the others go on", || {
        machines.kubectl(2, "create configmap after --from-literal=a=b").ok.then_some(())
    });
    eventually("each of them", || machines.kubectl(3, "get configmap after").ok.then_some(()));
    // Started again it needs neither token nor key.
    machines.kill("m3");
    let server = format!("https://{}", machines.endpoint(2));
    machines.start_joining_member(3, &["--join", &server]);
    eventually("it is back", || {
        machines.kubectl(3, "create configmap again --from-literal=a=b").ok.then_some(())
    });
}

/// The flags of a new token of the control plane, as a member tells them.
fn inviting(machines: &Machines) -> Vec<String> {
    let pki = machines.path("pki");
    let command = machines.a(1, &format!("token create --control-plane --pki-dir {}", pki.display()));
    let flags: Vec<String> = command.split_whitespace().skip(2).map(str::to_owned).collect();
    eventually("the cluster signs with it", || signs(machines, &flags[3]));
    flags
}

/// Whether the cluster says with this token who it is.
fn signs(machines: &Machines, token: &str) -> Option<()> {
    let info = machines.kubectl(1, "get configmap cluster-info -n kube-public -o yaml");
    info.out.contains(&format!("jws-kubeconfig-{}", &token[..6])).then_some(())
}

fn voters(machines: &Machines, member: usize) -> usize {
    let answer = machines.kubectl(member, "get --raw /members");
    let members: serde_json::Value = serde_json::from_str(&answer.out).unwrap_or_default();
    let members = members["members"].as_array().into_iter().flatten();
    members.filter(|member| member["learner"] == false).count()
}

/// A node's token opens nothing, nor does a member's with another key, and nobody is believed without a pin.
fn strangers_get_no_authorities(machines: &mut Machines) {
    let told = machines.joining(1, "");
    let [url, token, pin] = [1, 3, 5].map(|place| told[place].clone());
    eventually("the cluster signs with it", || signs(machines, &token));
    let right = inviting(machines);
    let (right_token, right_key) = (right[3].clone(), right[7].clone());
    let key = "0".repeat(64);
    let expect = |machines: &mut Machines, token: &str, further: &[&str], words: &str| {
        machines.start_joining_member(2, &[&["--join", &url, "--token", token], further].concat());
        eventually(words, || machines.log("m2").contains(words).then_some(()));
        machines.kill("m2");
        assert!(!machines.path("m2/pki/ca.key").exists() && !machines.path("m2/store").exists());
    };
    let pinned = ["--ca-cert-hash", &pin, "--certificate-key"];
    let refused = "cannot get resource \"secrets\"";
    expect(machines, &token, &[&pinned[..], &[&right_key]].concat(), refused);
    expect(machines, &right_token, &[&pinned[..], &[&key]].concat(), "certificate key is another one");
    expect(machines, &right_token, &["--certificate-key", &right_key], "needs --ca-cert-hash");
    assert_eq!(voters(machines, 1), 1);
    // What is told of its authorities is sealed for everybody in the cluster.
    let secret =
        machines.k(1, &format!("get secret -n kube-system amoeba-authorities-{} -o yaml", &right_token[..6]));
    assert!(secret.contains("ca.key:") && !secret.contains("LS0tLS1CRUdJTi"), "{secret}");
    machines.a(1, &format!("token delete {}", &right_token[..6]));
}

/// Neither a foreign token nor a foreign authority leads to a certificate.
fn strangers_are_refused(machines: &mut Machines) {
    let url = format!("https://{}", machines.endpoint(1));
    let expect = |machines: &mut Machines, flags: &[&str], words: &str| {
        machines.start_node(1, "worker", &[&["--join", &url], flags].concat());
        eventually(words, || machines.log("worker").contains(words).then_some(()));
        machines.kill("worker");
        assert!(!machines.path("worker/kubelet.kubeconfig").exists());
    };
    eventually("the cluster says who it is", || {
        machines.kubectl(1, "get configmap cluster-info -n kube-public").ok.then_some(())
    });
    expect(machines, &["--token", "aaaaaa.0123456789abcdef"], "invalid for this cluster");
    let token = machines.a(1, "token create bbbbbb.0123456789abcdef");
    let signs = |machines: &Machines| {
        let info = machines.kubectl(1, "get configmap cluster-info -n kube-public -o yaml");
        info.ok.then(|| info.out.contains("jws-kubeconfig-bbbbbb"))
    };
    eventually("it signs", || signs(machines).filter(|signs| *signs));
    let pin = format!("sha256:{}", "0".repeat(64));
    expect(machines, &["--token", token.trim(), "--ca-cert-hash", &pin], "are pinned");
    expect(machines, &["--token", "bbbbbb.0000000000000000"], "failed to verify JWS signature");
    assert!(machines.a(1, "token list").contains("bbbbbb"));
    machines.a(1, "token delete bbbbbb");
    eventually("it signs no longer", || signs(machines).filter(|signs| !signs));
    expect(machines, &["--token", token.trim()], "invalid for this cluster");
}

fn logs_come_through_the_nodes_api(machines: &Machines, pod: &str) {
    eventually("the log", || machines.kubectl(2, &format!("logs {pod}")).out.contains("hello").then_some(()));
}

fn what_is_written_is_private(machines: &Machines) {
    use std::os::unix::fs::PermissionsExt as _;
    for name in ["worker/kubelet.kubeconfig", "worker/pki/kubelet-server-current.pem", "m1/admin.kubeconfig"]
    {
        let metadata = eventually(name, || fs::metadata(machines.path(name)).ok());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

/// The node's own API, asked by a service account: what RBAC gives it, and no more.
fn callers_are_asked_about(machines: &Machines) {
    for line in [
        "create serviceaccount robot",
        "create clusterrole metrics --verb=get --resource=nodes/metrics",
        "create clusterrolebinding robot --clusterrole=metrics --serviceaccount=default:robot",
    ] {
        machines.k(1, line);
    }
    let token = machines.k(1, "create token robot").trim().to_owned();
    let node = machines.object(1, "node worker").expect("the node");
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().expect("a port");
    let ask = |path: &str, token: &str| {
        let authority = machines.path("pki/ca.crt");
        let ran = Command::new("curl")
            .args(["-sS", "-w", " %{http_code}", "--resolve", &format!("worker:{port}:127.0.0.1")])
            .args(["--cacert", authority.to_str().expect("UTF-8 path")])
            .args(["-H", &format!("Authorization: Bearer {token}"), &format!("https://worker:{port}{path}")])
            .output()
            .expect("curl runs");
        Ran::from(ran)
    };
    let metrics = ask("/metrics", &token);
    assert!(metrics.ok && metrics.out.ends_with(" 200"), "{}{}", metrics.out, metrics.err);
    let pods = ask("/pods", &token);
    assert_eq!(
        pods.out,
        "Forbidden (user=system:serviceaccount:default:robot, verb=get, resource=nodes, \
         subresource(s)=[pods proxy]) 403"
    );
    assert_eq!(ask("/metrics", "nonsense").out, "Unauthorized 401");
}

/// What differs after a renewal: of the client's certificate and of the serving one.
fn certificates(machines: &Machines) -> Option<[String; 2]> {
    let kubeconfig = fs::read_to_string(machines.path("worker/kubelet.kubeconfig")).ok()?;
    let data = kubeconfig.lines().find(|line| line.contains("client-certificate-data"))?.to_owned();
    let serving = fs::read_to_string(machines.path("worker/pki/kubelet-server-current.pem")).ok()?;
    Some([data, serving.split("-----END").next()?.to_owned()])
}

fn run_pod(machines: &Machines, member: usize, name: &str) {
    machines.apply(
        member,
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
             automountServiceAccountToken: false\n  containers: [{{name: main, image: plain, \
             imagePullPolicy: Never, command: [sh, -c, 'echo hello; exec sleep 1000']}}]\n"
        ),
    );
    eventually(&format!("{name} is ready"), || {
        machines.object(member, &format!("pod {name}")).filter(is_ready).map(drop)
    });
}
