//! Admission webhooks over real TLS: asked in order, heard, refused, ignored, and never about themselves.

mod audit_file;

use std::sync::Arc;

use api::k8s::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use api::k8s::api::core::v1::{ConfigMap, Pod};
use api::k8s::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use apiserver::pki::Pki;
use apiserver::{ApiServer, Config, Identity};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use store::model::Model;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A webhook: its URL, and the certificate that vouches for it in base64.
struct Hook {
    url: String,
    bundle: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Adds what its path says to `data`, or refuses who has `data.bad`.
fn judge(path: &str, review: &Value) -> Value {
    let request = &review["request"];
    let mut response = json!({"uid": request["uid"], "allowed": true});
    response["auditAnnotations"] = json!({"asked": request["operation"]});
    match path {
        "/add" => {
            let seen = request["object"]["data"].as_object().map_or(0, serde_json::Map::len);
            let data = json!({"seen": seen.to_string(), "user": request["userInfo"]["username"]});
            let patch = json!([{"op": "add", "path": "/data", "value": data}]).to_string();
            response["patch"] = json!(STANDARD.encode(patch));
            response["patchType"] = json!("JSONPatch");
            response["warnings"] = json!(["changed on the way"]);
        }
        "/judge"
            if request["object"]["data"]["bad"].is_string()
                || request["object"]["command"][0] == "sh"
                || request["oldObject"]["data"]["kept"].is_string() =>
        {
            response["allowed"] = json!(false);
            response["status"] =
                json!({"message": format!("{} is not wanted", request["operation"]), "code": 422});
        }
        "/broken" => return json!("nonsense"),
        _ => {}
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

async fn hook() -> Hook {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
    let certificate = params.self_signed(&key).expect("a certificate");
    let private = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a private key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("bound"));
    let server = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else { continue };
            let service =
                hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await?.to_bytes();
                    let review: Value = serde_json::from_slice(&body).expect("a review");
                    let answer = judge(&path, &review).to_string();
                    Ok::<_, hyper::Error>(http::Response::new(Full::<bytes::Bytes>::from(answer)))
                });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service);
            let _ = connection.await; // a client that goes is no matter of the test
        }
    });
    Hook { url, bundle: STANDARD.encode(certificate.pem()), server }
}

async fn cluster() -> (Client, Arc<ApiServer>, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config::new(Arc::new(Pki::load_or_create(dir.path()).expect("a new authority")));
    config.audit = Some(audit_file::config(dir.path()));
    let server = ApiServer::start(Arc::new(Model::new()), config).await.expect("the server starts");
    let client = Client::new(server.in_process(Identity::new("admin", &["system:masters"])), "default");
    (client, server, dir)
}

fn configuration(hook: &Hook, name: &str, path: &str, more: Value) -> Value {
    let mut webhook = json!({
        "name": format!("{name}.example.com"),
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("{}{path}", hook.url), "caBundle": hook.bundle},
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
    });
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        webhook[key] = value;
    }
    json!({"metadata": {"name": name}, "webhooks": [webhook]})
}

fn map(name: &str, data: Value) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": data})).expect("typed")
}

fn status(error: kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.message),
        other => panic!("no answer of the API: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_change_and_refuse() {
    let ((client, _server, _dir), hook) = (cluster().await, hook().await);
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let params = PostParams::default();

    let judge = configuration(&hook, "judge", "/judge", json!({}));
    validating.create(&params, &serde_json::from_value(judge).expect("typed")).await.expect("created");
    let refused = maps.create(&params, &map("a", json!({"bad": "yes"}))).await.expect_err("refused");
    let why = "admission webhook \"judge.example.com\" denied the request: \"CREATE\" is not wanted";
    assert_eq!(status(refused), (422, why.to_owned()));
    maps.create(&params, &map("kept", json!({"kept": "yes"}))).await.expect("allowed");
    let refused = maps.delete("kept", &DeleteParams::default()).await.expect_err("refused");
    assert!(status(refused).1.contains("\"DELETE\" is not wanted"));

    // The conditions decide who is asked.
    let only = json!({"matchConditions": [{"name": "marked", "expression": "has(object.metadata.labels) && 'mark' in object.metadata.labels"}]});
    let add = configuration(&hook, "add", "/add", only);
    mutating.create(&params, &serde_json::from_value(add).expect("typed")).await.expect("created");
    let plain = maps.create(&params, &map("plain", json!({"x": "y"}))).await.expect("created");
    assert_eq!(plain.data.expect("data")["x"], "y");
    let mark = Patch::Merge(json!({"metadata": {"labels": {"mark": ""}}}));
    let marked = maps.patch("plain", &PatchParams::default(), &mark).await.expect("patched");
    assert_eq!(json!(marked.data), json!({"seen": "1", "user": "admin"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_webhooks_note_is_recorded_whatever_they_say() {
    let ((client, _server, dir), hook) = (cluster().await, hook().await);
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let params = PostParams::default();
    let judge = configuration(&hook, "judge", "/judge", json!({}));
    validating.create(&params, &serde_json::from_value(judge).expect("typed")).await.expect("created");
    maps.create(&params, &map("good", json!({}))).await.expect("allowed");
    maps.create(&params, &map("bad", json!({"bad": "yes"}))).await.expect_err("refused");
    let told = audit_file::lines(dir.path(), "/api/v1/namespaces/default/configmaps", 2).await;
    for (event, code) in told.iter().zip([201, 422]) {
        assert_eq!(event["responseStatus"]["code"], code, "{event}");
        assert_eq!(event["annotations"]["judge.example.com/asked"], "CREATE", "{event}");
    }
}

/// Has the webhook judge who runs commands in containers.
async fn judge_commands(client: &Client, hook: &Hook) {
    let rules = json!([{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}]);
    let judge = configuration(hook, "judge", "/judge", json!({"rules": rules}));
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let judge = serde_json::from_value(judge).expect("typed");
    validating.create(&PostParams::default(), &judge).await.expect("created");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_decides_who_may_run_commands_in_a_container() {
    let ((client, _server, _dir), hook) = (cluster().await, hook().await);
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let params = PostParams::default();
    judge_commands(&client, &hook).await;
    let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "app", "image": "i"}]}});
    pods.create(&params, &serde_json::from_value(pod).expect("typed")).await.expect("not asked about");
    let exec = async |command: &str| {
        let path = format!("/api/v1/namespaces/default/pods/web/exec?command={command}&stdout=true");
        let request = http::Request::builder().uri(path).header("upgrade", "SPDY/3.1").body(Vec::new());
        status(client.request_text(request.expect("a request")).await.expect_err("refused or without a node"))
    };
    let why = "admission webhook \"judge.example.com\" denied the request: \"CONNECT\" is not wanted";
    assert_eq!(exec("sh").await, (422, why.to_owned()));
    assert_eq!(exec("ls").await, (400, "pod web does not have a host assigned".to_owned()));
}

