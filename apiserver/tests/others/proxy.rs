//! The proxy subresources with somebody who listens: what arrives there, and what comes back.

use std::convert::Infallible;
use std::sync::Arc;

use crate::cluster::{Cluster, PATIENCE};
use apiserver::Body;
use bytes::Bytes;
use futures::stream;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{Notify, watch};

/// Tells what it was asked; some paths are special. The second half of `/slow` waits for `go`.
async fn answer(mut request: Request<Incoming>, go: Arc<Notify>) -> Response<Body> {
    match request.uri().path() {
        "/redirect" => {
            let moved = Response::builder().status(302).header("location", "/there/");
            return moved.header("access-control-allow-origin", "*").body(Body::empty()).expect("a response");
        }
        "/slow" => {
            let halves = stream::unfold(0, move |half| {
                let go = go.clone();
                async move {
                    match half {
                        0 => Some((Bytes::from_static(b"one"), 1)),
                        1 => {
                            go.notified().await;
                            Some((Bytes::from_static(b"two"), 2))
                        }
                        _ => None,
                    }
                }
            });
            return Response::new(Body::stream(halves));
        }
        "/echo" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.expect("an upgrade"));
                let mut heard = [0; 5];
                io.read_exact(&mut heard).await.expect("five bytes");
                heard.reverse();
                io.write_all(&heard).await.expect("written");
            });
            let switching = Response::builder().status(101).header("connection", "Upgrade");
            return switching.header("upgrade", "echo").body(Body::empty()).expect("a response");
        }
        _ => {}
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let said = |name: &str| head.headers.get(name).map(|value| value.to_str().expect("ASCII").to_owned());
    let told = json!({
        "method": head.method.as_str(), "uri": head.uri.to_string(), "body": String::from_utf8_lossy(&body),
        "origin": said("x-forwarded-uri"), "authorization": said("authorization"), "mine": said("x-mine"),
    });
    Response::new(Body::from(told.to_string()))
}

struct World {
    cluster: Cluster,
    go: Arc<Notify>,
    port: u16,
    _stop: watch::Sender<bool>,
}

impl World {
    /// A pod `web` with somebody in it, and a client's door to the server.
    async fn start() -> Self {
        let (cluster, go) = (Cluster::start().await, Arc::new(Notify::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let told = go.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let told = told.clone();
                let service = service_fn(move |request| {
                    let told = told.clone();
                    async move { Ok::<_, Infallible>(answer(request, told).await) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(tcp), service).with_upgrades());
            }
        });
        cluster.make("/api/v1/namespaces", json!({"metadata": {"name": "shop"}})).await;
        cluster
            .make("/api/v1/namespaces/shop/serviceaccounts", json!({"metadata": {"name": "default"}}))
            .await;
        let spec =
            json!({"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": at.port()}]}]});
        cluster
            .make("/api/v1/namespaces/shop/pods", json!({"metadata": {"name": "web"}, "spec": spec}))
            .await;
        let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
        assert_eq!(cluster.ask("PATCH", "/api/v1/namespaces/shop/pods/web/status", status).await.code, 200);
        let service = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "None", "ports": [{"name": "https", "port": 80}]}});
        cluster.make("/api/v1/namespaces/shop/services", service).await;
        let pod = json!({"kind": "Pod", "namespace": "shop", "name": "web"});
        cluster.endpoint("shop", "web", at, true, pod).await;
        let (stop, stopped) = watch::channel(false);
        let admin = cluster.server.admin(&cluster.dir.path().join("admin.sock")).expect("it listens");
        tokio::spawn(admin.serve(stopped));
        Self { cluster, go, port: at.port(), _stop: stop }
    }

    /// Sends a request over a connection of its own, as a client does.
    async fn send(&self, request: Request<Body>) -> Response<Incoming> {
        let stream =
            UnixStream::connect(self.cluster.dir.path().join("admin.sock")).await.expect("connected");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection.with_upgrades());
        tokio::time::timeout(PATIENCE, sender.send_request(request))
            .await
            .expect("in time")
            .expect("answered")
    }
}

const POD: &str = "/api/v1/namespaces/shop/pods/web/proxy";

