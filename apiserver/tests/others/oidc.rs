//! A provider of identities that is asked for its keys: over TLS, when a token needs them, and again when it has
//! new ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apiserver::auth::jwt::SigningKey;
use apiserver::auth::oidc::{KeySource, Oidc, OidcPolicy};
use apiserver::pki::Pki;
use apiserver::{ApiServer, Body, Config, Peer};
use http::Request;
use parking_lot::Mutex;
use serde_json::{Value, json};
use store::model::Model;

use crate::cluster::{Somebody, answered, until};

/// What the provider publishes now.
#[derive(Clone, Default)]
struct Published {
    issuer: Arc<Mutex<String>>,
    keys: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Published {
    fn answer(&self, path: &str) -> (u16, Value) {
        let issuer = self.issuer.lock().clone();
        match path {
            "/.well-known/openid-configuration" => {
                (200, json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}))
            }
            "/keys" => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                (200, json!({"keys": *self.keys.lock()}))
            }
            _ => (404, Value::Null),
        }
    }
}

struct World {
    server: Arc<ApiServer>,
    published: Published,
    issuer: String,
    _provider: Somebody,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start(key: &SigningKey) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pki = Arc::new(Pki::load_or_create(dir.path()).expect("authorities"));
        let serving = pki.issue_server(&[], &["127.0.0.1".parse().expect("an address")]).expect("issued");
        let published = Published::default();
        published.keys.lock().push(key.public.to_jwk());
        let told = published.clone();
        let tls = pki.server_tls_config(&serving).expect("a TLS configuration");
        let provider = Somebody::over_tls(tls, move |head, _| told.answer(head.uri.path())).await;
        let issuer = format!("https://{}", provider.at);
        published.issuer.lock().clone_from(&issuer);
        let mut config = Config::new(pki);
        let policy = OidcPolicy {
            issuer: issuer.clone(),
            client_id: "cluster".to_owned(),
            username_claim: "sub".to_owned(),
            username_prefix: "id:".to_owned(),
            groups_claim: None,
            groups_prefix: String::new(),
            keys: KeySource::Issuer(Some(dir.path().join("ca.crt"))),
        };
        config.provider = Some(Arc::new(Oidc::load(policy).expect("an authority")));
        let server = ApiServer::start(Arc::new(Model::default()), config).await.expect("the server starts");
        Self { server, published, issuer, _provider: provider, _dir: dir }
    }

    /// Who somebody with a token of this key is to the server.
    async fn who(&self, key: &SigningKey) -> String {
        let claims = json!({"iss": self.issuer, "aud": "cluster", "exp": 4_000_000_000_u64, "sub": "jane"});
        let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("authorization", format!("Bearer {}", key.sign(&claims)))
            .body(Body::from("{}"));
        let peer = Peer::Tls { certs: Vec::new(), addr: ([127, 0, 0, 1], 1).into() };
        let answer = answered(self.server.handle(request.expect("a request"), peer).await).await;
        let user = answer.body["status"]["userInfo"]["username"].as_str().unwrap_or_default();
        format!("{} {user}", answer.code)
    }
}

fn key() -> SigningKey {
    SigningKey::from_pkcs8(&rcgen::KeyPair::generate().expect("a key").serialize_der()).expect("P-256")
}

#[tokio::test]
async fn keys_are_asked_for_when_a_token_names_one() {
    let (first, second) = (key(), key());
    let world = World::start(&first).await;
    let asked = || world.published.asked.load(Ordering::SeqCst);
    assert_eq!(asked(), 0, "nobody is asked before there is a token");
    assert_eq!(world.who(&first).await, "201 id:jane");
    assert_eq!(world.who(&first).await, "201 id:jane");
    assert_eq!(asked(), 1, "what is known isn't asked for again");
    assert_eq!(world.who(&second).await, "401 ");
    *world.published.keys.lock() = vec![second.public.to_jwk()];
    until("the new key", || async { (world.who(&second).await == "201 id:jane").then_some(()) }).await;
    assert_eq!(world.who(&first).await, "401 ", "a key that isn't published any more is none");
}

#[tokio::test]
async fn another_provider_isnt_believed() {
    let own = key();
    let world = World::start(&own).await;
    "https://elsewhere.example".clone_into(&mut world.published.issuer.lock());
    assert_eq!(world.who(&own).await, "401 ");
    assert_eq!(world.published.asked.load(Ordering::SeqCst), 0, "its keys aren't even asked for");
}
