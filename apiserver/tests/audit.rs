//! The audit file and the journal name the same write, and the file has what policies noted about it.

mod audit_file;

use std::sync::Arc;

use apiserver::pki::Pki;
use apiserver::{ApiServer, Body, Config, Identity, Peer};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::model::Model;

use audit_file::lines;

const PATH: &str = "/api/v1/namespaces/default/configmaps";

async fn ask(server: &Arc<ApiServer>, method: &str, path: &str, body: &str) -> Value {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned()));
    let peer = Peer::InProcess(Identity::new("admin", &["system:masters"]));
    let answer = server.handle(request.expect("a request"), peer).await;
    let bytes = answer.into_body().collect().await.expect("a whole answer").to_bytes();
    serde_json::from_slice(&bytes).expect("JSON")
}

/// A server that records in the directory.
async fn audited() -> (Arc<ApiServer>, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config::new(Arc::new(Pki::load_or_create(dir.path()).expect("a new authority")));
    config.audit = Some(audit_file::config(dir.path()));
    (ApiServer::start(Arc::new(Model::new()), config).await.expect("it starts"), dir)
}

#[tokio::test]
async fn a_write_is_recorded_with_its_revision_and_nothing_else_is() {
    let (server, dir) = audited().await;
    let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    let mut made = Vec::new();
    for name in ["a", "b"] {
        let object = json!({"metadata": {"name": name}}).to_string();
        made.push(version(&ask(&server, "POST", PATH, &object).await).expect("a version"));
    }
    ask(&server, "POST", &format!("{PATH}?dryRun=All"), &json!({"metadata": {"name": "c"}}).to_string())
        .await;
    ask(&server, "DELETE", PATH, "").await;

    let revision = |event: &Value| event["annotations"]["amoeba.dev/revision"].as_str().map(str::to_owned);
    let told: Vec<Option<String>> = lines(dir.path(), PATH, 4).await.iter().map(revision).collect();
    assert_eq!(told[..3], [Some(made[0].clone()), Some(made[1].clone()), None]);
    let span = told[3].clone().expect("deletions are writes");
    let (first, last) = span.split_once('-').expect("several of them");
    let number = |text: &str| text.parse::<u64>().expect("a revision");
    assert!(number(&made[1]) < number(first) && number(first) < number(last), "{span} after {made:?}");
}

#[tokio::test]
async fn what_policies_note_about_a_request_is_recorded() {
    let (server, dir) = audited().await;
    let policy = json!({"metadata": {"name": "noted"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["configmaps"]}]},
        "validations": [{"expression": "object.metadata.name != 'a'", "message": "no a"}],
        "auditAnnotations": [{"key": "name", "valueExpression": "'it is ' + object.metadata.name"}],
    }});
    let binding = json!({"metadata": {"name": "noted"}, "spec": {
        "policyName": "noted", "validationActions": ["Audit"],
    }});
    let group = "/apis/admissionregistration.k8s.io/v1";
    for (plural, object) in
        [("validatingadmissionpolicies", policy), ("validatingadmissionpolicybindings", binding)]
    {
        let made = ask(&server, "POST", &format!("{group}/{plural}"), &object.to_string()).await;
        assert_eq!(made["metadata"]["name"], "noted", "{made}");
    }
    for name in ["a", "b"] {
        let made = ask(&server, "POST", PATH, &json!({"metadata": {"name": name}}).to_string()).await;
        assert_eq!(made["metadata"]["name"], name, "{made}");
    }
    let told = lines(dir.path(), PATH, 2).await;
    let key = "validation.policy.admission.k8s.io/validation_failure";
    let failure: Value =
        serde_json::from_str(told[0]["annotations"][key].as_str().expect("a note")).expect("JSON");
    assert_eq!(failure[0]["message"], "no a");
    assert_eq!(told[0]["annotations"]["noted/name"], "it is a");
    assert_eq!(told[1]["annotations"]["noted/name"], "it is b");
    assert!(told[1]["annotations"][key].is_null());
}
