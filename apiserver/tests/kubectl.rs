//! An unmodified kubectl against the server over TLS, in `testdata/kubectl/`.
//!
//! A file is one server over an empty in-memory store. Blocks are separated by blank lines: a command line,
//! what it reads from standard input, and behind `----` what it prints (standard error with `! ` in front)
//! and its exit code unless that is 0. `UPDATE=1` rewrites the answers. They are those of kubectl 1.32, whose
//! texts differ from other versions': without it on PATH the test says so and proves nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use apiserver::pki::{MASTERS_GROUP, Pki};
use apiserver::{ApiServer, Config, Identity};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use store::model::Model;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A server on loopback, and kubectl's home directory with a kubeconfig for each user of the scripts.
struct Cluster {
    home: tempfile::TempDir,
    address: String,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Cluster {
    async fn start() -> Self {
        let home = tempfile::tempdir().expect("temporary directory");
        let pki = Arc::new(Pki::load_or_create(&home.path().join("pki")).expect("authorities"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address").to_string();
        let mut config = Config::new(pki.clone());
        config.static_tokens.insert("jane-token", Identity::new("jane", &["dev"]));
        let server = ApiServer::start(Arc::new(Model::default()), config).await.expect("start");
        let serving = pki.issue_server(&["localhost".to_owned()], &["127.0.0.1".parse().expect("address")]);
        let tls = pki.server_tls_config(&serving.expect("issue")).expect("TLS configuration");
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(async move { server.serve(listener, tls, stopped).await.expect("serve") });
        let cluster = Self { home, address, stop, serving };
        let admin = pki.issue_client("admin", &[MASTERS_GROUP]).expect("issue");
        let admin = format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            BASE64.encode(admin.certificate_pem),
            BASE64.encode(admin.key_pem)
        );
        cluster.write_kubeconfig("admin", &pki, &admin);
        cluster.write_kubeconfig("jane", &pki, "token: jane-token");
        cluster.write_kubeconfig("stranger", &pki, "token: unknown");
        cluster
    }

    fn write_kubeconfig(&self, user: &str, pki: &Pki, credentials: &str) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters:\n- name: c\n  cluster:\n    server: https://{}\n    certificate-authority-data: {}\n\
             contexts:\n- name: c\n  context: {{cluster: c, user: u}}\n\
             users:\n- name: u\n  user:\n    {credentials}\n",
            self.address,
            BASE64.encode(pki.ca_pem()),
        );
        fs::write(self.home.path().join(user), text).expect("write the kubeconfig");
    }

    /// Runs `USER$ ARGUMENTS` (`$ ARGUMENTS` is the admin's) with `input`.
    async fn run(&self, line: &str, input: &str) -> String {
        let (user, arguments) = line.split_once("$ ").unwrap_or_else(|| panic!("{line:?} is no command"));
        let user = if user.is_empty() { "admin" } else { user };
        let mut kubectl = Command::new("kubectl")
            .args(arguments.split_whitespace())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join(user))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("kubectl starts");
        let mut stdin = kubectl.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).await.expect("kubectl reads its input");
        drop(stdin);
        let deadline = std::time::Duration::from_secs(60);
        let output = tokio::time::timeout(deadline, kubectl.wait_with_output()).await;
        self.show(
            &output.unwrap_or_else(|_| panic!("{line} ends within {deadline:?}")).expect("kubectl ends"),
        )
    }

    fn show(&self, output: &Output) -> String {
        let mut lines: Vec<String> = text(&output.stdout).lines().map(|line| self.normal(line)).collect();
        lines.extend(text(&output.stderr).lines().map(|line| format!("! {}", self.normal(line))));
        if !output.status.success() {
            lines.push(format!("exit code {}", output.status.code().unwrap_or(-1)));
        }
        lines.retain(|line| !line.trim().is_empty());
        lines.join("\n")
    }

    /// What differs from run to run is replaced, and columns are separated by two spaces.
    fn normal(&self, line: &str) -> String {
        let indent = line.len() - line.trim_start().len();
        let line = line.replace(&self.address, "SERVER");
        let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        let cells: Vec<String> =
            cells.map(|cell| cell.split(' ').map(normal_word).collect::<Vec<_>>().join(" ")).collect();
        format!("{}{}", " ".repeat(indent), cells.join("  "))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn normal_word(word: &str) -> String {
    let core = word.trim_matches(|c: char| matches!(c, '"' | ',' | '\''));
    let is_age = core
        .strip_suffix(['s', 'm'])
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    let is_time = core.len() == 20 && core.ends_with('Z') && core.as_bytes()[10] == b'T';
    let is_uid = core.len() == 36 && core.bytes().filter(|b| *b == b'-').count() == 4;
    match (is_age, is_time, is_uid) {
        (true, ..) => word.replace(core, "AGE"),
        (_, true, _) => word.replace(core, "TIME"),
        (.., true) => word.replace(core, "UID"),
        _ => word.to_owned(),
    }
}

async fn transcript(script: &str) -> String {
    let cluster = Cluster::start().await;
    let mut transcript = String::new();
    for block in script.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let asked = block.split("\n----").next().unwrap_or_default().trim_matches('\n');
        transcript.push_str(asked);
        if !asked.starts_with('#') {
            let (line, input) = asked.split_once('\n').unwrap_or((asked, ""));
            transcript.push_str(&format!("\n----\n{}", cluster.run(line, input).await));
        }
        transcript.push_str("\n\n");
    }
    cluster.stop.send_replace(true);
    cluster.serving.await.expect("the server ends");
    format!("{}\n", transcript.trim_end())
}

fn scripts() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/kubectl");
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("directory entry").path()).collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_gets_what_it_expects() {
    let version = std::process::Command::new("kubectl").args(["version", "--client"]).output();
    if !version.is_ok_and(|version| text(&version.stdout).contains("Client Version: v1.32.")) {
        eprintln!("SKIPPED: kubectl 1.32 is not on PATH, so nothing was proven about it");
        return;
    }
    for file in scripts() {
        let expected = fs::read_to_string(&file).expect("read the script");
        let actual = transcript(&expected).await;
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, &actual).expect("write the script");
            continue;
        }
        assert!(
            expected == actual,
            "{} differs (UPDATE=1 rewrites it)\n--- expected\n{expected}\n--- actual\n{actual}",
            file.display()
        );
    }
}
