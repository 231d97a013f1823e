//! Members of a store as real processes, each on a host of its own, and what can be done to them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::disk::Disk;
use super::namespace::{Switch, address};
use crate::{amoeba_binary, pause};

/// How long a process may take to end after what must end it.
const END: Duration = Duration::from_secs(20);

/// Log entries that are kept, so few that a member which was away for a moment needs a snapshot.
pub const SNAPSHOT_COUNT: u32 = 200;

/// Which program the members run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `amoeba store`.
    Amoeba,
    /// Stock etcd from the `PATH`: it shows that the oracles are content with a good store.
    Etcd,
}

impl Program {
    /// `$STORE_UNDER_TEST`: `amoeba` (the default) or `etcd`.
    ///
    /// # Panics
    /// If the variable names another.
    pub fn chosen() -> Self {
        match std::env::var("STORE_UNDER_TEST").as_deref() {
            Ok("etcd") => Self::Etcd,
            Ok("amoeba") | Err(_) => Self::Amoeba,
            Ok(other) => panic!("STORE_UNDER_TEST={other}: amoeba or etcd is meant"),
        }
    }

    fn command(self) -> Command {
        match self {
            Self::Etcd => Command::new("etcd"),
            Self::Amoeba => {
                let mut command = Command::new(amoeba_binary());
                // The hosts are namespaces that nobody else can reach.
                command.args(["store", "--allow-insecure"]);
                command
            }
        }
    }
}

/// How a group is set up.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The program of all members.
    pub program: Program,
    /// How many members it begins with.
    pub members: usize,
    /// A file system of this many MiB for each member instead of a folder on the machine's disk.
    pub disk_mib: Option<u64>,
    /// What all members are told besides the usual.
    pub arguments: Vec<String>,
}

impl Shape {
    /// So many members on the machine's disk.
    pub fn plain(program: Program, members: usize) -> Self {
        Self { program, members, disk_mib: None, arguments: Vec::new() }
    }
}

struct Member {
    name: String,
    child: Option<Child>,
    /// How often it was wiped: a fresh member is another one, with another name.
    generation: u32,
    disk: Option<Disk>,
}

/// Members on a switch. Dropping it ends all.
pub struct Group {
    shape: Shape,
    members: Vec<Member>,
    dir: Option<TempDir>,
    /// The network between them.
    pub switch: Switch,
    /// `--initial-cluster`, as each member of the first generation is told.
    initial: String,
}

impl Group {
    /// Starts all members.
    ///
    /// # Panics
    /// If a process can't be started: the test has no use without it.
    pub fn start(shape: Shape) -> Self {
        let dir = tempfile::Builder::new().prefix("amoeba-store-").tempdir().expect("a temporary directory");
        let switch = Switch::new(shape.members).expect("namespaces: run the test as root");
        let names = (0..shape.members).map(|number| format!("m{}", number + 1));
        let initial: Vec<_> =
            names.clone().enumerate().map(|(number, name)| format!("{name}={}", peer_url(number))).collect();
        let members =
            names.map(|name| Member { name, child: None, generation: 0, disk: None }).collect::<Vec<_>>();
        let mut group = Self { shape, members, dir: Some(dir), switch, initial: initial.join(",") };
        for number in group.numbers() {
            group.prepare(number);
            group.spawn(number, &[]);
        }
        group
    }

    /// All members' numbers.
    pub fn numbers(&self) -> std::ops::Range<usize> {
        0..self.members.len()
    }

    /// Where clients reach each member.
    pub fn endpoints(&self) -> Vec<String> {
        self.numbers().map(client_url).collect()
    }

    /// The program of all members.
    pub fn program(&self) -> Program {
        self.shape.program
    }

    fn path(&self) -> &Path {
        self.dir.as_ref().expect("taken only at the end").path()
    }

    fn home(&self, number: usize) -> PathBuf {
        self.path().join(format!("host{}", number + 1))
    }

