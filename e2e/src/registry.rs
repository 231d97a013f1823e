//! Debian's `docker-registry` on loopback, for a test of its own; `.ci/setup` installs it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A line for the user `me` with the password `secret`.
pub const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A registry with a directory of its own; gone with the test.
pub struct Registry {
    process: Child,
    /// Host and port.
    pub address: String,
    login: Vec<String>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How a registry differs from one that everybody may use without TLS.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Of its configuration, such as `htpasswd: {…}`.
    pub auth: Option<String>,
    /// Of its configuration: `{certificate: FILE, key: FILE}`.
    pub tls: Option<String>,
    /// With which arguments curl gets in.
    pub login: Vec<String>,
}

impl Setup {
    /// Wants a password of everybody; `me` gets in.
    pub fn with_password(dir: &Path) -> Self {
        let file = dir.join("htpasswd");
        fs::write(&file, HTPASSWD).expect("write");
        let auth = format!("htpasswd: {{realm: test, path: {}}}", file.display());
        Self { auth: Some(auth), tls: None, login: vec!["-u".to_owned(), "me:secret".to_owned()] }
    }
}

impl Registry {
    /// A registry that keeps what it has in the directory, so that the next one there has it, too.
    pub fn start(dir: &Path, setup: Setup) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let address = format!("127.0.0.1:{port}");
        let tls = setup.tls.as_ref().map(|tls| format!(", tls: {tls}")).unwrap_or_default();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'{tls}}}\n",
            dir.join("registry").display()
        );
        config += &setup.auth.map(|auth| format!("auth: {{{auth}}}\n")).unwrap_or_default();
        fs::write(dir.join("config.yml"), config).expect("write");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let scheme = if setup.tls.is_some() { "https" } else { "http" };
        let door = format!("{scheme}://{address}/v2/");
        let registry = Self { process, address, login: setup.login };
        // The registry answers as soon as it listens; curl knocks until then.
        registry.curl(&["-k", "--retry", "100", "--retry-connrefused", "--retry-delay", "0", &door]);
        registry
    }

    /// The whole name of the image that is pushed; `suffix`: tag or digest.
    pub fn name(&self, suffix: &str) -> String {
        format!("{}/team/web{suffix}", self.address)
    }

    /// An image of one layer, as tag `1`. The registry speaks no TLS.
    pub fn push(&self, dir: &Path, layer: &[u8]) {
        let (layer, id) = self.blob(dir, layer);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/x"]}},"rootfs":{{"type":"layers","diff_ids":["{id}"]}}}}"#
        );
        let (config, _) = self.blob(dir, config.as_bytes());
        let kind = "application/vnd.oci.image";
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{kind}.manifest.v1+json","config":{{"mediaType":"{kind}.config.v1+json",{config}}},"layers":[{{"mediaType":"{kind}.layer.v1.tar",{layer}}}]}}"#
        );
        let header = format!("Content-Type: {kind}.manifest.v1+json");
        self.curl(&["-f", "-X", "PUT", "-H", &header, "-d", &manifest, &self.url("team/web/manifests/1")]);
    }

    /// Uploads contents as clients do: asks for a place, and puts them there. How a manifest describes them, and their
    /// digest.
    fn blob(&self, dir: &Path, bytes: &[u8]) -> (String, String) {
        let file = dir.join("blob");
        fs::write(&file, bytes).expect("write");
        let digest = format!("sha256:{}", sha256(&file));
        let head = self.curl(&["-i", "-X", "POST", &self.url("team/web/blobs/uploads/")]);
        let place = head.lines().find_map(|line| line.strip_prefix("Location: ")).expect("a place");
        let place = format!("{}&digest={digest}", place.trim());
        let data = format!("@{}", file.display());
        let kind = "Content-Type: application/octet-stream";
        self.curl(&["-f", "-X", "PUT", "-H", kind, "--data-binary", &data, &place]);
        (format!("\"digest\":\"{digest}\",\"size\":{}", bytes.len()), digest)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.address)
    }

    fn curl(&self, arguments: &[&str]) -> String {
        let done = Command::new("curl").arg("-sS").args(&self.login).args(arguments).output().expect("curl");
        assert!(done.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

fn sha256(file: &Path) -> String {
    let done = Command::new("sha256sum").arg(file).output().expect("sha256sum");
    String::from_utf8_lossy(&done.stdout).split(' ').next().expect("a digest").to_owned()
}
