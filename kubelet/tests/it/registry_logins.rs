//! Who a registry learns that we are, and who doesn't.

use std::fs;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use e2e::registry::{Registry, Setup};
use kubelet::image::registry::{Login, pull};
use kubelet::image::{Digest, Reference};
use rcgen::{KeyPair, SigningKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::registry::pushed;
use crate::registry_tls::{Authority, authority, certificate, fill, folder, serving, store};
use crate::tars::Tar;
use crate::web::{Answer, Asked, Web};

fn login() -> Login {
    Login { user: "me".to_owned(), password: "secret".to_owned() }
}

/// `me:secret`
const BASIC: &str = "Basic bWU6c2VjcmV0";

fn tls(authority: &Authority) -> rustls::ServerConfig {
    let (chain, key) = certificate(authority, &["127.0.0.1"]);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    builder.with_single_cert(chain, key).expect("a pair")
}

/// A token as `docker-registry` takes it: a JWT by the key of a certificate that it believes.
fn token(issuer: &Authority, key: &KeyPair) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let der = STANDARD.encode(issuer.der());
    let header = part(format!(r#"{{"typ":"JWT","alg":"ES256","x5c":["{der}"]}}"#));
    let access = r#"[{"type":"repository","name":"team/web","actions":["pull"]}]"#;
    let claims = part(format!(
        r#"{{"iss":"tests","sub":"me","aud":"registry","exp":4000000000,"nbf":0,"iat":0,"jti":"1","access":{access}}}"#
    ));
    let said = format!("{header}.{claims}");
    let signature = fixed(&key.sign(said.as_bytes()).expect("signed"));
    format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The two numbers of a signature, one after the other, as a JWT has them.
fn fixed(der: &[u8]) -> Vec<u8> {
    let number = |from: usize| {
        let length = usize::from(der[from + 1]);
        let digits = &der[from + 2..from + 2 + length];
        let digits = digits.strip_prefix(&[0]).unwrap_or(digits);
        let mut padded = vec![0; 32 - digits.len()];
        padded.extend_from_slice(digits);
        (padded, from + 2 + length)
    };
    let (r, next) = number(2);
    [r, number(next).0].concat()
}

#[tokio::test]
async fn a_registry_takes_the_token_of_its_service() {
    if !crate::privileged::is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    fill(dir.path());
    let ours = authority();
    let token = token(&ours, ours.key());
    let service = Web::start(Some(tls(&ours)), |_| {
        move |asked: &Asked| -> Answer {
            match asked.authorization.as_deref() == Some(BASIC) {
                true => (200, Vec::new(), format!(r#"{{"token":"{token}"}}"#).into_bytes()),
                false => (401, Vec::new(), Vec::new()),
            }
        }
    })
    .await;
    fs::write(dir.path().join("issuer.crt"), ours.pem()).expect("write");
    let auth = format!(
        "token: {{realm: 'https://{}/token', service: registry, issuer: tests, rootcertbundle: {}}}",
        service.address,
        dir.path().join("issuer.crt").display()
    );
    let tls = serving(dir.path(), certificate(&ours, &["127.0.0.1"]));
    let setup = Setup { auth: Some(auth), tls: Some(format!("{{{tls}}}")), ..Setup::default() };
    let registry = Registry::start(dir.path(), setup);
    let store = store(dir.path());
    fs::write(folder(&store, &registry.address).join("ca.crt"), ours.pem()).expect("write");

    let denied = pull(&store, &pushed(&registry, ":1"), None).await.expect_err("no login");
    assert!(denied.ends_with("the token service answered 401; set imagePullSecrets"), "{denied}");
    pull(&store, &pushed(&registry, ":1"), Some(&login())).await.expect("pull");
    let asked = service.asked();
    let path = "/token?service=registry&scope=repository%3Ateam%2Fweb%3Apull";
    let want =
        [None, Some(BASIC)].map(|who| Asked { path: path.to_owned(), authorization: who.map(str::to_owned) });
    assert_eq!(asked, want, "once each");
}

/// A registry that keeps its blobs somewhere else, and wants a password.
async fn scattered(blobs: &str, layer: &[u8]) -> Web {
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::of(layer)
    );
    let described = |bytes: &[u8]| format!(r#"{{"digest":"{}","size":{}}}"#, Digest::of(bytes), bytes.len());
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        described(config.as_bytes()),
        described(layer)
    );
    let (elsewhere, layer) = (blobs.to_owned(), Digest::of(layer).to_string());
    Web::start(None, |_| {
        move |asked: &Asked| -> Answer {
            if asked.authorization.as_deref() != Some(BASIC) {
                return (401, vec![("WWW-Authenticate", "Basic realm=\"r\"".to_owned())], Vec::new());
            }
            match asked.path.rsplit('/').next().unwrap_or_default() {
                "1" => (200, Vec::new(), manifest.clone().into_bytes()),
                digest if digest == layer => {
                    (307, vec![("Location", format!("http://{elsewhere}/{digest}?sign=x"))], Vec::new())
                }
                _ => (200, Vec::new(), config.clone().into_bytes()),
            }
        }
    })
    .await
}

#[tokio::test]
async fn who_keeps_the_blobs_learns_nothing_of_us() {
    let dir = tempfile::tempdir().expect("tempdir");
    let layer = Tar::new().finish();
    let body = layer.clone();
    let blobs = Web::start(None, |_| move |_: &Asked| -> Answer { (200, Vec::new(), body.clone()) }).await;
    let registry = scattered(&blobs.address, &layer).await;
    let reference: Reference = format!("{}/a:1", registry.address).parse().expect("a name");
    pull(&store(dir.path()), &reference, Some(&login())).await.expect("pull");
    let path = format!("/{}?sign=x", Digest::of(&layer));
    assert_eq!(blobs.asked(), [Asked { path, authorization: None }]);
}

#[tokio::test]
async fn who_keeps_the_blobs_may_not_ask_who_we_are() {
    let dir = tempfile::tempdir().expect("tempdir");
    let layer = Tar::new().finish();
    let curious = Web::start(None, |address| {
        let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"s\",scope=\"x\"");
        move |_: &Asked| -> Answer { (401, vec![("WWW-Authenticate", challenge.clone())], Vec::new()) }
    })
    .await;
    let registry = scattered(&curious.address, &layer).await;
    let reference: Reference = format!("{}/a:1", registry.address).parse().expect("a name");
    let error = pull(&store(dir.path()), &reference, Some(&login())).await.expect_err("no blob");
    assert!(error.starts_with(&format!("pull access denied for {}/a: 401", registry.address)), "{error}");
    let asked = curious.asked();
    assert!(asked.len() == 1 && asked[0].authorization.is_none(), "{asked:?}");
}
