//! A real cluster for end-to-end tests: the built binary, its processes, and real kubectl.
//!
//! A [`Cluster`] owns a temporary data directory and everything that was started on it; when it is dropped,
//! no process of it is left, whatever the test did. Waiting is always for a condition with a deadline.

pub mod api;
pub mod containerd;
pub mod image;
pub mod machines;
pub mod script;
pub mod standalone;
pub mod store;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long a cluster may take to do what takes it about a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until `probe` gives a value.
///
/// # Panics
/// With `what` when the deadline passes.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        pause(Duration::from_millis(50));
    }
}

/// Does nothing for a while: between two looks, or as long as a fault is to last.
#[expect(
    clippy::disallowed_methods,
    reason = "between two looks at processes that can't tell us when to look"
)]
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// The binary under test: `$AMOEBA`, or the one that cargo built beside this test.
pub fn amoeba_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("AMOEBA") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test has a path");
    let beside = test.ancestors().nth(2).expect("target/debug/deps/TEST").join("amoeba");
    assert!(beside.exists(), "build the binary first (`make test` does): {} is missing", beside.display());
    beside
}

/// The kubectl binaries to test with: `$KUBECTL` and, if there is another, the one on the PATH.
pub fn kubectls() -> Vec<PathBuf> {
    let named = std::env::var_os("KUBECTL").map(PathBuf::from).filter(|path| path.exists());
    let on_path = std::env::var_os("PATH").and_then(|paths| {
        std::env::split_paths(&paths).map(|folder| folder.join("kubectl")).find(|path| path.exists())
    });
    let found: Vec<_> = named.into_iter().chain(on_path).collect();
    assert!(!found.is_empty(), "no kubectl: run `make test`, which brings one, or set KUBECTL");
    found
}

/// The helm to test with, if there is one: what `HELM` says, or the one on the path.
pub fn helm() -> Option<PathBuf> {
    let named = std::env::var_os("HELM").map(PathBuf::from).filter(|path| path.exists());
    named.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("helm")).find(|helm| helm.exists())
    })
}

/// The checkout that the test runs in. Asked at run time: two checkouts that share a target directory may share
/// what was compiled, with the path of the other baked in.
pub fn checkout() -> PathBuf {
    let crate_dir = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the crate is");
    Path::new(&crate_dir).parent().expect("the crate lies in the checkout").to_owned()
}

/// A file in `manifests/`.
pub fn manifest(name: &str) -> String {
    let path = checkout().join("manifests").join(name);
    path.to_str().expect("UTF-8 path").to_owned()
}

/// What a command printed, and whether it succeeded.
#[derive(Debug)]
pub struct Ran {
    /// Exit code 0.
    pub ok: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Processes of `amoeba up` on a data directory of their own.
pub struct Cluster {
    dir: TempDir,
    supervisor: Option<Child>,
    port: u16,
    shape: [String; 2],
    flags: Vec<String>,
    kubectl: PathBuf,
}

impl Cluster {
    /// Starts a cluster and waits until all its nodes are Ready.
    pub fn up(members: usize, nodes: usize) -> Self {
        Self::up_with(members, nodes, &[])
    }

    /// The same with further flags of `amoeba up`.
    pub fn up_with(members: usize, nodes: usize, flags: &[&str]) -> Self {
        let mut cluster = Self {
            dir: tempfile::Builder::new().prefix("amoeba-e2e-").tempdir().expect("a temporary directory"),
            supervisor: None,
            port: free_port(),
            shape: [members.to_string(), nodes.to_string()],
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            kubectl: kubectls().remove(0),
        };
        cluster.start();
        cluster
    }

