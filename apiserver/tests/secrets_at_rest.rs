//! No store ever holds a Secret's text, and its users never notice.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use apiserver::pki::Pki;
use apiserver::{ApiServer, Body, Config, Identity, Peer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::kv::{KeyRange, Kv, RangeRequest, Revision, WatchMessage, WatchRequest};
use store::model::Model;

const TEXT: &str = "correct horse battery staple";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

async fn start(store: &Model, pki: &Path) -> Arc<ApiServer> {
    let pki = Arc::new(Pki::load_or_create(pki).expect("keys"));
    ApiServer::start(Arc::new(store.clone()), Config::new(pki)).await.expect("the server starts")
}

async fn ask(server: &Arc<ApiServer>, method: &str, path: &str, body: Value) -> Value {
    let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header("content-type", content_type);
    let request = request.body(Body::from(body.to_string())).expect("a request");
    let admin = Peer::InProcess(Identity::new("admin", &["system:masters"]));
    let answer = server.handle(request, admin).await.into_body().collect().await.expect("a body");
    serde_json::from_slice(&answer.to_bytes()).expect("JSON")
}

fn secret(name: &str) -> Value {
    json!({ "metadata": { "name": name, "annotations": { "note": TEXT } }, "stringData": { "key": TEXT } })
}

/// Everything that the store has, and ever had, at the keys of Secrets.
async fn dump(store: &Model) -> Vec<(String, Vec<u8>)> {
    let everything = KeyRange { start: Default::default(), end: None };
    let newest = store.status().revision;
    let mut found = Vec::new();
    let range = store.range(RangeRequest::new(everything.clone())).await.expect("a range");
    found.extend(range.kvs.into_iter().map(|kv| (kv.key, kv.value)));
    let history = WatchRequest { range: everything, start: Some(Revision(1)) };
    let mut watch = store.watch(history).await.expect("a watch");
    while let Some(message) = watch.recv().await {
        let WatchMessage::Events { revision, events } = message else { continue };
        let pairs = events.iter().flat_map(|event| [Some(event.kv.clone()), event.prev.clone()]).flatten();
        found.extend(pairs.map(|kv| (kv.key, kv.value)));
        if revision >= newest {
            break;
        }
    }
    found
        .into_iter()
        .map(|(key, value)| (String::from_utf8_lossy(&key).into_owned(), value.to_vec()))
        .collect()
}

fn holds(value: &[u8], text: &str) -> bool {
    value.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_dump_of_the_store_holds_no_plaintext() {
    let (store, dir) = (Model::new(), tempfile::tempdir().expect("temporary directory"));
    let server = start(&store, dir.path()).await;
    let created = ask(&server, "POST", SECRETS, secret("a")).await;
    ask(&server, "PATCH", &format!("{SECRETS}/a"), json!({ "stringData": { "more": TEXT } })).await;
    ask(&server, "POST", SECRETS, secret("b")).await;
    ask(&server, "DELETE", &format!("{SECRETS}/b"), Value::Null).await;
    let dump = dump(&store).await;
    let at_secrets =
        dump.iter().filter(|(key, value)| key.contains("/secrets/") && !value.is_empty()).count();
    assert!(at_secrets >= 4, "{at_secrets} values of Secrets");
    for (key, value) in &dump {
        assert!(!holds(value, TEXT) && !holds(value, &STANDARD.encode(TEXT)), "{key} is in clear");
        assert_eq!(
            holds(value, "k8s:enc:aesgcm:v1:key-"),
            key.contains("/secrets/") && !value.is_empty(),
            "{key}"
        );
    }

    let read = ask(&server, "GET", &format!("{SECRETS}/a"), Value::Null).await;
    assert_eq!(read["data"], json!({ "key": STANDARD.encode(TEXT), "more": STANDARD.encode(TEXT) }));
    let listed = ask(&server, "GET", SECRETS, Value::Null).await;
    assert_eq!(listed["items"][0]["metadata"]["annotations"]["note"], TEXT);
    let version = created["metadata"]["resourceVersion"].as_str().expect("a version");
    let past = format!("{SECRETS}?resourceVersion={version}&resourceVersionMatch=Exact");
    let past = ask(&server, "GET", &past, Value::Null).await;
    assert_eq!(past["items"][0]["data"], json!({ "key": STANDARD.encode(TEXT) }), "{past}");
}

#[tokio::test]
async fn a_new_key_seals_everything_anew() {
    let (store, dir) = (Model::new(), tempfile::tempdir().expect("temporary directory"));
    let first = start(&store, dir.path()).await;
    ask(&first, "POST", SECRETS, secret("a")).await;
    // What an older version of this server left behind.
    let clear = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "old", "namespace": "default", "uid": "1"}});
    let key = "/registry/core/secrets/default/old";
    let put = store::kv::Op::Put { key: key.into(), value: clear.to_string().into(), lease: None };
    store.txn(store::kv::Txn { success: vec![put], ..Default::default() }).await.expect("written");

    let file = dir.path().join("encryption.keys");
    let old = fs::read_to_string(&file).expect("the key file");
    let line = format!("key2 {}\n", STANDARD.encode([2; 32]));
    fs::write(&file, line.clone() + &old).expect("written");
    let second = start(&store, dir.path()).await;
    let mut values = Vec::new();
    // Sealing goes on while the server serves; each pass here waits for a write, so no time is assumed.
    for round in 0..1000 {
        ask(
            &second,
            "POST",
            "/api/v1/namespaces/default/configmaps",
            json!({"metadata": {"name": format!("m{round}")}}),
        )
        .await;
        let range = KeyRange::prefix("/registry/core/secrets/");
        values = store.range(RangeRequest::new(range)).await.expect("a range").kvs;
        if values.iter().all(|kv| holds(&kv.value, ":key2:")) {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(values.len(), 2);
    assert!(values.iter().all(|kv| kv.value.starts_with(b"k8s:enc:aesgcm:v1:key2:")), "all are sealed anew");
    for server in [&first, &second] {
        let listed = ask(server, "GET", SECRETS, Value::Null).await;
        assert_eq!(
            listed["items"][0]["data"]["key"],
            STANDARD.encode(TEXT),
            "who started earlier reads it, too"
        );
        assert_eq!(listed["items"][1]["metadata"]["name"], "old");
    }

    fs::write(&file, line.replace("key2 ", "key3 ")).expect("written");
    let pki = Arc::new(Pki::load_or_create(dir.path()).expect("keys"));
    let lost =
        ApiServer::start(Arc::new(store.clone()), Config::new(pki)).await.err().expect("the key is lost");
    let why = std::error::Error::source(&lost).expect("a cause").to_string();
    assert!(
        why.contains("secrets/default/a can't be opened: it is sealed with key \"key2\", which is not in"),
        "{why}"
    );
}
