//! A definition's webhook converts objects between versions, over HTTPS, on their way in and out.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apiserver::pki::{MASTERS_GROUP, Pki};
use apiserver::{ApiServer, Body, Config, Identity, Peer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use store::model::Model;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// `v1` has `spec.hostPort`, `v2` has `spec.host` and `spec.port`.
fn converted(mut object: Value, to: &str) -> Value {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    object["apiVersion"] = json!(to);
    object["spec"] = match to {
        "example.com/v2" => {
            let both = text(&object["spec"]["hostPort"]);
            let (host, port) = both.split_once(':').unwrap_or((&both, ""));
            json!({"host": host, "port": port})
        }
        _ => {
            json!({"hostPort": format!("{}:{}", text(&object["spec"]["host"]), text(&object["spec"]["port"]))})
        }
    };
    object
}

fn review(question: &Value) -> Value {
    let request = &question["request"];
    let to = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects = request["objects"].as_array().cloned().unwrap_or_default();
    let refused = objects.iter().any(|object| object["spec"]["hostPort"] == "refuse");
    let result = match refused {
        true => json!({"status": "Failed", "message": "not this one"}),
        false => json!({"status": "Success"}),
    };
    let objects: Vec<Value> = objects.into_iter().map(|object| converted(object, to)).collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "ConversionReview",
        "response": {"uid": request["uid"], "result": result, "convertedObjects": objects},
    })
}

/// A webhook on loopback; gives its URL and a count of its reviews.
async fn webhook(pki: &Pki) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let url = format!("https://{}/convert", listener.local_addr().expect("address"));
    let serving = pki.issue_server(&[], &["127.0.0.1".parse().expect("address")]).expect("issue");
    let acceptor = TlsAcceptor::from(pki.server_tls_config(&serving).expect("TLS configuration"));
    let reviews = Arc::new(AtomicUsize::new(0));
    let counted = reviews.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else { continue };
            let counted = counted.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                counted.fetch_add(1, Ordering::SeqCst);
                async move {
                    let body = request.into_body().collect().await.expect("a question").to_bytes();
                    let question: Value = serde_json::from_slice(&body).expect("a review");
                    let answer = Full::new(Bytes::from(review(&question).to_string()));
                    Ok::<_, Infallible>(Response::new(answer))
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service),
            );
        }
    });
    (url, reviews)
}

fn definition(url: &str, authority: &str) -> Value {
    let version = |name: &str, storage: bool, fields: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            fields.iter().map(|field| ((*field).to_owned(), json!({"type": "string"}))).collect();
        let spec = json!({"type": "object", "properties": properties});
        json!({"name": name, "served": true, "storage": storage,
               "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "links.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": {"plural": "links", "kind": "Link"},
            "versions": [version("v1", true, &["hostPort"]), version("v2", false, &["host", "port"])],
            "conversion": {"strategy": "Webhook", "webhook": {
                "clientConfig": {"url": url, "caBundle": BASE64.encode(authority)},
                "conversionReviewVersions": ["v1"],
            }},
        },
    })
}

struct Server(Arc<ApiServer>);

impl Server {
    async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = Request::builder().method(method).uri(path);
        if method == "PATCH" {
            request = request.header("content-type", "application/merge-patch+json");
        }
        let request = request.body(Body::from(body)).expect("a request");
        let admin = Peer::InProcess(Identity::new("admin", &[MASTERS_GROUP]));
        let response = self.0.handle(request, admin).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

#[tokio::test]
async fn objects_are_converted_both_ways() {
    let home = tempfile::tempdir().expect("temporary directory");
    let pki = Arc::new(Pki::load_or_create(home.path()).expect("authorities"));
    let (url, reviews) = webhook(&pki).await;
    let authority = pki.ca_pem().to_string();
    let server = Server(ApiServer::start(Arc::new(Model::default()), Config::new(pki)).await.expect("start"));
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (code, answer) = server.ask("POST", crds, definition(&url, &authority)).await;
    assert_eq!(code, 201, "{answer}");
    while server.ask("GET", "/apis/example.com/v2/links", Value::Null).await.0 == 404 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let made = json!({"metadata": {"name": "a"}, "spec": {"host": "h", "port": "80"}});
    let (code, made) = server.ask("POST", "/apis/example.com/v2/links", made).await;
    assert_eq!((code, &made["spec"]), (201, &json!({"host": "h", "port": "80"})), "{made}");
    let (_, stored) = server.ask("GET", "/apis/example.com/v1/links/a", Value::Null).await;
    assert_eq!(stored["spec"], json!({"hostPort": "h:80"}), "stored in the storage version");
    let (_, patched) =
        server.ask("PATCH", "/apis/example.com/v2/links/a", json!({"spec": {"port": "81"}})).await;
    assert_eq!((&patched["spec"]["port"], &patched["metadata"]["generation"]), (&json!("81"), &json!(2)));
    let (_, _) = server.ask("GET", "/apis/example.com/v2/links", Value::Null).await;
    let before = reviews.load(Ordering::SeqCst);
    let (_, list) = server.ask("GET", "/apis/example.com/v2/links", Value::Null).await;
    assert_eq!(list["items"][0]["spec"], json!({"host": "h", "port": "81"}));
    assert_eq!(reviews.load(Ordering::SeqCst), before, "an object that didn't change is converted once");
    let bad = json!({"metadata": {"name": "b"}, "spec": {"hostPort": "refuse"}});
    assert_eq!(server.ask("POST", "/apis/example.com/v1/links", bad).await.0, 201);
    let (code, refused) = server.ask("GET", "/apis/example.com/v2/links/b", Value::Null).await;
    let why =
        "Internal error occurred: conversion webhook for example.com/v1, Kind=Link failed: not this one";
    assert_eq!((code, &refused["message"]), (500, &json!(why)));
}