    /// The member's data directory.
    pub fn data_dir(&self, number: usize) -> PathBuf {
        self.home(number).join(format!("data-{}", self.members[number].generation))
    }

    fn log(&self, number: usize) -> PathBuf {
        self.path().join(format!("host{}.log", number + 1))
    }

    fn prepare(&mut self, number: usize) {
        let home = self.home(number);
        fs::create_dir_all(&home).expect("a folder");
        if let Some(mib) = self.shape.disk_mib {
            self.members[number].disk = Some(Disk::mount(&self.switch.keeper, &home, mib));
        }
    }

    /// Starts a member that doesn't run, with these variables in its environment.
    pub fn spawn(&mut self, number: usize, environment: &[(&str, &str)]) {
        self.spawn_with(number, environment, &[]);
    }

    /// As [`Self::spawn`], with more arguments.
    pub fn spawn_with(&mut self, number: usize, environment: &[(&str, &str)], arguments: &[&str]) {
        let member = &self.members[number];
        assert!(member.child.is_none(), "{} runs already", member.name);
        let log = File::options().create(true).append(true).open(self.log(number)).expect("a log file");
        // A member that was wiped joins the others; alone, it begins again.
        let state = if member.generation == 0 || self.members.len() == 1 { "new" } else { "existing" };
        let mut command = self.shape.program.command();
        command
            .args(["--name", &member.name, "--data-dir"])
            .arg(self.data_dir(number))
            .args(["--listen-client-urls", &client_url(number)])
            .args(["--advertise-client-urls", &client_url(number)])
            .args(["--listen-peer-urls", &peer_url(number)])
            .args(["--initial-advertise-peer-urls", &peer_url(number)])
            .args(["--initial-cluster", &self.initial, "--initial-cluster-state", state])
            .args(["--snapshot-count", &SNAPSHOT_COUNT.to_string()])
            .args(&self.shape.arguments)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        let child = self.switch.keeper.spawn(command, Some(self.switch.host(number)));
        self.members[number].child = Some(child.expect("the program starts"));
    }

    /// Runs our command on a host, with these variables in its environment, to its end.
    pub fn tool(&self, number: usize, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
        let mut command = Command::new(amoeba_binary());
        command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
        self.switch.keeper.output(command, Some(self.switch.host(number))).expect("amoeba starts")
    }

    /// A path for a file of the test.
    pub fn file(&self, name: &str) -> String {
        self.path().join(name).to_str().expect("UTF-8 path").to_owned()
    }

    /// Its process id, if it runs.
    pub fn pid(&self, number: usize) -> Option<u32> {
        self.members[number].child.as_ref().map(Child::id)
    }

    /// Whether it was started and hasn't ended. Its end is still there to be waited for.
    pub fn runs(&self, number: usize) -> bool {
        let Some(pid) = self.pid(number) else { return false };
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let pid = Pid::from_raw(i32::try_from(pid).expect("pids fit"));
        matches!(waitid(Id::Pid(pid), flags), Ok(WaitStatus::StillAlive))
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.members[number].child.take() {
            child.kill().ok();
            child.wait().expect("a child can be waited for");
        }
    }

