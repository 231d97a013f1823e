//! An API server that extends the cluster's API, as metrics servers do: HTTPS on loopback, in a thread of the test.
//!
//! It serves `flunders` of `wardle.example.com/v1alpha1`, of which there is one, that tells who it was told that asks.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

const ROOT: &str = "/apis/wardle.example.com/v1alpha1";

/// Begins to serve, to the end of the test. Gives what makes the cluster pass requests on to it: a Service in namespace
/// `default` that leads here, and the APIService.
///
/// # Panics
/// If there is no port or no certificate for it.
pub fn serve() -> String {
    let (config, certificate) = tls("wardle.default.svc");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = config.clone();
            std::thread::spawn(move || answer(stream, config));
        }
    });
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: wardle, namespace: default}}
spec: {{ports: [{{name: https, port: 443, targetPort: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: wardle-1, namespace: default, labels: {{kubernetes.io/service-name: wardle}}}}
addressType: IPv4
ports: [{{name: https, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1alpha1.wardle.example.com}}
spec:
  group: wardle.example.com
  version: v1alpha1
  groupPriorityMinimum: 2000
  versionPriority: 200
  caBundle: {}
  service: {{name: wardle, namespace: default}}
"#,
        BASE64.encode(certificate)
    )
}

/// A certificate of nobody but itself for a name, and how it is served with.
fn tls(name: &str) -> (Arc<ServerConfig>, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a private key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .expect("a certificate and its key");
    (Arc::new(config), certificate.pem())
}

/// Answers one request of a connection; a client that goes is none of our business.
fn answer(stream: TcpStream, config: Arc<ServerConfig>) -> Option<()> {
    let connection = ServerConnection::new(config).expect("a connection");
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let path = head.first()?.split([' ', '?']).nth(1)?.to_owned();
    let user = head.iter().find_map(|line| line.strip_prefix("x-remote-user: ")).unwrap_or_default();
    let (code, body) = match said(&path, user) {
        Some(document) => ("200 OK", document.to_string()),
        None => ("404 Not Found", "{}".to_owned()),
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {code}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    let stream = stream.get_mut();
    stream.write_all(answer.as_bytes()).ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()
}

fn said(path: &str, user: &str) -> Option<Value> {
    let api_version = ROOT.trim_start_matches("/apis/");
    match path.strip_prefix(ROOT)? {
        "" => Some(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version,
            "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                           "verbs": ["get", "list"], "shortNames": ["fl"]}],
        })),
        "/namespaces/default/flunders" => Some(json!({
            "kind": "FlunderList", "apiVersion": api_version, "metadata": {},
            "items": [{"kind": "Flunder", "apiVersion": api_version, "spec": {"for": user},
                       "metadata": {"name": "only", "namespace": "default"}}],
        })),
        _ => None,
    }
}
