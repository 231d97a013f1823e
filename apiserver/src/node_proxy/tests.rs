//! Logs through a real kubelet-shaped TLS server on loopback.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use futures::StreamExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::auth::Identity;
use crate::query::Query;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What the fake kubelet was asked: by whom, and for which path.
type Asked = mpsc::Receiver<(String, String)>;

/// Answers every request with `status` and the given chunks, then ends.
async fn kubelet(
    pki: &Pki,
    certificate_of: &str,
    status: u16,
    chunks: &[&'static str],
) -> (SocketAddr, Asked, JoinSet<()>) {
    let certificate = pki.issue_node(certificate_of, &[LOOPBACK]).expect("issue");
    let acceptor = TlsAcceptor::from(pki.server_tls_config(&certificate).expect("configuration"));
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("listen");
    let address = listener.local_addr().expect("address");
    let (tell, asked) = mpsc::channel(8);
    let chunks: Vec<Bytes> = chunks.iter().map(|chunk| Bytes::from_static(chunk.as_bytes())).collect();
    let mut task = JoinSet::new();
    task.spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else { continue };
            let certificates = tls.get_ref().1.peer_certificates().expect("a client certificate").to_vec();
            let user = Identity::from_certificate(&certificates[0]).expect("a user").user;
            let service = service_fn(|request: Request<Incoming>| {
                let asked = (user.clone(), request.uri().to_string());
                let (tell, chunks) = (tell.clone(), chunks.clone());
                async move {
                    tell.send(asked).await.expect("the test listens");
                    let mut response = Response::new(Body::stream(futures::stream::iter(chunks)));
                    *response.status_mut() = StatusCode::from_u16(status).expect("code");
                    Ok::<_, Infallible>(response)
                }
            });
            let _ =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
        }
    });
    (address, asked, task)
}

fn pod() -> Value {
    json!({
        "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "nodeName": "n1", "containers": [{ "name": "app" }] },
    })
}

fn node(address: SocketAddr) -> Value {
    json!({
        "metadata": { "name": "n1" },
        "status": {
            "addresses": [{ "type": "Hostname", "address": "n1" }, { "type": "InternalIP", "address": address.ip().to_string() }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": address.port() } },
        },
    })
}

fn pki() -> (tempfile::TempDir, Arc<Pki>) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let pki = Pki::load_or_create(dir.path()).expect("authorities");
    (dir, Arc::new(pki))
}

async fn logs(pki: &Arc<Pki>, node: Option<Value>, query: &str) -> Result<Response<Body>, Status> {
    let options = LogOptions::parse(&Query::parse(query)).expect("options");
    NodeProxy::new(pki).expect("proxy").logs(&pod(), &options, |_| node).await
}

#[tokio::test]
async fn a_log_is_passed_on() {
    let (_dir, pki) = pki();
    let (address, mut asked, _kubelet) = kubelet(&pki, "n1", 200, &["one\n", "two\n"]).await;
    let response = logs(&pki, Some(node(address)), "follow=true").await.expect("a log");
    let body: Vec<_> =
        response.into_body().into_data_stream().map(|chunk| chunk.expect("chunk")).collect().await;
    assert_eq!(body.concat(), b"one\ntwo\n");
    let expected = ("kube-apiserver-kubelet-client", "/containerLogs/shop/web/app?follow=true");
    let (user, path) = asked.recv().await.expect("asked");
    assert_eq!((user.as_str(), path.as_str()), expected);
}

#[tokio::test]
async fn the_kubelets_refusal_is_passed_on() {
    let (_dir, pki) = pki();
    let text = "container \"app\" in pod \"web\" is waiting to start: ContainerCreating";
    let (address, _asked, _kubelet) = kubelet(&pki, "n1", 400, &[text]).await;
    let status = logs(&pki, Some(node(address)), "").await.expect_err("refused");
    assert_eq!((status.code(), status.message.as_str()), (400, text));
}

#[tokio::test]
async fn another_nodes_certificate_is_refused() {
    let (_dir, pki) = pki();
    let (address, mut asked, _kubelet) = kubelet(&pki, "n2", 200, &["secret"]).await;
    let status = logs(&pki, Some(node(address)), "").await.expect_err("refused");
    assert_eq!(status.code(), 500);
    assert!(status.message.contains("tls: failed to verify who is at 127.0.0.1"), "{}", status.message);
    assert!(asked.try_recv().is_err(), "no request was sent");
}

#[tokio::test]
async fn an_unreachable_kubelet_is_named() {
    let (_dir, pki) = pki();
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("listen");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let status = logs(&pki, Some(node(address)), "").await.expect_err("refused");
    let url = format!("Get \"https://{address}/containerLogs/shop/web/app\": dial tcp {address}: ");
    assert!(status.message.contains(&url), "{}", status.message);
    let status = logs(&pki, None, "").await.expect_err("no such node");
    assert_eq!(status.message, "nodes \"n1\" not found");
}

#[test]
fn a_node_without_address_is_not_guessed() {
    let mut lost = node(([127, 0, 0, 1], 1).into());
    lost["status"]["addresses"] = json!([{ "type": "InternalIP", "address": "not an address" }]);
    assert!(Kubelet::of(&lost).is_err());
    let mut plain = node(([127, 0, 0, 1], 1).into());
    plain["status"]["daemonEndpoints"] = Value::Null;
    assert_eq!(Kubelet::of(&plain).expect("address").address.port(), KUBELET_PORT);
}
