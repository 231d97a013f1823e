//! The audit file and the journal name the same write.

use std::sync::Arc;
use std::time::Duration;

use apiserver::audit::{AuditConfig, file::Rotation, policy::Policy};
use apiserver::pki::Pki;
use apiserver::{ApiServer, Body, Config, Identity, Peer};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::model::Model;

const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// How long a line may take to reach the file before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

async fn ask(server: &Arc<ApiServer>, method: &str, path: &str, body: &str) -> Value {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned()));
    let peer = Peer::InProcess(Identity::new("admin", &["system:masters"]));
    let answer = server.handle(request.expect("a request"), peer).await;
    let bytes = answer.into_body().collect().await.expect("a whole answer").to_bytes();
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The lines of the file once there are `count` about ConfigMaps; the default policy records writes.
async fn lines(path: &std::path::Path, count: usize) -> Vec<Value> {
    let read = async {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let events = whole.map(|line| serde_json::from_str(line).expect("JSON"));
            let ours = |event: &Value| event["requestURI"].as_str().is_some_and(|uri| uri.starts_with(PATH));
            let found: Vec<Value> = events.filter(ours).collect();
            if found.len() >= count {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the lines are written")
}

#[tokio::test]
async fn a_write_is_recorded_with_its_revision_and_nothing_else_is() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config::new(Arc::new(Pki::load_or_create(dir.path()).expect("a new authority")));
    let path = dir.path().join("audit.log");
    config.audit =
        Some(AuditConfig { policy: Policy::default(), path: path.clone(), rotation: Rotation::default() });
    let server = ApiServer::start(Arc::new(Model::new()), config).await.expect("it starts");

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
    let told: Vec<Option<String>> = lines(&path, 4).await.iter().map(revision).collect();
    assert_eq!(told[..3], [Some(made[0].clone()), Some(made[1].clone()), None]);
    let span = told[3].clone().expect("deletions are writes");
    let (first, last) = span.split_once('-').expect("several of them");
    let number = |text: &str| text.parse::<u64>().expect("a revision");
    assert!(number(&made[1]) < number(first) && number(first) < number(last), "{span} after {made:?}");
}
