//! Pulls from Debian's `docker-registry`, started on loopback by each test.

use e2e::registry::{Registry, Setup};
use kubelet::image::registry::{Login, pull};
use kubelet::image::{ImageStore, Reference};

use crate::tars::Tar;

/// The image that was pushed; `suffix`: tag or digest.
pub fn pushed(registry: &Registry, suffix: &str) -> Reference {
    registry.name(suffix).parse().expect("a name")
}

#[tokio::test]
async fn an_image_comes_by_its_tag_and_by_its_digest() {
    if !crate::privileged::is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let registry = Registry::start(dir.path(), Setup::default());
    registry.push(dir.path(), &Tar::new().file("x", 0o755, b"from afar").finish());
    let store = ImageStore::open(&dir.path().join("images")).expect("store");
    let image = pull(&store, &pushed(&registry, ":1"), None).await.expect("pull");
    assert_eq!(image.config.cmd, ["/x"]);
    let file = store.layers().join(&image.layers[0]).join("x");
    assert_eq!(std::fs::read(file).expect("unpacked"), b"from afar");
    let by_digest = image.names.iter().find(|name| name.contains('@')).expect("a name by digest");
    let again = pull(&store, &by_digest.parse().expect("a name"), None).await.expect("pull");
    assert_eq!(again.id, image.id);
    let missing = pull(&store, &pushed(&registry, ":2"), None).await.expect_err("no such tag");
    assert_eq!(missing, format!("{}/team/web:2: not found", registry.address));
}

#[tokio::test]
async fn a_registry_with_a_password_wants_it() {
    if !crate::privileged::is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let registry = Registry::start(dir.path(), Setup::with_password(dir.path()));
    registry.push(dir.path(), &Tar::new().file("x", 0o755, b"private").finish());
    let store = ImageStore::open(&dir.path().join("images")).expect("store");
    let denied = pull(&store, &pushed(&registry, ":1"), None).await.expect_err("no login");
    let name = pushed(&registry, ":1").name();
    assert_eq!(
        denied,
        format!("pull access denied for {name}: no basic auth credentials; set imagePullSecrets")
    );
    let login = |password: &str| Login { user: "me".to_owned(), password: password.to_owned() };
    let wrong = pull(&store, &pushed(&registry, ":1"), Some(&login("guess"))).await.expect_err("wrong");
    assert!(wrong.starts_with(&format!("pull access denied for {name}: 401")), "{wrong}");
    let image = pull(&store, &pushed(&registry, ":1"), Some(&login("secret"))).await.expect("pull");
    assert!(
        store.find(&pushed(&registry, ":1").to_string()).expect("find").is_some_and(|i| i.id == image.id)
    );
}
