//! An API server behind ours: its condition, what is listed of it, and for whom requests are passed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cluster::{Cluster, Somebody, until};
use apiserver::Identity;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const FLUNDERS: &str = "/apis/w.example/v1/flunders";
const CONFIG: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";

/// The tag of its document of version 2, and how often somebody knew it.
const TAG: &str = "\"CD\"";
static KNOWN: AtomicUsize = AtomicUsize::new(0);

fn swagger() -> Value {
    let schema = json!({"$ref": "#/definitions/w.Flunder"});
    let list = json!({"description": "lists flunders", "responses": {"200": {"description": "OK", "schema": schema}}});
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let flunder =
        json!({"type": "object", "properties": {"metadata": {"$ref": format!("#/definitions/{meta}")}}});
    json!({
        "x-tag": TAG, "swagger": "2.0", "info": {"title": "theirs"},
        "paths": {"/apis/w.example/v1/flunders": {"get": list}, "/version/": {}},
        "definitions": {"w.Flunder": flunder, meta: {"description": "theirs"}},
    })
}

/// Serves `flunders`, and tells who it was told that asks.
fn judge(head: &http::request::Parts, _asked: Value) -> (u16, Value) {
    let said = |name: &str| {
        let all = head.headers.get_all(name).iter().map(|value| value.to_str().expect("ASCII").to_owned());
        all.collect::<Vec<_>>().join(",")
    };
    match head.uri.path() {
        "/apis/w.example/v1" => (
            200,
            json!({"kind": "APIResourceList", "groupVersion": "w.example/v1", "resources": [
                {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                 "verbs": ["get", "list"], "shortNames": ["fl"]},
            ]}),
        ),
        "/openapi/v3" => {
            let url = "/openapi/v3/apis/w.example/v1?hash=AB";
            (200, json!({"paths": {"apis/w.example/v1": {"serverRelativeURL": url}}}))
        }
        "/openapi/v2" if said("if-none-match") == TAG => {
            KNOWN.fetch_add(1, Ordering::Relaxed);
            (304, Value::Null)
        }
        "/openapi/v2" => (200, swagger()),
        "/openapi/v3/apis/w.example/v1" => (200, json!({"openapi": "3.0.0", "info": {"title": "theirs"}})),
        "/apis/w.example/v1/namespaces/shop/flunders/away" => (302, json!("https://elsewhere.example/")),
        path => (
            200,
            json!({
                "path": path, "query": head.uri.query(), "host": said("host"),
                "user": said("x-remote-user"), "groups": said("x-remote-group"),
                "authorization": said("authorization"),
            }),
        ),
    }
}