    /// SIGKILL to all before any of them is waited for.
    pub fn kill_all(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            child.kill().ok();
        }
        self.numbers().for_each(|number| self.kill(number));
    }

    /// Starts every member that doesn't run.
    pub fn spawn_missing(&mut self) {
        for number in self.numbers() {
            if self.members[number].child.is_none() {
                self.spawn(number, &[]);
            }
        }
    }

    /// Sends a signal, if it runs.
    pub fn signal(&self, number: usize, signal: i32) {
        if let Some(pid) = self.pid(number) {
            // SAFETY: kill(2) has no memory effects; the child isn't reaped yet, so the pid is ours.
            unsafe { libc::kill(i32::try_from(pid).expect("pids fit"), signal) };
        }
    }

    /// Whether it has ended by itself, and how; then it counts as not running.
    pub fn ended(&mut self, number: usize) -> Option<ExitStatus> {
        let member = &mut self.members[number];
        let status = member.child.as_mut()?.try_wait().expect("a child can be waited for")?;
        member.child = None;
        Some(status)
    }

    /// Waits for a member to end by itself.
    pub fn wait_for_end(&mut self, number: usize, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.ended(number) {
                None if Instant::now() < deadline => pause(Duration::from_millis(10)),
                ended => return ended,
            }
        }
    }

    /// Makes its next sync calls fail with EIO, which a member must not survive: it ends by itself, or is killed
    /// after a while. Says whether it ended by itself.
    pub fn fail_sync(&mut self, number: usize) -> bool {
        let Some(_tracer) = self.trace(number, "fdatasync,fsync:error=EIO") else { return false };
        let ended = self.wait_for_end(number, END).is_some_and(|status| !status.success());
        self.kill(number);
        ended
    }

    /// Kills it inside its `nth` next system call of this kind, as seen by one of its threads.
    pub fn kill_at(&mut self, number: usize, calls: &str, nth: u32) -> bool {
        let Some(_tracer) = self.trace(number, &format!("{calls}:signal=KILL:when={nth}")) else {
            return false;
        };
        let ended = self.wait_for_end(number, Duration::from_secs(3)).is_some();
        self.kill(number);
        ended
    }

    fn trace(&self, number: usize, inject: &str) -> Option<Tracer> {
        let pid = self.pid(number)?;
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={inject}")]);
        command.args(["-p", &pid.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
        Some(Tracer(self.switch.keeper.spawn(command, None).expect("strace starts: install it")))
    }

    /// Fills the member's disk to the last byte.
    pub fn fill(&self, number: usize) {
        self.disk(number).fill(&self.switch.keeper);
    }

    /// Frees what [`Self::fill`] took.
    pub fn free(&self, number: usize) {
        self.disk(number).free(&self.switch.keeper);
    }

    fn disk(&self, number: usize) -> &Disk {
        self.members[number].disk.as_ref().expect("the plan asked for a disk of its own")
    }

    /// Ends a member for good and gives its host an empty data directory, for a new member with the name and the
    /// peer URL that are returned. [`Self::admit`] says what the group is then, before it is spawned.
    pub fn wipe(&mut self, number: usize) -> (String, String) {
        self.kill(number);
        fs::remove_dir_all(self.data_dir(number)).ok();
        let member = &mut self.members[number];
        member.generation += 1;
        member.name = format!("m{}-{}", number + 1, member.generation);
        (member.name.clone(), peer_url(number))
    }

    /// Writes down the group as it is now, for members that join from now on.
    pub fn admit(&mut self) {
        let pairs: Vec<_> = self
            .members
            .iter()
            .enumerate()
            .map(|(number, member)| format!("{}={}", member.name, peer_url(number)))
            .collect();
        self.initial = pairs.join(",");
    }

    /// The end of each member's log, for a failed test, whose data is kept for a look.
    pub fn explain(&mut self) {
        for number in self.numbers() {
            let text = fs::read_to_string(self.log(number)).unwrap_or_default();
            let tail: Vec<_> = text.lines().rev().take(40).collect();
            eprintln!("--- {}", self.log(number).display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        if let Some(dir) = self.dir.take() {
            eprintln!("kept: {}", dir.keep().display());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill_all();
        if std::thread::panicking() {
            self.explain();
        }
    }
}

/// A tracer, which lets go of its process when it ends.
struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Where clients reach a host.
pub fn client_url(number: usize) -> String {
    format!("http://{}:2379", address(number))
}

/// Where members reach a host.
pub fn peer_url(number: usize) -> String {
    format!("http://{}:2380", address(number))
}

/// Whether this process may do what the tests need; if not, says so on standard output.
pub fn may_make_namespaces() -> bool {
    let may = nix::unistd::Uid::effective().is_root();
    if !may {
        println!("SKIPPED: network namespaces are made by root only");
    }
    may
}