fn request(method: &str, path: &str, body: &'static str) -> Request<Body> {
    let request =
        Request::builder().method(method).uri(path).header("host", "api:6443").header("x-mine", "kept");
    request.header("authorization", "Bearer secret").body(Body::from(body)).expect("a request")
}

async fn told(response: Response<Incoming>) -> Value {
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    serde_json::from_slice(&body).expect("JSON")
}

#[tokio::test]
async fn what_is_asked_arrives_and_what_is_answered_comes_back() {
    let world = World::start().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let path = format!("{POD}/a%2Fb//c?x=1&y=%20");
        let told = told(world.send(request(method, &path, "hello")).await).await;
        let expected = json!({
            "method": method, "uri": "/a%2Fb//c?x=1&y=%20", "body": "hello", "authorization": null, "mine": "kept",
            "origin": format!("{POD}/a%2Fb//c"),
        });
        assert_eq!(told, expected);
    }
    let port = world.port;
    for path in [
        format!("/api/v1/namespaces/shop/pods/http:web:{port}/proxy/"),
        "/api/v1/namespaces/shop/services/web:80/proxy/".to_owned(),
        "/api/v1/namespaces/shop/services/http:web:https/proxy/".to_owned(),
    ] {
        assert_eq!(told(world.send(request("GET", &path, "")).await).await["uri"], "/", "{path}");
    }
}

#[tokio::test]
async fn redirects_lead_back_through_the_server() {
    let world = World::start().await;
    let answer = world.send(request("GET", &format!("{POD}/redirect"), "")).await;
    assert_eq!(answer.status(), 302);
    assert_eq!(answer.headers()["location"], format!("{POD}/there/"));
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    let bare = world.send(request("GET", &format!("{POD}?x=1"), "")).await;
    assert_eq!(bare.status(), 301);
    assert_eq!(bare.headers()["location"], format!("{POD}/?x=1"));
}

#[tokio::test]
async fn answers_come_as_they_are_made() {
    let world = World::start().await;
    let mut body = world.send(request("GET", &format!("{POD}/slow"), "")).await.into_body();
    let first = body.frame().await.expect("not the end").expect("a frame").into_data().expect("data");
    assert_eq!(first, "one");
    // Only who has the first half lets the second one go.
    world.go.notify_one();
    assert_eq!(body.collect().await.expect("the rest").to_bytes(), "two");
}

#[tokio::test]
async fn other_protocols_are_spoken_through_the_server() {
    let world = World::start().await;
    let mut upgrade = request("GET", &format!("{POD}/echo"), "");
    upgrade.headers_mut().insert("connection", "Upgrade".parse().expect("ASCII"));
    upgrade.headers_mut().insert("upgrade", "echo".parse().expect("ASCII"));
    let mut answer = world.send(upgrade).await;
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()["upgrade"], "echo");
    let mut io = TokioIo::new(hyper::upgrade::on(&mut answer).await.expect("upgraded"));
    io.write_all(b"hello").await.expect("written");
    let mut heard = [0; 5];
    tokio::time::timeout(PATIENCE, io.read_exact(&mut heard)).await.expect("in time").expect("five bytes");
    assert_eq!(&heard, b"olleh");
    // Who doesn't speak it says so.
    let mut upgrade = request("GET", &format!("{POD}/plain"), "");
    upgrade.headers_mut().insert("connection", "Upgrade".parse().expect("ASCII"));
    upgrade.headers_mut().insert("upgrade", "echo".parse().expect("ASCII"));
    let refused = told(world.send(upgrade).await).await;
    assert_eq!(refused["message"], "Internal error occurred: invalid upgrade response: status code 200");
}

#[tokio::test]
async fn who_isnt_there_is_told() {
    let world = World::start().await;
    let free =
        TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
    let path = format!("/api/v1/namespaces/shop/pods/web:{free}/proxy/");
    let answer = told(world.send(request("GET", &path, "")).await).await;
    let expected =
        format!("error trying to reach service: dial tcp 127.0.0.1:{free}: connect: connection refused");
    assert_eq!((&answer["code"], &answer["message"]), (&json!(503), &json!(expected)));
}