/// Believes only who shows a certificate of the authority that the cluster publishes; its own is of nobody that
/// the cluster knows but by the APIService.
async fn extension(published: &str) -> (Somebody, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["ext.shop.svc".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).expect("names").self_signed(&key).expect("signed");
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(published.as_bytes()) {
        roots.add(authority.expect("a certificate")).expect("an authority");
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a private key");
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a certificate and its key");
    (Somebody::over_tls(Arc::new(tls), judge).await, BASE64.encode(certificate.pem()))
}

fn api_service(bundle: &str) -> Value {
    json!({
        "metadata": {"name": "v1.w.example"},
        "spec": {
            "group": "w.example", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15,
            "service": {"namespace": "shop", "name": "ext"}, "caBundle": bundle,
        },
    })
}

/// Waits until the condition has this reason; gives its message.
async fn reason(cluster: &Cluster, wanted: &str) -> String {
    let path = format!("{API_SERVICES}/v1.w.example");
    let look = || async {
        let found = cluster.ask("GET", &path, Value::Null).await.body;
        let condition = &found["status"]["conditions"][0];
        (condition["reason"] == wanted).then(|| condition["message"].as_str().unwrap_or_default().to_owned())
    };
    until(wanted, look).await
}

/// What aggregated discovery says of the version.
async fn listed(cluster: &Cluster) -> Value {
    let groups = cluster.ask("GET", "/apis?", Value::Null).await.body;
    let mut items = groups["items"].as_array().expect("groups").clone().into_iter();
    let group = items.find(|group| group["metadata"]["name"] == "w.example");
    group.map(|group| group["versions"][0].clone()).unwrap_or_default()
}

#[tokio::test]
async fn an_api_server_behind_ours_serves_its_group() {
    let cluster = Cluster::start().await;
    let published = cluster.ask("GET", CONFIG, Value::Null).await.body;
    assert_eq!(published["data"]["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
    let authority = published["data"]["requestheader-client-ca-file"].as_str().expect("an authority");
    let (extension, bundle) = extension(authority).await;
    cluster.make("/api/v1/namespaces", json!({"metadata": {"name": "shop"}})).await;
    cluster.make(API_SERVICES, api_service(&bundle)).await;
    assert_eq!(reason(&cluster, "ServiceNotFound").await, r#"service/ext in "shop" is not present"#);
    assert_eq!(listed(&cluster).await, json!({"version": "v1", "freshness": "Stale", "resources": []}));
    let flunders = "/apis/w.example/v1/namespaces/shop/flunders";
    let refused = cluster.ask("GET", flunders, Value::Null).await;
    assert_eq!((refused.code, &refused.body), (503, &json!("service unavailable\n")));

    cluster.service("shop", "ext", extension.at, false).await;
    let missing = r#"endpointslices for service/ext in "shop" have no addresses with port name "https""#;
    assert_eq!(reason(&cluster, "MissingEndpoints").await, missing);
    let slice = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/ext-1";
    let ready = json!({"endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}]});
    assert_eq!(cluster.ask("PATCH", slice, ready).await.code, 200);
    assert_eq!(reason(&cluster, "Passed").await, "all checks passed");

    let asked = cluster.ask("GET", &format!("{flunders}?limit=5"), Value::Null).await.body;
    let expected = json!({
        "path": flunders, "query": "limit=5", "host": extension.at.to_string(),
        "user": "admin", "groups": "system:masters,system:authenticated", "authorization": "",
    });
    assert_eq!(asked, expected);
    let nobody = Identity::new("jane", &["dev"]);
    assert_eq!(
        cluster.ask_as(nobody, "GET", flunders, Value::Null).await.code,
        403,
        "who may is decided here"
    );
    let away = cluster.ask("GET", &format!("{flunders}/away"), Value::Null).await;
    assert_eq!((away.code, away.headers.get("location")), (502, None));
    assert_documents(&cluster).await;

    assert_eq!(cluster.ask("DELETE", slice, Value::Null).await.code, 200);
    let gone = r#"cannot find endpointslices for service/ext in "shop""#;
    assert_eq!(reason(&cluster, "EndpointsNotFound").await, gone);
    let stale = listed(&cluster).await;
    assert_eq!(
        (&stale["freshness"], &stale["resources"][0]["resource"]),
        (&json!("Stale"), &json!("flunders"))
    );
    assert_eq!(cluster.ask("GET", flunders, Value::Null).await.code, 503);
    assert_eq!(cluster.ask("DELETE", &format!("{API_SERVICES}/v1.w.example"), Value::Null).await.code, 200);
    until("the group is gone", || async { listed(&cluster).await.is_null().then_some(()) }).await;
    let whole = cluster.ask("GET", "/openapi/v2", Value::Null).await;
    assert_eq!(whole.body["paths"].get(FLUNDERS), None);
    assert_eq!(cluster.ask("GET", flunders, Value::Null).await.code, 404);
}

/// What is listed of a server that lives, and its own documents.
async fn assert_documents(cluster: &Cluster) {
    let current = listed(cluster).await;
    assert_eq!(
        (&current["freshness"], &current["resources"][0]["shortNames"]),
        (&json!("Current"), &json!(["fl"]))
    );
    let groups = cluster.ask("GET", "/apis", Value::Null).await.body;
    let names: Vec<&Value> =
        groups["groups"].as_array().expect("groups").iter().map(|group| &group["name"]).collect();
    assert_eq!(names.last(), Some(&&json!("w.example")));
    let group = cluster.ask("GET", "/apis/w.example", Value::Null).await.body;
    assert_eq!(group["preferredVersion"]["groupVersion"], "w.example/v1");
    let list = cluster.ask("GET", "/apis/w.example/v1", Value::Null).await.body;
    assert_eq!(list["resources"][0]["kind"], "Flunder");
    let index = cluster.ask("GET", "/openapi/v3", Value::Null).await.body;
    let url = index["paths"]["apis/w.example/v1"]["serverRelativeURL"].as_str().expect("a URL").to_owned();
    assert_eq!(url, "/openapi/v3/apis/w.example/v1?hash=AB");
    assert_eq!(cluster.ask("GET", &url, Value::Null).await.body["info"]["title"], "theirs");
    assert_swagger(cluster).await;
}

/// Its resources stand in our document of version 2, which keeps its own definitions, also if theirs wasn't sent anew.
async fn assert_swagger(cluster: &Cluster) {
    let known = || async { (KNOWN.load(Ordering::Relaxed) > 0).then_some(()) };
    until("it is asked whether its document has changed", known).await;
    let whole = cluster.ask("GET", "/openapi/v2", Value::Null).await.body;
    assert_eq!(whole["paths"][FLUNDERS]["get"]["description"], "lists flunders");
    assert!(whole["paths"].get("/version/").is_none() && whole["paths"].get("/api/v1/pods").is_some());
    let meta = &whole["definitions"]["w.Flunder"]["properties"]["metadata"]["$ref"];
    assert_eq!(meta, "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta_v2");
}

#[tokio::test]
async fn who_isnt_vouched_for_is_not_available() {
    let cluster = Cluster::start().await;
    let published = cluster.ask("GET", CONFIG, Value::Null).await.body;
    let authority = published["data"]["requestheader-client-ca-file"].as_str().expect("an authority");
    let (impostor, _) = extension(authority).await;
    let (_other, bundle) = extension(authority).await;
    cluster.make("/api/v1/namespaces", json!({"metadata": {"name": "shop"}})).await;
    cluster.service("shop", "ext", impostor.at, true).await;
    cluster.make(API_SERVICES, api_service(&bundle)).await;
    let message = reason(&cluster, "FailedDiscoveryCheck").await;
    let url = format!("https://{}/apis/w.example/v1", impostor.at);
    let expected =
        format!("failing or missing response from {url}: Get {url:?}: tls: failed to verify who is at");
    assert!(message.starts_with(&expected), "{message}");
    // The object decides at once, without a restart.
    let trusting = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    let path = format!("{API_SERVICES}/v1.w.example");
    assert_eq!(cluster.ask("PATCH", &path, trusting).await.code, 200);
    reason(&cluster, "Passed").await;
}
