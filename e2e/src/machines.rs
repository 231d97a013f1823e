//! Members and nodes that are started by hand, as on machines of their own. On loopback an address is a machine; on a
//! switch each is a network namespace, with addresses of pods of its own, and can be cut off.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::processes::print_logs_in;
use crate::store::namespace::{self, Switch};
use crate::{Background, Ran, amoeba_binary, end_all_on, eventually, free_port, kubectls};

/// What the machines are. They are counted from one.
enum Ground {
    Loopback,
    Switch(Switch),
}

impl Ground {
    fn address(&self, machine: usize) -> String {
        match self {
            Self::Loopback => format!("127.0.0.{machine}"),
            Self::Switch(_) => namespace::address(machine - 1),
        }
    }

    fn spawn(&self, mut command: Command, machine: usize) -> Background {
        let child = match self {
            Self::Loopback => command.spawn(),
            Self::Switch(switch) => switch.keeper.spawn(command, Some(switch.host(machine - 1))),
        };
        Background::new(child.expect("it starts"))
    }

    /// Runs a command on a machine, or beside them.
    fn output(&self, mut command: Command, machine: Option<usize>) -> Ran {
        let output = match self {
            Self::Loopback => command.output(),
            Self::Switch(switch) => {
                switch.keeper.output(command, machine.map(|machine| switch.host(machine - 1)))
            }
        };
        output.expect("it runs").into()
    }
}

/// Flags that all members, or all nodes, are started with, split at spaces.
#[derive(Clone, Copy)]
pub struct Flags {
    /// Of `amoeba server`.
    pub members: &'static str,
    /// Of `amoeba node`.
    pub nodes: &'static str,
}

/// Members (`m1`, `m2`, …), one a machine, and nodes, each a process of its own below one directory. What is still
/// running ends with it.
pub struct Machines {
    /// Stopped before the machines that they are on.
    running: BTreeMap<String, Background>,
    ground: Ground,
    dir: TempDir,
    port: u16,
    /// Where members speak to each other.
    peer_port: u16,
    flags: Flags,
}

impl Machines {
    /// So many members on loopback, which share their authorities, and no node yet.
    pub fn start(members: usize) -> Self {
        let flags = Flags { members: "", nodes: "--lease-renew-interval 1s" };
        Self::on(Ground::Loopback, members, flags, members > 1)
    }

    /// One member on loopback that others can join.
    pub fn start_first() -> Self {
        Self::on(Ground::Loopback, 1, Flags { members: "", nodes: "" }, true)
    }

    /// So many machines on a switch, with a member each, and no node yet.
    ///
    /// # Panics
    /// Without root's rights.
    pub fn on_a_switch(members: usize, flags: Flags) -> Self {
        let switch = Switch::new(members).expect("namespaces (the test needs root)");
        Self::on(Ground::Switch(switch), members, flags, members > 1)
    }

    fn on(ground: Ground, members: usize, flags: Flags, reachable: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("amoeba-e2e-").tempdir().expect("a temporary directory");
        let (port, peer_port) = (free_port(), free_port());
        let mut machines = Self { running: BTreeMap::new(), ground, dir, port, peer_port, flags };
        let founders = if reachable { members } else { 0 };
        (1..=members).for_each(|number| machines.start_member(number, founders));
        eventually("the members serve", || machines.kubectl(1, "get namespaces").ok.then_some(()));
        machines
    }

    /// A machine's own address.
    pub fn address(&self, machine: usize) -> String {
        self.ground.address(machine)
    }

    /// Where a member serves.
    pub fn endpoint(&self, member: usize) -> String {
        format!("{}:{}", self.address(member), self.port)
    }

