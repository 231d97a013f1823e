//! Members and a node that are started by hand, as on machines of their own. All on loopback: three addresses are
//! three machines, with one port.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Background, Ran, amoeba_binary, end_all_on, eventually, free_port, kubectls};

/// Members (`m1`, `m2`, …) and one node (`worker`), each a process of its own below one directory. What is still
/// running ends with it.
pub struct Machines {
    dir: TempDir,
    port: u16,
    members: Vec<Option<Background>>,
    node: Option<Background>,
}

impl Machines {
    /// So many members, which share their authorities, and no node yet.
    pub fn start(members: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("amoeba-e2e-").tempdir().expect("a temporary directory");
        let mut machines = Self { dir, port: free_port(), members: Vec::new(), node: None };
        let ports: Vec<u16> = (0..members).map(|_| free_port()).collect();
        for number in 1..=members {
            let member = machines.member(number, &ports);
            machines.members.push(Some(member));
        }
        eventually("the members serve", || machines.k(1, "get namespaces").ok.then_some(()));
        machines
    }

    /// Where a member serves.
    pub fn address(&self, number: usize) -> String {
        format!("127.0.0.{number}:{}", self.port)
    }

    /// A path below the directory of all.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start_process(&self, name: &str, verb: &str, flags: &[String]) -> Background {
        let log = fs::File::create(self.path(&format!("{name}.log"))).expect("a log");
        let child = Command::new(amoeba_binary())
            .arg(verb)
            .arg("--data-dir")
            .arg(self.path(name))
            .args(flags)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("amoeba starts");
        Background::new(child)
    }

    fn member(&self, number: usize, ports: &[u16]) -> Background {
        let pki = self.path("pki").to_string_lossy().into_owned();
        let name = format!("m{number}");
        let mut flags = vec!["--name".to_owned(), name.clone(), "--pki-dir".to_owned(), pki];
        flags.extend([
            "--member-id".to_owned(),
            number.to_string(),
            "--listen".to_owned(),
            self.address(number),
        ]);
        for (id, port) in (1..).zip(ports).filter(|_| ports.len() > 1) {
            flags.extend(["--peer".to_owned(), format!("{id}=127.0.0.1:{port}")]);
        }
        if number > 1 {
            // The first makes the authorities.
            eventually("the authorities", || self.path("pki/encryption.keys").exists().then_some(()));
        }
        self.start_process(&name, "server", &flags)
    }

    /// Starts the node's agent with these flags.
    pub fn start_node(&mut self, flags: &[&str]) {
        let mut all = vec!["--name", "worker", "--listen", "127.0.0.1:0", "--lease-renew-interval", "1s"];
        // A machine that is short of disk needn't fail.
        all.extend(["--eviction-hard", ""]);
        all.extend(flags);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        self.node = Some(self.start_process("worker", "node", &all));
    }

    /// Kills the node's agent; its pods run on.
    pub fn kill_node(&mut self) {
        self.node = None;
    }

    /// Kills a member.
    pub fn stop_member(&mut self, number: usize) {
        self.members[number - 1] = None;
    }

    /// Applies YAML text through a member; it may need a moment to serve.
    pub fn apply(&self, member: usize, yaml: &str) {
        let file = self.path("apply.yaml");
        fs::write(&file, yaml).expect("written");
        let line = format!("apply -f {}", file.display());
        eventually("the objects are taken", || self.k(member, &line).ok.then_some(()));
    }

    fn run(&self, program: &Path, member: usize, line: &str) -> Ran {
        let kubeconfig = self.path(&format!("m{member}/admin.kubeconfig"));
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &kubeconfig).env("HOME", self.dir.path()).stdin(Stdio::null());
        command.args(line.split(' ')).output().expect("it runs").into()
    }

    /// Runs kubectl as the administrator of a member.
    pub fn k(&self, member: usize, line: &str) -> Ran {
        self.run(&kubectls()[0], member, line)
    }

    /// Runs our own command, which must succeed, in the same way. Returns its output.
    pub fn a(&self, member: usize, line: &str) -> String {
        let ran = self.run(&amoeba_binary(), member, line);
        assert!(ran.ok, "amoeba {line}\n{}{}", ran.out, ran.err);
        ran.out
    }

    /// An object, if the member knows it.
    pub fn object(&self, member: usize, what: &str) -> Option<Value> {
        let ran = self.k(member, &format!("get {what} -o json"));
        ran.ok.then(|| serde_json::from_str(&ran.out).expect("JSON"))
    }

    /// What a process has logged.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["m1", "m2", "m3", "worker"] {
                let log = self.log(name);
                let tail: Vec<&str> = log.lines().rev().take(30).collect();
                eprintln!("--- {name}");
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        // The agent first, then the pods' shims, which outlive it.
        self.node = None;
        end_all_on(self.dir.path());
    }
}