    /// Starts the cluster (again) on its data directory and waits until all its nodes are Ready.
    pub fn start(&mut self) {
        let [members, nodes] = &self.shape;
        let mut child = Command::new(amoeba_binary())
            .args(["up", "--members", members, "--nodes", nodes, "--port", &self.port.to_string()])
            .args(self.network())
            .args(&self.flags)
            .arg("--data-dir")
            .arg(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("amoeba up starts");
        let lines = lines_of(child.stdout.take().expect("stdout is piped"));
        self.supervisor = Some(child);
        wait_for_line(&lines, "Ready");
    }

    /// Clusters of one machine share its pods' addresses: only a test that has a machine of its own asks for them.
    fn network(&self) -> &[&str] {
        let asked = self.flags.iter().any(|flag| flag == "--pod-network");
        if asked { &[] } else { &["--pod-network", "host"] }
    }

    /// The data directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The API server's port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Uses this kubectl from now on.
    pub fn use_kubectl(&mut self, path: &Path) {
        self.kubectl = path.to_owned();
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path().join("admin.kubeconfig")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // A home of its own, so that kubectl's discovery cache doesn't leak between clusters.
        command.env("KUBECONFIG", self.kubeconfig()).env("AMOEBA_DATA_DIR", self.path());
        command.env("HOME", self.path()).stdin(Stdio::null());
        command
    }

    /// A kubectl that is yet to be run.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.kubectl);
        command.args(arguments);
        command
    }

    /// Runs kubectl.
    pub fn kubectl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        self.command(&self.kubectl).args(args).output().expect("kubectl runs").into()
    }

    /// Runs kubectl, which must succeed; the arguments are split at spaces. Returns its output.
    pub fn k(&self, line: &str) -> String {
        let ran = self.kubectl(line.split(' '));
        assert!(ran.ok, "kubectl {line}\n{}{}", ran.out, ran.err);
        ran.out
    }

    /// Runs kubectl, which must fail; returns what it said on standard error.
    pub fn k_fails(&self, line: &str) -> String {
        let ran = self.kubectl(line.split(' '));
        assert!(!ran.ok, "kubectl {line} should have failed\n{}", ran.out);
        ran.err
    }

    /// Runs kubectl in the background; the receiver gets its lines of output.
    pub fn follow(&self, line: &str) -> (Background, mpsc::Receiver<String>) {
        let mut child = self
            .command(&self.kubectl)
            .args(line.split(' '))
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let lines = lines_of(child.stdout.take().expect("stdout is piped"));
        (Background(child), lines)
    }

    /// Runs our own command.
    pub fn amoeba<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        self.command(&amoeba_binary()).args(args).output().expect("amoeba runs").into()
    }

    /// Runs our own command, which must succeed; the arguments are split at spaces. Returns its output.
    pub fn a(&self, line: &str) -> String {
        let ran = self.amoeba(line.split(' '));
        assert!(ran.ok, "amoeba {line}\n{}{}", ran.out, ran.err);
        ran.out
    }

    /// The objects that kubectl gets, as JSON items.
    pub fn items(&self, what: &str) -> Vec<Value> {
        let list: Value = serde_json::from_str(&self.k(&format!("get {what} -o json"))).expect("JSON");
        match list["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![list],
        }
    }

    /// Waits until exactly `count` pods with this selector are Running and Ready, and returns them.
    pub fn ready_pods(&self, selector: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} ready pods of {selector}"), || {
            let pods = self.items(&format!("pods -l {selector}"));
            (pods.len() == count && pods.iter().all(is_ready)).then_some(pods)
        })
    }

    /// Applies YAML text; returns what kubectl said.
    pub fn apply(&self, yaml: &str) -> Ran {
        let file = self.path().join("apply.yaml");
        fs::write(&file, yaml).expect("a file in the data directory");
        self.kubectl(["apply", "-f", file.to_str().expect("UTF-8 path")])
    }

    /// Kills the supervisor, the members and the node agents at once. Pods run on under their shims.
    pub fn kill_control(&mut self) {
        for pid in self.processes(|args| !args.iter().any(|arg| arg == "shim")) {
            kill(pid);
        }
        if let Some(mut child) = self.supervisor.take() {
            child.wait().expect("the supervisor ends");
        }
        eventually("all members and agents are gone", || {
            self.processes(|args| !args.iter().any(|arg| arg == "shim")).is_empty().then_some(())
        });
    }

    /// The process of a member (`m1`) or a node's agent (`n1`), if it runs.
    pub fn process_of(&self, child: &str) -> Option<i32> {
        let group = if child.starts_with('n') { "nodes" } else { "members" };
        let dir = self.path().join(group).join(child).to_string_lossy().into_owned();
        let pids = self.processes(|args| {
            matches!(args.get(1).map(String::as_str), Some("server" | "node")) && args.contains(&dir)
        });
        pids.first().copied()
    }

    /// Sends a signal behind the supervisor's back.
    pub fn signal(&self, child: &str, signal: i32) {
        if let Some(pid) = self.process_of(child) {
            // SAFETY: kill(2) has no memory effects; a pid that is already gone only gives ESRCH.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// The directories of the containers whose shims run.
    pub fn shims(&self) -> Vec<String> {
        let is_supervisor = |args: &[String]| {
            args.get(1).is_some_and(|arg| arg == "shim")
                && args.iter().any(|arg| arg.contains("/containers/"))
        };
        let shims = self.processes(is_supervisor);
        shims.into_iter().map(|pid| arguments(pid).join(" ")).collect()
    }

    /// Asks the supervisor to stop the cluster, and waits for its end.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.supervisor.take() {
            // SAFETY: kill(2) has no memory effects; the child isn't reaped yet, so the pid is ours.
            unsafe { libc::kill(i32::try_from(child.id()).expect("pids fit"), libc::SIGTERM) };
            child.wait().expect("the supervisor ends");
        }
    }

    /// The arguments of every process of this cluster that still runs.
    pub fn leftovers(&self) -> Vec<Vec<String>> {
        self.processes(|_| true).into_iter().map(arguments).collect()
    }

    /// Our binary's processes that were started on this data directory and whose arguments pass `keep`.
    fn processes(&self, keep: impl Fn(&[String]) -> bool) -> Vec<i32> {
        processes_on(self.path(), keep)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        if let Some(mut child) = self.supervisor.take() {
            child.kill().ok();
            child.wait().ok();
        }
        end_all_on(self.path());
    }
}

