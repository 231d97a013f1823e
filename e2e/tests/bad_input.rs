//! Bad input gives one clear error that names the place and the remedy, and nothing is half applied.

use e2e::{Cluster, amoeba_binary, kubectls};
use std::net::TcpListener;
use std::process::Command;

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  replicas: 0
  selector: {matchLabels: {app: d}}
  template:
    metadata: {labels: {app: d}}
    spec: {containers: [{name: c, image: none, command: [sleep, infinity]}]}
";

/// Applies `yaml` with each kubectl and with our own command; each must fail and say all of `words`.
fn refused(cluster: &mut Cluster, yaml: &str, words: &[&str]) {
    for kubectl in kubectls() {
        cluster.use_kubectl(&kubectl);
        let ran = cluster.apply(yaml);
        assert!(!ran.ok, "kubectl took\n{yaml}\n{}", ran.out);
        for word in words {
            assert!(ran.err.contains(word), "{} doesn't say `{word}`:\n{}", kubectl.display(), ran.err);
        }
    }
    let file = cluster.path().join("apply.yaml");
    let ran = cluster.amoeba(["apply", "-f", file.to_str().expect("UTF-8 path")]);
    assert!(!ran.ok, "amoeba took\n{yaml}\n{}", ran.out);
    for word in words {
        assert!(ran.err.contains(word), "amoeba doesn't say `{word}`:\n{}", ran.err);
    }
    assert!(ran.err.lines().count() <= 4, "one clear error, not\n{}", ran.err);
}

#[test]
fn a_bad_manifest_is_refused_by_name() {
    let cluster = &mut Cluster::up(1, 1);
    refused(cluster, &DEPLOYMENT.replace("replicas", "replica"), &["unknown field \"spec.replica\""]);
    refused(cluster, &DEPLOYMENT.replace("replicas: 0", "replicas: lots"), &["spec.replicas"]);
    refused(cluster, &DEPLOYMENT.replace("name: d}", "}"), &["name"]);
    refused(
        cluster,
        &DEPLOYMENT.replace("replicas: 0", "replicas: -1"),
        &["spec.replicas", "-1", "greater than or equal to 0"],
    );
    refused(cluster, &DEPLOYMENT.replace("kind: Deployment", "kind: Deploymint"), &["Deploymint"]);
    refused(cluster, "apiVersion: v1\nkind: ConfigMap\n  metadata: {name: x}\n", &["line 3"]);
    refused(cluster, &DEPLOYMENT.replace("labels: {app: d}", "labels: {app: e}"), &["selector", "template"]);
    assert_eq!(cluster.k("get deployments -o name"), "", "nothing of it was applied");

    assert!(cluster.apply(DEPLOYMENT).ok);
    let changed = DEPLOYMENT.replace("app: d", "app: e");
    refused(cluster, &changed, &["spec.selector", "field is immutable"]);

    let large = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: l}}\ndata: {{a: {}}}\n",
        "x".repeat(4 << 20)
    );
    refused(cluster, &large, &["too large"]);
}

#[test]
fn nothing_is_half_applied() {
    let cluster = &mut Cluster::up(1, 1);
    let two = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: first}}\n---{}",
        DEPLOYMENT.replace("replicas: 0", "replicas: -1")
    );
    std::fs::write(cluster.path().join("two.yaml"), two).expect("a file");
    let file = cluster.path().join("two.yaml");
    let ran = cluster.amoeba(["apply", "-f", file.to_str().expect("UTF-8 path")]);
    assert!(!ran.ok && ran.err.contains("spec.replicas"), "{}", ran.err);
    assert_eq!(
        cluster.k("get configmap first --ignore-not-found -o name"),
        "",
        "the valid half was not applied either"
    );
}

