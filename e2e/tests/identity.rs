//! Identities as kubectl hands them out: tokens of service accounts and certificates.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::{Cluster, eventually, kubectls};
use std::process::Command;

/// Requests made once with openssl, by a key that nobody needs.
const PERSON: &str = include_str!("../testdata/jane.csr");
const NODE: &str = include_str!("../testdata/node.csr");

fn request(name: &str, pem: &str, signer: &str) -> String {
    format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\n\
         spec: {{request: {}, signerName: {signer}, usages: [client auth, digital signature], expirationSeconds: 3600}}\n",
        STANDARD.encode(pem)
    )
}

fn curl(cluster: &Cluster, path: &str, token: &str) -> String {
    let url = format!("https://127.0.0.1:{}{path}", cluster.port());
    let authority = cluster.path().join("pki/ca.crt");
    let ran = Command::new("curl")
        .args(["-sS", "--cacert", authority.to_str().expect("UTF-8 path"), &url])
        .args(["-H", &format!("Authorization: Bearer {token}")])
        .output()
        .expect("curl runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// Without the kubeconfig, whose certificate would come first.
fn whoami(cluster: &Cluster, token: &str) -> String {
    let kubectl = kubectls().into_iter().next().expect("a kubectl");
    let authority = cluster.path().join("pki/ca.crt");
    let ran = Command::new(kubectl)
        .env("KUBECONFIG", "/dev/null")
        .args([
            "auth",
            "whoami",
            "--token",
            token,
            "--server",
            &format!("https://127.0.0.1:{}", cluster.port()),
        ])
        .args(["--certificate-authority", authority.to_str().expect("UTF-8 path")])
        .output()
        .expect("kubectl runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

#[test]
fn tokens_and_certificates_are_given_out_and_taken_back() {
    let cluster = Cluster::up(1, 1);
    cluster.k("create serviceaccount robot");
    cluster.k("create clusterrolebinding robot --clusterrole=view --serviceaccount=default:robot");
    let token = cluster.k("create token robot --duration=10m").trim().to_owned();
    assert!(whoami(&cluster, &token).contains("system:serviceaccount:default:robot"));
    assert!(curl(&cluster, "/api/v1/namespaces/default/pods", &token).contains("\"kind\":\"PodList\""));
    assert!(
        curl(&cluster, "/api/v1/namespaces/default/secrets", &token).contains("\"reason\":\"Forbidden\"")
    );
    assert!(curl(&cluster, "/openid/v1/jwks", &token).contains("\"kty\":\"EC\""));
    cluster.k("delete serviceaccount robot");
    eventually("the token ends with its account", || {
        curl(&cluster, "/api/v1/namespaces/default/pods", &token).contains("Unauthorized").then_some(())
    });

    assert!(cluster.apply(&request("jane", PERSON, "kubernetes.io/kube-apiserver-client")).ok);
    assert!(cluster.k("get csr jane").contains("Pending"));
    assert!(cluster.k("certificate approve jane").contains("approved"));
    let issued = eventually("jane's certificate", || {
        Some(cluster.k("get csr jane -o jsonpath={.status.certificate}")).filter(|text| !text.is_empty())
    });
    let pem = STANDARD.decode(issued).expect("base64");
    assert!(pem.starts_with(b"-----BEGIN CERTIFICATE-----"));
    assert!(cluster.k("get csr jane").contains("Approved,Issued"));
    assert!(cluster.apply(&request("other", PERSON, "kubernetes.io/kube-apiserver-client")).ok);
    assert!(cluster.k("certificate deny other").contains("denied"));
    assert!(cluster.k("get csr other").contains("Denied"));

    // The administrator may create nodes' certificates, so nobody needs to approve one.
    assert!(cluster.apply(&request("node", NODE, "kubernetes.io/kube-apiserver-client-kubelet")).ok);
    eventually("the node's certificate", || {
        cluster.k("get csr node").contains("Approved,Issued").then_some(())
    });
}
