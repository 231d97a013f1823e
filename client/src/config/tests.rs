//! Failover between real listeners on loopback.

use super::{Options, from_config, from_kubeconfig};
use http_body_util::Full;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, api::PostParams};
use std::{convert::Infallible, net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle};

/// Answers every request with an object that is named for the server.
async fn serve(name: &'static str) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(move |_| async move {
                let body =
                    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#);
                Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(body))))
            });
            connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    (address, task)
}

fn url(address: SocketAddr) -> http::Uri {
    format!("http://{address}").parse().expect("a URL")
}

fn client(servers: &[SocketAddr]) -> kube::Client {
    let mut options = Options::new("test/1");
    options.servers = servers[1..].iter().copied().map(url).collect();
    options.request_timeout = Duration::from_millis(500);
    from_config(kube::Config::new(url(servers[0])), &options).expect("a client")
}

async fn answering(api: &Api<ConfigMap>) -> String {
    api.get("any").await.expect("an answer").metadata.name.unwrap_or_default()
}

#[tokio::test]
async fn requests_move_to_the_next_server_and_stay_there() {
    let (first, first_task) = serve("first").await;
    let (second, _second_task) = serve("second").await;
    let api: Api<ConfigMap> = Api::namespaced(client(&[first, second]), "ns");
    assert_eq!(answering(&api).await, "first");
    first_task.abort();
    let _ = first_task.await;
    assert_eq!(answering(&api).await, "second");
    let created = api.create(&PostParams::default(), &ConfigMap::default()).await.expect("created");
    assert_eq!(created.metadata.name.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_write_is_repeated_only_if_there_was_no_connection() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (second, _task) = serve("second").await;
    let silent_address = silent.local_addr().expect("an address");
    let api: Api<ConfigMap> = Api::namespaced(client(&[silent_address, second]), "ns");
    let unanswered = api.create(&PostParams::default(), &ConfigMap::default()).await;
    assert!(unanswered.is_err(), "the silent server may have acted on it");
    assert_eq!(answering(&api).await, "second", "the silent server is left");

    let unused = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let closed = unused.local_addr().expect("an address");
    drop(unused);
    let api: Api<ConfigMap> = Api::namespaced(client(&[closed, second]), "ns");
    let created = api.create(&PostParams::default(), &ConfigMap::default()).await.expect("created");
    assert_eq!(created.metadata.name.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_kubeconfig_can_name_further_servers() {
    let (second, _task) = serve("second").await;
    let unused = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let closed = unused.local_addr().expect("an address");
    drop(unused);
    let text = format!(
        r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{{"name": "c", "context": {{"cluster": "k", "user": "u"}}}}],
        "users": [{{"name": "u", "user": {{}}}}],
        "clusters": [{{"name": "k", "cluster": {{"server": "http://{closed}", "extensions":
            [{{"name": "amoeba.dev/servers", "extension": ["http://{second}"]}}]}}}}]}}"#
    );
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("kubeconfig");
    std::fs::write(&path, text).expect("written");
    let client = from_kubeconfig(&path, &Options::new("test")).await.expect("a client");
    assert_eq!(answering(&Api::namespaced(client, "ns")).await, "second");

    let missing = from_kubeconfig(&directory.path().join("none"), &Options::new("test")).await;
    let message = missing.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(message.starts_with("read the kubeconfig /"), "{message}");
}

#[tokio::test]
async fn a_client_in_use_takes_up_other_servers() {
    let (first, _first_task) = serve("first").await;
    let (second, _second_task) = serve("second").await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("kubeconfig");
    let write = |server: SocketAddr| {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://{server}'}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
        );
        std::fs::write(&path, text).expect("written");
    };
    write(first);
    let (client, switch) = super::switchable(&path, &Options::new("test/1")).await.expect("a client");
    let api: Api<ConfigMap> = Api::namespaced(client, "ns");
    assert_eq!(answering(&api).await, "first");
    write(second);
    assert_eq!(answering(&api).await, "first", "not before it is asked to");
    switch.reload().await.expect("reloaded");
    assert_eq!(answering(&api).await, "second");
    std::fs::write(&path, "nothing").expect("written");
    assert!(switch.reload().await.is_err());
    assert_eq!(answering(&api).await, "second", "a file that can't be used changes nothing");
}
