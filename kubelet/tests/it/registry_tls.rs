//! Registries over TLS: Debian's `docker-registry` with authorities of the test's own.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::registry::{Registry, Setup};
use kubelet::image::registry::{Login, pull};
use kubelet::image::{ImageStore, Reference};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::registry::pushed;
use crate::tars::Tar;

/// What signs certificates.
pub type Authority = CertifiedIssuer<'static, KeyPair>;

/// That of a test.
pub fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// A certificate for these names and its key.
pub fn certificate(authority: &Authority, names: &[&str]) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = CertificateParams::new(names).expect("names");
    (params.signed_by(&key, authority).expect("signed").pem(), key.serialize_pem())
}

/// Writes a certificate and its key; the registry's configuration that names them.
pub fn serving(dir: &Path, (certificate, key): (String, String)) -> String {
    let place = |name: &str, text: String| -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, text).expect("write");
        path
    };
    let (certificate, key) = (place("server.crt", certificate), place("server.key", key));
    format!("certificate: {}, key: {}", certificate.display(), key.display())
}

/// Fills a registry's directory with the image `team/web:1`.
pub fn fill(dir: &Path) {
    Registry::start(dir, Setup::default()).push(dir, &Tar::new().file("x", 0o755, b"encrypted").finish());
}

pub fn store(dir: &Path) -> ImageStore {
    ImageStore::open(&dir.join("images")).expect("store")
}

/// Where it is said how a registry is known.
pub fn folder(store: &ImageStore, address: &str) -> PathBuf {
    let folder = store.certificates().join(address);
    fs::create_dir_all(&folder).expect("mkdir");
    folder
}

/// By a name that isn't loopback's, and leads there all the same.
fn elsewhere(registry: &Registry) -> (String, Reference) {
    let address = registry.address.replace("127.0.0.1", "0.0.0.0");
    let reference = format!("{address}/team/web:1").parse().expect("a name");
    (address, reference)
}

#[tokio::test]
async fn who_vouches_for_a_registry_is_said_in_its_folder() {
    if !crate::privileged::is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    fill(dir.path());
    let ours = authority();
    let tls = serving(dir.path(), certificate(&ours, &["127.0.0.1", "0.0.0.0"]));
    let registry = Registry::start(
        dir.path(),
        Setup { tls: Some(format!("{{{tls}}}")), ..Setup::with_password(dir.path()) },
    );
    let (address, reference) = elsewhere(&registry);
    let store = store(dir.path());
    let login = Login { user: "me".to_owned(), password: "secret".to_owned() };

    let strange = pull(&store, &reference, Some(&login)).await.expect_err("nobody vouches for it");
    let ca = store.certificates().join(&address).join("ca.crt");
    let want = format!(
        "https://{address}: tls: failed to verify certificate: x509: certificate signed by unknown authority: \
         put the authority's certificate into {}",
        ca.display()
    );
    assert_eq!(strange, want);
    folder(&store, &address);
    fs::write(&ca, authority().pem()).expect("write");
    assert_eq!(pull(&store, &reference, Some(&login)).await.expect_err("another's word"), want);
    fs::write(&ca, ours.pem()).expect("write");
    let denied = pull(&store, &reference, None).await.expect_err("no login");
    assert!(denied.ends_with("no basic auth credentials; set imagePullSecrets"), "{denied}");
    let image = pull(&store, &reference, Some(&login)).await.expect("pull");
    let file = store.layers().join(&image.layers[0]).join("x");
    assert_eq!(fs::read(file).expect("unpacked"), b"encrypted");

    // On loopback nobody is asked for TLS who has no folder.
    let here = pushed(&registry, ":1");
    let plain = pull(&store, &here, Some(&login)).await.expect_err("TLS is spoken there");
    assert!(plain.contains("unexpected status 400"), "{plain}");
    fs::write(folder(&store, &registry.address).join("any-name.crt"), ours.pem()).expect("write");
    assert_eq!(pull(&store, &here, Some(&login)).await.expect("pull").id, image.id);
}

#[tokio::test]
async fn a_registry_may_have_signed_itself() {
    if !crate::privileged::is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    fill(dir.path());
    // As Docker's guide has `openssl req -x509` make it: an authority's, which the server shows itself.
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).expect("a certificate");
    let tls = serving(dir.path(), (own.pem(), key.serialize_pem()));
    let registry = Registry::start(dir.path(), Setup { tls: Some(format!("{{{tls}}}")), ..Setup::default() });
    let store = store(dir.path());
    fs::write(folder(&store, &registry.address).join("ca.crt"), own.pem()).expect("write");
    pull(&store, &pushed(&registry, ":1"), None).await.expect("pull");
    let (address, elsewhere) = elsewhere(&registry);
    fs::write(folder(&store, &address).join("ca.crt"), own.pem()).expect("write");
    let error = pull(&store, &elsewhere, None).await.expect_err("another name");
    assert!(error.ends_with("x509: certificate is not valid for 0.0.0.0"), "{error}");
}

#[tokio::test]
async fn a_registry_may_want_to_see_a_certificate() {
    if !crate::privileged::is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    fill(dir.path());
    let ours = authority();
    let tls = serving(dir.path(), certificate(&ours, &["127.0.0.1"]));
    fs::write(dir.path().join("clients.crt"), ours.pem()).expect("write");
    let (mine, key) = certificate(&ours, &["me"]);
    fs::write(dir.path().join("me.pem"), format!("{mine}{key}")).expect("write");
    let clients = format!("{{{tls}, clientcas: [{}]}}", dir.path().join("clients.crt").display());
    let knock = ["--cert".to_owned(), dir.path().join("me.pem").display().to_string()];
    let registry =
        Registry::start(dir.path(), Setup { tls: Some(clients), login: knock.to_vec(), ..Setup::default() });
    let store = store(dir.path());
    let folder = folder(&store, &registry.address);
    fs::write(folder.join("ca.crt"), ours.pem()).expect("write");
    let error = pull(&store, &pushed(&registry, ":1"), None).await.expect_err("nothing to show");
    assert!(error.contains("received fatal alert"), "{error}");
    fs::write(folder.join("me.cert"), mine).expect("write");
    fs::write(folder.join("me.key"), key).expect("write");
    pull(&store, &pushed(&registry, ":1"), None).await.expect("pull");
}