/// The webhook would refuse with words of its own; that who may only read isn't even asked about shows in the words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_read_is_refused_before_any_webhook_is_asked() {
    let ((client, server, _dir), hook) = (cluster().await, hook().await);
    judge_commands(&client, &hook).await;
    let params = PostParams::default();
    let role = json!({
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]}],
    });
    let binding = json!({
        "metadata": {"name": "reader"}, "subjects": [{"kind": "User", "name": "jane"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
    });
    let roles: Api<ClusterRole> = Api::all(client.clone());
    roles.create(&params, &serde_json::from_value(role).expect("typed")).await.expect("created");
    let bindings: Api<ClusterRoleBinding> = Api::all(client);
    bindings.create(&params, &serde_json::from_value(binding).expect("typed")).await.expect("created");
    let jane = Client::new(server.in_process(Identity::new("jane", &["system:authenticated"])), "default");
    let refused = async || {
        let path = "/api/v1/namespaces/default/pods/web/exec?command=sh&stdout=true";
        let request = http::Request::builder().uri(path).header("upgrade", "websocket").body(Vec::new());
        status(jane.request_text(request.expect("a request")).await.expect_err("refused"))
    };
    let mut refused_for = refused().await;
    // Who may do what is followed behind the store: until the binding is seen, she may not even read.
    while refused_for.1.contains("cannot get") {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        refused_for = refused().await;
    }
    let why = "pods \"web\" is forbidden: User \"jane\" cannot create resource \"pods/exec\" in API group \"\" in \
               the namespace \"default\"";
    assert_eq!(refused_for, (403, why.to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_told_or_ignored() {
    let ((client, _server, _dir), hook) = (cluster().await, hook().await);
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let params = PostParams::default();
    let broken = configuration(&hook, "broken", "/broken", json!({}));
    validating.create(&params, &serde_json::from_value(broken).expect("typed")).await.expect("created");
    let failed = status(maps.create(&params, &map("a", json!({}))).await.expect_err("failed"));
    assert_eq!(failed.0, 500);
    assert!(failed.1.contains("failed calling webhook \"broken.example.com\""), "{}", failed.1);
    let ignored = json!({"webhooks": [{"name": "broken.example.com", "failurePolicy": "Ignore"}]});
    let ignore = Patch::Strategic(ignored);
    // Nobody is asked about the configuration itself.
    validating.patch("broken", &PatchParams::default(), &ignore).await.expect("patched");
    maps.create(&params, &map("a", json!({}))).await.expect("created");
    // A webhook that nobody vouches for isn't asked at all.
    let mut stranger = configuration(&hook, "stranger", "/judge", json!({}));
    stranger["webhooks"][0]["clientConfig"]["caBundle"] = json!(hook_of_somebody_else().await);
    validating.create(&params, &serde_json::from_value(stranger).expect("typed")).await.expect("created");
    let failed = status(maps.create(&params, &map("b", json!({}))).await.expect_err("failed"));
    assert!(failed.0 == 500 && failed.1.contains("tls"), "{}", failed.1);
}

async fn hook_of_somebody_else() -> String {
    hook().await.bundle.clone()
}
