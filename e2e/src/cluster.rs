//! A cluster of one machine, as `amoeba up` makes it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use serde_json::Value;
use tempfile::TempDir;

use crate::processes::{arguments, kill, print_logs_in, processes_on};
use crate::{
    Background, Ran, amoeba_binary, end_all_on, eventually, free_port, is_ready, kubectls, lines_of,
    wait_for_line,
};

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
        (Background::new(child), lines)
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
                print_logs_in(&entry.path());
            }
        }
    }
}
