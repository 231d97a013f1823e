//! Webhooks that are named by a Service: of admission and of conversion, found and verified in the same way.

use serde_json::{Value, json};

use crate::cluster::{Cluster, Somebody, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MAPS: &str = "/api/v1/namespaces/shop/configmaps";

/// Converts by the version's name only, and allows nothing.
fn judge(head: &http::request::Parts, review: Value) -> (u16, Value) {
    let (request, path) = (&review["request"], head.uri.path_and_query().map(|path| path.as_str()));
    let response = match path {
        Some("/convert?timeout=30s") => {
            let mut objects = request["objects"].as_array().cloned().unwrap_or_default();
            for object in &mut objects {
                object["apiVersion"] = request["desiredAPIVersion"].clone();
                object["spec"] = json!({"converted": "yes"});
            }
            json!({"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects})
        }
        Some("/judge?timeout=10s") => {
            json!({"uid": request["uid"], "allowed": false, "status": {"message": "heard"}})
        }
        _ => return (404, Value::Null),
    };
    (200, json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}))
}

async fn world(name: &str) -> (Cluster, Somebody, Value) {
    let cluster = Cluster::start().await;
    let serving = cluster.pki.issue_server(&[name.to_owned()], &[]).expect("issued");
    let tls = cluster.pki.server_tls_config(&serving).expect("a TLS configuration");
    let somebody = Somebody::over_tls(tls, judge).await;
    cluster.make("/api/v1/namespaces", json!({"metadata": {"name": "shop"}})).await;
    cluster.service("shop", "hook", somebody.at, true).await;
    let bundle = BASE64.encode(cluster.pki.ca_pem());
    let client = json!({"caBundle": bundle, "service": {"namespace": "shop", "name": "hook"}});
    (cluster, somebody, client)
}

fn validating(mut client: Value) -> Value {
    client["service"]["path"] = json!("/judge");
    json!({"metadata": {"name": "judge"}, "webhooks": [{
        "name": "judge.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": client,
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
    }]})
}

#[tokio::test]
async fn admission_asks_behind_a_service() {
    let (cluster, _hook, client) = world("hook.shop.svc").await;
    cluster.make(CONFIGURATIONS, validating(client)).await;
    let refused = cluster.ask("POST", MAPS, json!({"metadata": {"name": "a"}})).await;
    let expected = r#"admission webhook "judge.example.com" denied the request: heard"#;
    assert_eq!((refused.code, &refused.body["message"]), (403, &json!(expected)));
    let slice = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/hook-1";
    cluster.ask("DELETE", slice, Value::Null).await;
    let refused = cluster.ask("POST", MAPS, json!({"metadata": {"name": "a"}})).await;
    let expected = "Internal error occurred: failed calling webhook \"judge.example.com\": failed to call webhook: \
                    Post \"https://hook.shop.svc:443/judge?timeout=10s\": no endpoints available for service \"hook\"";
    assert_eq!((refused.code, &refused.body["message"]), (500, &json!(expected)));
}

#[tokio::test]
async fn who_has_another_name_isnt_asked() {
    let (cluster, _hook, client) = world("hook.elsewhere.svc").await;
    cluster.make(CONFIGURATIONS, validating(client)).await;
    let refused = cluster.ask("POST", MAPS, json!({"metadata": {"name": "a"}})).await;
    let message = refused.body["message"].as_str().expect("a message");
    assert!(message.contains("tls: failed to verify") && message.contains("hook.shop.svc"), "{message}");
}

#[tokio::test]
async fn conversion_asks_behind_a_service() {
    let (cluster, _hook, mut client) = world("hook.shop.svc").await;
    client["service"]["path"] = json!("/convert");
    let version = |name: &str| {
        let spec = json!({"type": "object", "properties": {"converted": {"type": "string"}}});
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
        json!({"name": name, "served": true, "storage": name == "v1", "schema": schema})
    };
    let conversion = json!({"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}});
    let definition = json!({
        "metadata": {"name": "links.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": {"plural": "links", "kind": "Link"},
            "versions": [version("v1"), version("v2")], "conversion": conversion,
        },
    });
    cluster.make(DEFINITIONS, definition).await;
    let links = "/apis/example.com/v1/links";
    until("links are served", || async {
        (cluster.ask("GET", links, Value::Null).await.code == 200).then_some(())
    })
    .await;
    cluster.make(links, json!({"metadata": {"name": "a"}})).await;
    let shown = cluster.ask("GET", "/apis/example.com/v2/links/a", Value::Null).await;
    assert_eq!((shown.code, &shown.body["spec"]["converted"]), (200, &json!("yes")), "{}", shown.body);
}
