//! Pulls from Debian's `docker-registry`, started on loopback by each test; `.ci/setup` installs it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kubelet::image::registry::{Login, pull};
use kubelet::image::{Digest, ImageStore, Reference};

use crate::tars::Tar;

/// A registry with a directory of its own; gone with the test.
struct Registry {
    process: Child,
    address: String,
    login: Vec<String>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// With a password if `htpasswd` is the text of such a file.
fn registry(dir: &Path, htpasswd: Option<&str>) -> Registry {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let address = format!("127.0.0.1:{port}");
    let mut config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {address}}}\n",
        dir.join("registry").display()
    );
    if let Some(text) = htpasswd {
        std::fs::write(dir.join("htpasswd"), text).expect("write");
        config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", dir.join("htpasswd").display());
    }
    std::fs::write(dir.join("config.yml"), config).expect("write");
    let process = Command::new("docker-registry")
        .arg("serve")
        .arg(dir.join("config.yml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker-registry is installed");
    let login = htpasswd.map(|_| vec!["-u".to_owned(), "me:secret".to_owned()]).unwrap_or_default();
    let registry = Registry { process, address, login };
    // The registry answers as soon as it listens; curl knocks until then.
    registry.curl(&["--retry", "100", "--retry-connrefused", "--retry-delay", "0", &registry.url("")]);
    registry
}

impl Registry {
    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.address)
    }

    fn curl(&self, arguments: &[&str]) -> String {
        let done = Command::new("curl").arg("-sS").args(&self.login).args(arguments).output().expect("curl");
        assert!(done.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Uploads contents as clients do: asks for a place, and puts them there.
    fn blob(&self, dir: &Path, bytes: &[u8]) -> String {
        let file = dir.join("blob");
        std::fs::write(&file, bytes).expect("write");
        let head = self.curl(&["-i", "-X", "POST", &self.url("team/web/blobs/uploads/")]);
        let place =
            head.lines().find_map(|line| line.strip_prefix("Location: ")).expect("a place").trim().to_owned();
        let digest = Digest::of(bytes).to_string();
        let data = format!("@{}", file.display());
        let kind = "Content-Type: application/octet-stream";
        self.curl(&[
            "-f",
            "-X",
            "PUT",
            "-H",
            kind,
            "--data-binary",
            &data,
            &format!("{place}&digest={digest}"),
        ]);
        format!("\"digest\":\"{digest}\",\"size\":{}", bytes.len())
    }

    /// An image of one layer, as tag `1`.
    fn push(&self, dir: &Path, layer: &[u8]) {
        let ids = Digest::of(layer);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/x"]}},"rootfs":{{"type":"layers","diff_ids":["{ids}"]}}}}"#
        );
        let kind = "application/vnd.oci.image";
        let (config, layer) = (self.blob(dir, config.as_bytes()), self.blob(dir, layer));
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{kind}.manifest.v1+json","config":{{"mediaType":"{kind}.config.v1+json",{config}}},"layers":[{{"mediaType":"{kind}.layer.v1.tar",{layer}}}]}}"#
        );
        let header = format!("Content-Type: {kind}.manifest.v1+json");
        self.curl(&["-f", "-X", "PUT", "-H", &header, "-d", &manifest, &self.url("team/web/manifests/1")]);
    }

    fn reference(&self, tag: &str) -> Reference {
        format!("{}/team/web{tag}", self.address).parse().expect("a name")
    }
}

#[tokio::test]
async fn an_image_comes_by_its_tag_and_by_its_digest() {
    if !crate::privileged::is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let registry = registry(dir.path(), None);
    registry.push(dir.path(), &Tar::new().file("x", 0o755, b"from afar").finish());
    let store = ImageStore::open(&dir.path().join("images")).expect("store");
    let image = pull(&store, &registry.reference(":1"), None).await.expect("pull");
    assert_eq!(image.config.cmd, ["/x"]);
    let file = store.layers().join(&image.layers[0]).join("x");
    assert_eq!(std::fs::read(file).expect("unpacked"), b"from afar");
    let by_digest = image.names.iter().find(|name| name.contains('@')).expect("a name by digest");
    let again = pull(&store, &by_digest.parse().expect("a name"), None).await.expect("pull");
    assert_eq!(again.id, image.id);
    let missing = pull(&store, &registry.reference(":2"), None).await.expect_err("no such tag");
    assert_eq!(missing, format!("{}/team/web:2: not found", registry.address));
}

#[tokio::test]
async fn a_registry_with_a_password_wants_it() {
    if !crate::privileged::is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    // The bcrypt of "secret".
    let htpasswd = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    let registry = registry(dir.path(), Some(htpasswd));
    registry.push(dir.path(), &Tar::new().file("x", 0o755, b"private").finish());
    let store = ImageStore::open(&dir.path().join("images")).expect("store");
    let denied = pull(&store, &registry.reference(":1"), None).await.expect_err("no login");
    let name = registry.reference(":1").name();
    assert_eq!(
        denied,
        format!("pull access denied for {name}: no basic auth credentials; set imagePullSecrets")
    );
    let login = |password: &str| Login { user: "me".to_owned(), password: password.to_owned() };
    let wrong = pull(&store, &registry.reference(":1"), Some(&login("guess"))).await.expect_err("wrong");
    assert!(wrong.starts_with(&format!("pull access denied for {name}: 401")), "{wrong}");
    let image = pull(&store, &registry.reference(":1"), Some(&login("secret"))).await.expect("pull");
    assert!(
        store.find(&registry.reference(":1").to_string()).expect("find").is_some_and(|i| i.id == image.id)
    );
}