#[test]
fn strangers_and_the_powerless_get_a_clear_no() {
    let cluster = Cluster::up(1, 1);
    let node = cluster.path().join("nodes/n1/kubeconfig");
    let err = cluster.k_fails(&format!("--kubeconfig {} delete namespace default", node.display()));
    let no = "User \"system:node:n1\" cannot delete resource \"namespaces\" in API group \"\"";
    assert!(err.contains("forbidden") && err.contains(no), "{err}");
    assert_eq!(anonymous(&cluster, "/livez"), (200, "ok".to_owned()));
    assert_eq!(anonymous(&cluster, "/version").0, 200);
    let (code, body) = anonymous(&cluster, "/api/v1/secrets");
    assert_eq!(code, 403, "{body}");
    assert!(body.contains("User \\\"system:anonymous\\\" cannot list resource \\\"secrets\\\""), "{body}");
}

#[test]
fn a_bearer_token_is_known_by_its_digest() {
    let mut cluster = Cluster::up(1, 1);
    cluster.stop();
    // The digest of "a-long-random-token".
    let line = "sha256:b780ec04f0ac941421b556e74f31ff207f799c4ad119ea0178a81054b373b34b,reader,1,\"system:masters\"\n";
    std::fs::write(cluster.path().join("pki/tokens.csv"), line).expect("a token file");
    cluster.start();
    let with = |token: &str| {
        let ca = cluster.path().join("pki/ca.crt");
        let url = format!("https://127.0.0.1:{}/api/v1/namespaces/default", cluster.port());
        let ran = Command::new("curl").arg("--cacert").arg(ca).args(["-s", "-H", token, &url]).output();
        String::from_utf8_lossy(&ran.expect("curl runs").stdout).into_owned()
    };
    assert!(with("Authorization: Bearer a-long-random-token").contains("\"kind\":\"Namespace\""));
    assert!(with("Authorization: Bearer another-token").contains("\"code\":401"));
}

/// GET without any identity; the server's certificate is not checked, as this test is about the client's.
fn anonymous(cluster: &Cluster, path: &str) -> (u16, String) {
    let url = format!("https://127.0.0.1:{}{path}", cluster.port());
    let ran = Command::new("curl").args(["-sk", "-w", "\n%{http_code}", &url]).output().expect("curl runs");
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').expect("a status code");
    (code.parse().expect("a number"), body.to_owned())
}

#[test]
fn a_port_or_directory_in_use_is_named() {
    let cluster = Cluster::up(1, 1);
    let dir = cluster.path().to_str().expect("UTF-8 path");
    let ran = Command::new(amoeba_binary()).args(["up", "--data-dir", dir]).output().expect("amoeba runs");
    let err = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success() && err.contains(dir) && err.contains("in use"), "{err}");

    let other = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let ran = Command::new(amoeba_binary())
        .args(["up", "--port", &port, "--data-dir"])
        .arg(other.path())
        .output()
        .expect("amoeba runs");
    let err = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success() && err.contains(&port) && err.contains("--port"), "{err}");
}

/// Without a cluster: what is wrong is named, with what it should be.
#[test]
fn a_wrong_command_line_says_what_would_be_right() {
    let dir = tempfile::tempdir().expect("a directory");
    let none = dir.path().join("none.tar");
    std::fs::write(&none, "none").expect("a file");
    for (line, words) in [
        ("server --listen 127.0.0.1", "'--listen <ADDRESS>': the port is missing, as in 127.0.0.1:6443"),
        ("node --name Bad_Name", "a lowercase RFC 1123 subdomain must consist of"),
        ("node", "token create --print-join-command"),
        ("get pods", "`amoeba up` makes one in its --data-dir"),
        ("image load none.tar", "cannot load images from none.tar: unpack the archive"),
        ("image load missing.tar", "cannot load images from missing.tar: open missing.tar: No such file"),
    ] {
        let ran = Command::new(amoeba_binary())
            .args(line.split(' '))
            .args(["--data-dir", "."])
            .current_dir(dir.path())
            .env_remove("KUBECONFIG")
            .output()
            .expect("amoeba runs");
        let err = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && err.contains(words), "amoeba {line}\n{err}");
    }
}
