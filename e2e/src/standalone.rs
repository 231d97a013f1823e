//! `amoeba store` and stock `etcd` as processes on loopback, and the stock `etcdctl` to drive both.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use crate::{PATIENCE, Ran, amoeba_binary, eventually, free_port, lines_of, wait_for_line};

/// Which program serves etcd's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Ours.
    Amoeba,
    /// Debian's.
    Etcd,
}

/// One member: a process with a data directory and two ports that it keeps over restarts.
pub struct StoreProcess {
    /// Which program.
    pub program: Program,
    /// Its name.
    pub name: String,
    /// Its data directory.
    pub dir: PathBuf,
    /// Flags besides name, directory and URLs.
    pub flags: Vec<String>,
    /// `http` or `https`.
    pub scheme: &'static str,
    client: u16,
    peer: u16,
    child: Option<Child>,
}

impl StoreProcess {
    /// A member that isn't started yet, with its data below `root`.
    pub fn new(program: Program, root: &Path, name: &str) -> Self {
        Self {
            program,
            name: name.to_owned(),
            dir: root.join(name),
            flags: Vec::new(),
            scheme: "http",
            client: free_port(),
            peer: free_port(),
            child: None,
        }
    }

    /// With further flags, split at spaces.
    pub fn with(mut self, flags: &str) -> Self {
        self.flags.extend(flags.split(' ').map(str::to_owned));
        self
    }

    /// Where it serves clients.
    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client)
    }

    /// Where it talks to other members.
    pub fn peer_url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.peer)
    }

    /// `NAME=PEER-URL`
    pub fn as_founder(&self) -> String {
        format!("{}={}", self.name, self.peer_url())
    }

    fn command(&self) -> Command {
        let mut command = match self.program {
            Program::Etcd => Command::new("etcd"),
            Program::Amoeba => {
                let mut command = Command::new(amoeba_binary());
                command.arg("store");
                command
            }
        };
        command.args(["--name", &self.name]).arg("--data-dir").arg(&self.dir);
        command.args(["--listen-client-urls", &self.endpoint(), "--advertise-client-urls", &self.endpoint()]);
        command.args(["--listen-peer-urls", &self.peer_url()]);
        command.args(["--initial-advertise-peer-urls", &self.peer_url()]).args(&self.flags);
        command.stdin(Stdio::null());
        command
    }

    /// Starts it; the receiver gets its lines of output (those of etcd are errors, so it gets none).
    ///
    /// # Panics
    /// If the program isn't there.
    pub fn spawn(&mut self) -> mpsc::Receiver<String> {
        let mut command = self.command();
        command.stdout(Stdio::piped());
        if self.program == Program::Etcd {
            command.stderr(Stdio::null());
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = lines_of(child.stdout.take().expect("stdout is piped"));
        self.child = Some(child);
        lines
    }

    /// Starts it with one more flag this time; also gives what it says on standard error.
    pub fn spawn_with(&mut self, flag: &str) -> (mpsc::Receiver<String>, mpsc::Receiver<String>) {
        let mut command = self.command();
        let mut child =
            command.arg(flag).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let said = lines_of(child.stderr.take().expect("stderr is piped"));
        let lines = lines_of(child.stdout.take().expect("stdout is piped"));
        self.child = Some(child);
        (said, lines)
    }

    /// Runs it with one more flag to its end, which must come by itself.
    pub fn run_to_end_with(&self, flag: &str) -> Ran {
        self.command().arg(flag).output().expect("it starts").into()
    }

    /// Starts it and waits until it is ready.
    pub fn start(&mut self) {
        let lines = self.spawn();
        match self.program {
            Program::Amoeba => drop(wait_for_line(&lines, "ready")),
            Program::Etcd => {
                eventually("etcd is healthy", || self.etcdctl("endpoint health").ok.then_some(()))
            }
        }
    }

    /// Runs it to its end, which must come by itself; returns how it ended and what it said.
    pub fn run_to_end(&self) -> Ran {
        self.command().output().expect("it starts").into()
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it doesn't run.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().expect("it runs").id()).expect("pids fit")
    }

    /// Asks it to stop and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        // SAFETY: kill(2) has no memory effects; the child isn't reaped yet, so the pid is ours.
        unsafe { libc::kill(self.pid(), libc::SIGTERM) };
        self.child.take().expect("it runs").wait().expect("it ends")
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Runs etcdctl on it; the arguments are split at spaces.
    pub fn etcdctl(&self, line: &str) -> Ran {
        etcdctl(&self.endpoint(), line, "")
    }

    /// Runs etcdctl, which must succeed.
    ///
    /// # Panics
    /// With what it said if it fails.
    pub fn e(&self, line: &str) -> String {
        let ran = self.etcdctl(line);
        assert!(ran.ok, "etcdctl {line}\n{}{}", ran.out, ran.err);
        ran.out
    }

    /// Runs etcdctl in the background.
    pub fn follow(&self, line: &str) -> (crate::Background, mpsc::Receiver<String>) {
        let mut command = ctl(&self.endpoint(), line);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("etcdctl starts");
        let lines = lines_of(child.stdout.take().expect("stdout is piped"));
        (crate::Background::new(child), lines)
    }
}

impl Drop for StoreProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

fn ctl(endpoints: &str, line: &str) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoints]).args(line.split(' '));
    command
}

/// Runs etcdctl on these endpoints with this on its standard input.
///
/// # Panics
/// If etcdctl isn't installed.
pub fn etcdctl(endpoints: &str, line: &str, input: &str) -> Ran {
    let mut command = ctl(endpoints, line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("etcdctl is installed (.ci/setup does it)");
    child.stdin.take().expect("stdin is piped").write_all(input.as_bytes()).ok();
    child.wait_with_output().expect("etcdctl ends").into()
}

/// Runs our own command; the arguments are split at spaces.
pub fn amoeba(line: &str) -> Ran {
    let mut command = Command::new(amoeba_binary());
    command.args(line.split(' ')).env_remove("AMOEBA_DATA_DIR").stdin(Stdio::null());
    command.output().expect("amoeba runs").into()
}

/// Runs our own command, which must succeed.
///
/// # Panics
/// With what it said if it fails.
pub fn a(line: &str) -> String {
    let ran = amoeba(line);
    assert!(ran.ok, "amoeba {line}\n{}{}", ran.out, ran.err);
    ran.out
}

/// Starts members that found a cluster together, and waits until all are ready.
pub fn found(members: &mut [StoreProcess]) {
    let founders: Vec<String> = members.iter().map(StoreProcess::as_founder).collect();
    for member in members.iter_mut() {
        member.flags.extend(["--initial-cluster".to_owned(), founders.join(",")]);
    }
    let lines: Vec<_> = members.iter_mut().map(StoreProcess::spawn).collect();
    for lines in lines {
        wait_for_line(&lines, "ready");
    }
}

/// Of these, the one that leads.
///
/// # Panics
/// If none does within [`PATIENCE`].
pub fn leader(members: &[StoreProcess]) -> usize {
    eventually(&format!("a leader within {PATIENCE:?}"), || {
        members.iter().position(|member| {
            let status = member.child.as_ref().map(|_| member.etcdctl("endpoint status -w json"));
            status.filter(|ran| ran.ok).is_some_and(|ran| leads(&ran.out))
        })
    })
}

fn leads(status: &str) -> bool {
    let status: serde_json::Value = serde_json::from_str(status).expect("JSON");
    let status = &status[0]["Status"];
    !status["leader"].is_null() && status["leader"] == status["header"]["member_id"]
}