impl Cluster {
    /// The end of each log, for a failed test.
    fn print_logs(&self) {
        for folder in ["members", "nodes"] {
            for entry in fs::read_dir(self.path().join(folder)).into_iter().flatten().flatten() {
                for file in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                    if file.path().extension().is_some_and(|extension| extension == "log") {
                        let text = fs::read_to_string(file.path()).unwrap_or_default();
                        let tail: Vec<_> = text.lines().rev().take(40).collect();
                        eprintln!("--- {}", file.path().display());
                        tail.iter().rev().for_each(|line| eprintln!("{line}"));
                    }
                }
            }
        }
    }
}

/// A background process that ends with the test.
pub struct Background(Child);

impl Background {
    /// Takes the process over.
    pub fn new(child: Child) -> Self {
        Self(child)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Waits for a line that contains `text` and returns it.
pub fn wait_for_line(lines: &mpsc::Receiver<String>, text: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.contains(text) => return line,
            Ok(line) => seen.push(line),
            Err(error) => panic!("no line with `{text}` ({error}); saw: {seen:#?}"),
        }
    }
}

/// What a process prints, line by line.
pub fn lines_of(output: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // After the receiver is gone, keep reading, so that the process never blocks on a full pipe.
            send.send(line).ok();
        }
    });
    receive
}

/// Whether the pod's Ready condition is True.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// A port that nobody listens on just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Our binary's processes that were started on a directory and whose arguments pass `keep`.
fn processes_on(dir: &Path, keep: impl Fn(&[String]) -> bool) -> Vec<i32> {
    let dir = dir.to_str().expect("UTF-8 path");
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let args = arguments(*pid);
            args.iter().any(|arg| arg.contains(dir)) && is_ours(*pid) && keep(&args)
        })
        .collect()
}

/// Kills whatever was started on a directory, pods and all.
pub fn end_all_on(dir: &Path) {
    processes_on(dir, |_| true).into_iter().for_each(kill_tree);
}

fn arguments(pid: i32) -> Vec<String> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    raw.split(|byte| *byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}

fn is_ours(pid: i32) -> bool {
    let target = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    target.file_name().is_some_and(|name| name.to_string_lossy().starts_with("amoeba"))
}

fn kill(pid: i32) {
    // SAFETY: kill(2) has no memory effects; a pid that is already gone only gives ESRCH.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Kills a process and its descendants.
fn kill_tree(pid: i32) {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    kill(pid);
    children.split_whitespace().filter_map(|child| child.parse().ok()).for_each(kill_tree);
}
