//! Every route for every kind of caller, generated from the table of resources.
//!
//! Whoever shows credentials that are no longer, or never were, good gets 401 everywhere; whoever shows none gets
//! 403 from every resource. What the others get is a golden file, so that a widened right shows in review.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use apiserver::auth::accounts::{Binding, Claims, Reference, user_name};
use apiserver::pki::Pki;
use apiserver::registry::Registry;
use apiserver::registry::resource::Resource;
use apiserver::request::Verb;
use apiserver::{ApiServer, Body, Config, Identity, Peer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use store::model::Model;

const OTHER_PATHS: [&str; 15] = [
    "/",
    "/api",
    "/api/v1",
    "/apis",
    "/apis/apps/v1",
    "/version",
    "/healthz",
    "/livez",
    "/readyz",
    "/metrics",
    "/members",
    "/openapi/v2",
    "/openapi/v3",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
];

/// A method and a path.
struct Route {
    /// As the golden file calls it.
    label: String,
    method: Method,
    path: String,
    namespaced: bool,
}

/// Who asks, and how he shows it.
enum Caller {
    InProcess(Identity),
    Token(String),
    Nobody,
}

fn method(verb: Verb) -> Method {
    match verb {
        Verb::Create => Method::POST,
        Verb::Update => Method::PUT,
        Verb::Patch => Method::PATCH,
        Verb::Delete | Verb::DeleteCollection => Method::DELETE,
        _ => Method::GET,
    }
}

fn routes_of(resource: &Resource, namespace: &str) -> Vec<Route> {
    let root = if resource.group.is_empty() { "/api" } else { "/apis" };
    let place = if resource.namespaced { format!("namespaces/{namespace}/") } else { String::new() };
    let collection = format!("{root}/{}/{place}{}", resource.api_version(), resource.plural);
    let name = if resource.plural == "namespaces" { namespace } else { "x" };
    let route = |verb: Verb, what: String, path: String| Route {
        label: format!("{} {what}", verb.as_str()),
        method: method(verb),
        path,
        namespaced: resource.namespaced,
    };
    let whole = resource.verbs.iter().map(|verb| {
        let path = match verb {
            Verb::List | Verb::Create | Verb::DeleteCollection => collection.clone(),
            Verb::Watch => format!("{collection}?watch=true"),
            _ => format!("{collection}/{name}"),
        };
        route(verb, resource.qualified(), path)
    });
    let parts = resource.subresources.iter().flat_map(|part| {
        let what = format!("{}/{}", resource.qualified(), part.name);
        let path = format!("{collection}/{name}/{}", part.name);
        part.verbs.iter().map(move |verb| (verb, what.clone(), path.clone()))
    });
    whole.chain(parts.map(|(verb, what, path)| route(verb, what, path))).collect()
}

fn routes(namespace: &str) -> Vec<Route> {
    Registry::builtin().resources().iter().flat_map(|resource| routes_of(resource, namespace)).collect()
}

async fn status(server: &Arc<ApiServer>, caller: &Caller, route: &Route) -> u16 {
    let content_type =
        if route.method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let mut request =
        Request::builder().method(&route.method).uri(&route.path).header("content-type", content_type);
    let network = || Peer::Tls { certs: Vec::new(), addr: ([127, 0, 0, 1], 1).into() };
    let peer = match caller {
        Caller::InProcess(identity) => Peer::InProcess(identity.clone()),
        Caller::Nobody => network(),
        Caller::Token(token) => {
            request = request.header("authorization", format!("Bearer {token}"));
            network()
        }
    };
    // A body that is no object: the request gets far enough to be refused for its sender, and changes nothing.
    let request = request.body(Body::from("junk".to_owned())).expect("a request");
    server.handle(request, peer).await.status().as_u16()
}

async fn create(server: &Arc<ApiServer>, path: &str, object: Value) -> Value {
    let request = Request::post(path).body(Body::from(object.to_string())).expect("a request");
    let root = Peer::InProcess(Identity::new("root", &["system:masters"]));
    let answer = server.handle(request, root).await;
    let code = answer.status();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    assert!(code.is_success(), "{path}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).expect("JSON")
}

/// A tenant administers the namespace `shop`, and nothing else.
async fn prepare(server: &Arc<ApiServer>) -> Reference {
    for namespace in ["shop", "yard"] {
        create(server, "/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await;
    }
    let binding = json!({
        "metadata": {"name": "tenant"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "tina"}],
    });
    let place = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings";
    create(server, place, binding).await;
    let account =
        create(server, "/api/v1/namespaces/shop/serviceaccounts", json!({"metadata": {"name": "robot"}}))
            .await;
    Reference {
        name: "robot".to_owned(),
        uid: account["metadata"]["uid"].as_str().expect("a uid").to_owned(),
    }
}

fn claims(account: &Reference, audience: &str, end: i64) -> Value {
    let now = Timestamp::now().as_second();
    let claims = Claims {
        aud: vec![audience.to_owned()],
        exp: Some(end),
        iat: now - 7200,
        iss: ISSUER.to_owned(),
        jti: "1".to_owned(),
        nbf: now - 7200,
        sub: user_name("shop", "robot"),
        kubernetes: Binding {
            namespace: "shop".to_owned(),
            serviceaccount: account.clone(),
            ..Binding::default()
        },
    };
    serde_json::to_value(claims).expect("JSON")
}

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

struct Cluster {
    server: Arc<ApiServer>,
    account: Reference,
    pki: Arc<Pki>,
    _dirs: [tempfile::TempDir; 2],
    /// Another cluster, of the same name.
    other: Pki,
}

async fn cluster() -> Cluster {
    let dirs = [0, 1].map(|_| tempfile::tempdir().expect("temporary directory"));
    let pki = Arc::new(Pki::load_or_create(dirs[0].path()).expect("authorities"));
    let other = Pki::load_or_create(dirs[1].path()).expect("authorities");
    let config = Config::new(pki.clone());
    let server = ApiServer::start(Arc::new(Model::new()), config).await.expect("the server starts");
    let account = prepare(&server).await;
    Cluster { server, account, pki, _dirs: dirs, other }
}

#[tokio::test]
async fn bad_credentials_open_nothing() {
    let Cluster { server, account, pki, other, _dirs } = cluster().await;
    let now = Timestamp::now().as_second();
    let ours = |claims: Value| pki.account_keys().signing.sign(&claims);
    let good = Caller::Token(ours(claims(&account, ISSUER, now + 3600)));
    let stranger = Reference { uid: "another".to_owned(), ..account.clone() };
    let callers = [
        (
            "another cluster's",
            Caller::Token(other.account_keys().signing.sign(&claims(&account, ISSUER, now + 3600))),
        ),
        ("expired", Caller::Token(ours(claims(&account, ISSUER, now - 3600)))),
        ("for another audience", Caller::Token(ours(claims(&account, "vault", now + 3600)))),
        ("of a deleted account", Caller::Token(ours(claims(&stranger, ISSUER, now + 3600)))),
        ("junk", Caller::Token("junk".to_owned())),
        ("an unknown bootstrap token", Caller::Token("abcdef.0123456789abcdef".to_owned())),
    ];
    let mut all = routes("shop");
    all.extend(OTHER_PATHS.map(|path| Route {
        label: path.to_owned(),
        method: Method::GET,
        path: path.to_owned(),
        namespaced: false,
    }));
    assert!(all.len() > 300, "{} routes", all.len());
    for route in &all {
        for (label, caller) in &callers {
            assert_eq!(status(&server, caller, route).await, 401, "{}: {label}", route.label);
        }
        assert_ne!(status(&server, &good, route).await, 401, "{}: a good token", route.label);
    }
    for route in routes("shop") {
        assert_eq!(status(&server, &Caller::Nobody, &route).await, 403, "{}: anonymous", route.label);
    }
}

#[tokio::test]
async fn everybody_gets_what_is_theirs() {
    let Cluster { server, _dirs, .. } = cluster().await;
    let caller = |user: &str, groups: &[&str]| Caller::InProcess(Identity::new(user, groups));
    let callers = [
        ("nobody", caller("nobody", &[])),
        ("node", caller("system:node:n1", &["system:nodes"])),
        ("tenant", caller("tina", &[])),
    ];
    let mut text = String::new();
    for route in routes("shop") {
        let mut allowed = Vec::new();
        for (label, caller) in &callers {
            if status(&server, caller, &route).await != 403 {
                allowed.push(*label);
            }
        }
        writeln!(text, "{}: {}", route.label, allowed.join(" ")).expect("a String takes everything");
    }
    for path in OTHER_PATHS {
        let route =
            Route { label: path.to_owned(), method: Method::GET, path: path.to_owned(), namespaced: false };
        let anonymous = status(&server, &Caller::Nobody, &route).await != 403;
        let nobody = status(&server, &callers[0].1, &route).await != 403;
        let allowed: Vec<&str> = [(anonymous, "anonymous"), (nobody, "nobody")]
            .iter()
            .filter(|(may, _)| *may)
            .map(|(_, who)| *who)
            .collect();
        writeln!(text, "get {path}: {}", allowed.join(" ")).expect("a String takes everything");
    }
    golden("authorization/routes.txt", &text);
    for route in routes("yard").iter().filter(|route| route.namespaced) {
        let reached = status(&server, &callers[2].1, route).await;
        assert_eq!(reached, 403, "{}: a tenant in another's namespace", route.label);
    }
}

#[tokio::test]
async fn a_token_in_a_secret_ends_with_it() {
    let Cluster { server, account, _dirs, .. } = cluster().await;
    let secrets = "/api/v1/namespaces/shop/secrets";
    let secret = json!({
        "metadata": {"name": "old", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token",
    });
    let made = create(&server, secrets, secret).await;
    assert_eq!(made["metadata"]["annotations"]["kubernetes.io/service-account.uid"], account.uid);
    let field = |name: &str| {
        let bytes = STANDARD.decode(made["data"][name].as_str().expect("text")).expect("base64");
        String::from_utf8(bytes).expect("text")
    };
    assert_eq!(field("namespace"), "shop");
    assert!(field("ca.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    let caller = Caller::Token(field("token"));
    let route = |method: Method, path: &str| Route {
        label: String::new(),
        method,
        path: path.to_owned(),
        namespaced: true,
    };
    let pods = route(Method::GET, "/api/v1/namespaces/shop/pods");
    assert_eq!(status(&server, &caller, &pods).await, 403, "known, and without rights");
    assert!(is_noted(&server, &format!("{secrets}/old")).await, "its use is noted in the Secret");
    for (day, expected) in [(json!("2026-01-01"), 401), (json!(null), 403)] {
        mark(&server, secrets, day).await;
        assert_eq!(status(&server, &caller, &pods).await, expected, "marked as unused, or no longer");
    }
    let root = Peer::InProcess(Identity::new("root", &["system:masters"]));
    let delete = Request::delete(format!("{secrets}/old")).body(Body::empty()).expect("a request");
    assert!(server.handle(delete, root).await.status().is_success());
    // A list waits until the cache knows all that is written.
    let root = Peer::InProcess(Identity::new("root", &["system:masters"]));
    server.handle(Request::get(secrets).body(Body::empty()).expect("a request"), root).await;
    assert_eq!(status(&server, &caller, &pods).await, 401);
}

/// Whether the Secret says, in the end, when its token was used.
async fn is_noted(server: &Arc<ApiServer>, path: &str) -> bool {
    for _ in 0..10_000 {
        let secret = get(server, path).await;
        if secret["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].is_string() {
            return true;
        }
        // Reads of the store in memory never wait, and who notes has to have his turn.
        tokio::task::yield_now().await;
    }
    false
}

/// Writes since when the token of Secret `old` doesn't count.
async fn mark(server: &Arc<ApiServer>, secrets: &str, day: Value) {
    let patch = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": day}}});
    let request = Request::patch(format!("{secrets}/old"))
        .header("content-type", "application/merge-patch+json")
        .body(Body::from(patch.to_string()))
        .expect("a request");
    let root = Peer::InProcess(Identity::new("root", &["system:masters"]));
    assert!(server.handle(request, root).await.status().is_success());
    // A list waits until the cache knows all that is written.
    get(server, secrets).await;
}

fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var_os("UPDATE").is_some_and(|value| !value.is_empty()) {
        std::fs::write(&path, actual).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (expected, actual) in expected.lines().zip(actual.lines()) {
        assert_eq!(actual, expected, "{name} (UPDATE=1 rewrites it)");
    }
    assert_eq!(actual.lines().count(), expected.lines().count(), "{name} (UPDATE=1 rewrites it)");
}

/// Rights that a bootstrap role lost come back when a server starts, what was added stays.
#[tokio::test]
async fn bootstrap_roles_are_given_back_what_they_lost() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pki = Arc::new(Pki::load_or_create(dir.path()).expect("a new authority"));
    let store = Arc::new(Model::new());
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:controller:job-controller";
    let rules = |object: &Value| object["rules"].as_array().map_or(0, Vec::len);
    let before = {
        let server =
            ApiServer::start(store.clone(), Config::new(pki.clone())).await.expect("the server starts");
        let role = get(&server, path).await;
        let own = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
        let patch = json!({"rules": own}).to_string();
        let request = Request::patch(path).header("content-type", "application/merge-patch+json");
        let request = request.body(Body::from(patch)).expect("a request");
        let root = Peer::InProcess(Identity::new("root", &["system:masters"]));
        assert_eq!(server.handle(request, root).await.status(), 200);
        rules(&role)
    };
    let server = ApiServer::start(store, Config::new(pki)).await.expect("it starts again");
    let role = get(&server, path).await;
    assert_eq!(rules(&role), before + 1, "{role}");
    assert_eq!(role["rules"][0]["resources"][0], "secrets");
}

async fn get(server: &Arc<ApiServer>, path: &str) -> Value {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let root = Peer::InProcess(Identity::new("root", &["system:masters"]));
    let answer = server.handle(request, root).await;
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    serde_json::from_slice(&body).expect("JSON")
}