    /// A path below the directory of all.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start_process<'a>(
        &mut self,
        machine: usize,
        name: &str,
        verb: &str,
        flags: impl IntoIterator<Item = &'a str>,
    ) {
        let log = fs::File::create(self.path(&format!("{name}.log"))).expect("a log");
        let mut command = Command::new(amoeba_binary());
        command.args([verb, "--name", name, "--data-dir"]).arg(self.path(name)).args(flags);
        command.env_remove("KUBECONFIG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = self.ground.spawn(command, machine);
        self.running.insert(name.to_owned(), process);
    }

    /// Founders that know each other's peer addresses; one that knows none stays alone.
    fn start_member(&mut self, number: usize, founders: usize) {
        let (id, pki, listen) = (number.to_string(), self.path("pki"), self.endpoint(number));
        let pki = pki.to_str().expect("UTF-8 path");
        let peer = |id| format!("--peer={id}={}:{}", self.address(id), self.peer_port);
        let peers: Vec<String> = (1..=founders).map(peer).collect();
        let own = ["--member-id", &id, "--listen", &listen, "--pki-dir", pki];
        let further = self.flags.members.split_whitespace();
        if number > 1 {
            // The first makes the authorities.
            eventually("the authorities", || self.path("pki/encryption.keys").exists().then_some(()));
        }
        let flags = own.into_iter().chain(peers.iter().map(String::as_str)).chain(further);
        self.start_process(number, &format!("m{number}"), "server", flags);
    }

    /// Starts a node's agent on a machine with these flags, too.
    pub fn start_node(&mut self, machine: usize, name: &str, flags: &[&str]) {
        let address = self.address(machine);
        let listen = format!("{address}:0");
        // A machine that is short of disk needn't fail.
        let own = ["--address", &address, "--listen", &listen, "--eviction-hard", ""];
        let further = self.flags.nodes.split_whitespace();
        self.start_process(
            machine,
            name,
            "node",
            own.into_iter().chain(further).chain(flags.iter().copied()),
        );
    }

    /// Starts a further member on a machine of its own, with authorities of its own or none, with these flags.
    pub fn start_joining_member(&mut self, machine: usize, flags: &[&str]) {
        let (listen, peer) =
            (self.endpoint(machine), format!("{}:{}", self.address(machine), self.peer_port));
        let own = ["--listen", &listen, "--peer-address", &peer];
        self.start_process(
            machine,
            &format!("m{machine}"),
            "server",
            own.into_iter().chain(flags.iter().copied()),
        );
    }

    /// The flags by which a node joins, as a member tells them for a new token with these options.
    pub fn joining(&self, member: usize, options: &str) -> Vec<String> {
        let command = self.a(member, format!("token create --print-join-command {options}").trim_end());
        // After `amoeba node`.
        command.split_whitespace().skip(2).map(str::to_owned).collect()
    }

    /// Starts the only member again.
    pub fn start_only_member(&mut self) {
        self.start_member(1, 0);
    }

    /// Kills a member or a node's agent. Pods run on.
    pub fn kill(&mut self, name: &str) {
        self.running.remove(name).expect("it runs");
    }

    /// Applies YAML text through a member; it may need a moment to serve.
    pub fn apply(&self, member: usize, yaml: &str) {
        let file = self.path("apply.yaml");
        fs::write(&file, yaml).expect("written");
        let line = format!("apply -f {}", file.display());
        eventually("the objects are taken", || self.kubectl(member, &line).ok.then_some(()));
    }

    /// Runs a command beside the machines as the administrator of a member; the arguments are split at spaces.
    fn run(&self, program: &Path, member: usize, line: &str) -> Ran {
        let kubeconfig = self.path(&format!("m{member}/admin.kubeconfig"));
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &kubeconfig).env("HOME", self.dir.path()).stdin(Stdio::null());
        command.args(line.split(' '));
        self.ground.output(command, None)
    }

    /// Runs any other command on a machine, or beside them.
    pub fn run_on(&self, machine: Option<usize>, program: &str, arguments: &[&str]) -> Ran {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        self.ground.output(command, machine)
    }

    /// Runs kubectl as the administrator of a member.
    pub fn kubectl(&self, member: usize, line: &str) -> Ran {
        self.run(&kubectls()[0], member, line)
    }

    /// Runs kubectl, which must succeed, in the same way. Returns its output.
    pub fn k(&self, member: usize, line: &str) -> String {
        let ran = self.kubectl(member, line);
        assert!(ran.ok, "kubectl {line}\n{}{}", ran.out, ran.err);
        ran.out
    }

    /// Runs our own command, which must succeed, in the same way. Returns its output.
    pub fn a(&self, member: usize, line: &str) -> String {
        let ran = self.run(&amoeba_binary(), member, line);
        assert!(ran.ok, "amoeba {line}\n{}{}", ran.out, ran.err);
        ran.out
    }

    /// An object, if the member knows it.
    pub fn object(&self, member: usize, what: &str) -> Option<Value> {
        let ran = self.kubectl(member, &format!("get {what} -o json"));
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
            print_logs_in(self.dir.path());
        }
        // The agents first, then the pods' shims, which outlive them.
        self.running.clear();
        end_all_on(self.dir.path());
    }
}
