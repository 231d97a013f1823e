//! Network and mount namespaces of the test's own, which vanish with the process that made them.
//!
//! Nothing here has a name on the machine: a namespace lives as long as a descriptor in this process or a
//! process in it, so that even a killed test leaves neither interface, nor mount, nor member behind.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;

/// A network namespace.
pub struct Namespace(File);

impl Namespace {
    /// A new one, with nothing in it but a loopback that is down.
    pub fn new() -> io::Result<Self> {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        made.join().expect("the thread doesn't panic").map(Self)
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET)?)
    }

    /// A path by which another process finds it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// The same namespace, for another thread.
    pub fn handle(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a mount namespace of its own and in the switch's network namespace. It starts every process of
/// the test: they see its mounts, and the kernel kills them when it ends.
pub struct Keeper {
    jobs: Option<mpsc::SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// Without the rights to make namespaces.
    pub fn start(home: &Namespace) -> io::Result<Self> {
        let home = home.handle()?;
        // One job at a time: the caller waits for its answer, so nothing queues.
        let (jobs, todo) = mpsc::sync_channel::<Job>(1);
        let (ready, started) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("keeper".to_owned()).spawn(move || {
            let begun = separate_mounts().and_then(|()| home.enter());
            let goes_on = begun.is_ok();
            ready.send(begun).ok();
            if goes_on {
                todo.into_iter().for_each(|job| job());
            }
        })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Does `work` on the keeper's thread.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || {
            answer.send(work()).ok();
        });
        self.jobs.as_ref().expect("taken only by drop").send(job).expect("the keeper runs");
        answered.recv().expect("the work didn't panic")
    }

    /// Starts a process inside `namespace` (or the switch's); it dies with the keeper.
    pub fn spawn(&self, command: Command, namespace: Option<&Namespace>) -> io::Result<Child> {
        let mut command = bound(command, namespace);
        self.run(move || command.spawn())
    }

    /// Runs a command to its end; it must succeed.
    ///
    /// # Panics
    /// With what the command said, if it fails.
    pub fn must(&self, line: &str, namespace: Option<&Namespace>) {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().expect("a command"));
        command.args(words).stdin(Stdio::null());
        let output = self.output(command, namespace).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs a command inside `namespace` (or the switch's) to its end.
    pub fn output(&self, command: Command, namespace: Option<&Namespace>) -> io::Result<Output> {
        let mut command = bound(command, namespace);
        self.run(move || command.output())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Mounts made from here on are seen by this thread and its children alone.
fn separate_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?)
}

fn bound(mut command: Command, namespace: Option<&Namespace>) -> Command {
    let descriptor: Option<RawFd> = namespace.map(|namespace| namespace.0.as_raw_fd());
    let prepare = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if let Some(descriptor) = descriptor {
            // SAFETY: setns(2) has no memory effects; the descriptor is open, as the caller holds the namespace.
            if unsafe { libc::setns(descriptor, libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: only system calls that are safe after fork are made.
    unsafe { command.pre_exec(prepare) };
    command
}

/// Hosts on one Ethernet switch, and cuts between them.
pub struct Switch {
    /// Where the clients live; the switch itself is here too.
    pub clients: Namespace,
    hosts: Vec<Namespace>,
    /// Starts everything.
    pub keeper: Keeper,
}

/// Nobody has this address: what is sent there is lost without a word, as on a cut cable.
const NOBODY: &str = "02:00:00:00:de:ad";

impl Switch {
    /// A switch with this many hosts.
    ///
    /// # Errors
    /// Without the rights to make namespaces, or without `ip` from iproute2.
    pub fn new(hosts: usize) -> io::Result<Self> {
        let clients = Namespace::new()?;
        let keeper = Keeper::start(&clients)?;
        let mut switch = Self { clients, hosts: Vec::new(), keeper };
        switch.keeper.must("ip link set lo up", None);
        switch.keeper.must("ip link add switch type bridge", None);
        switch.keeper.must("ip addr add 10.42.0.254/24 dev switch", None);
        switch.keeper.must("ip link set switch up", None);
        for _ in 0..hosts {
            switch.plug_in()?;
        }
        Ok(switch)
    }

    fn plug_in(&mut self) -> io::Result<()> {
        let (number, host) = (self.hosts.len(), Namespace::new()?);
        self.keeper.must(&format!("ip link add port{number} type veth peer name eth0"), None);
        self.keeper.must(&format!("ip link set eth0 netns {}", host.path()), None);
        self.keeper.must(&format!("ip link set port{number} master switch up"), None);
        self.keeper.must(&format!("ip addr add {}/24 dev eth0", address(number)), Some(&host));
        self.keeper.must("ip link set eth0 up", Some(&host));
        self.keeper.must("ip link set lo up", Some(&host));
        self.hosts.push(host);
        Ok(())
    }

    /// The namespace of a host.
    pub fn host(&self, number: usize) -> &Namespace {
        &self.hosts[number]
    }

    /// From now on nothing that `from` sends reaches `to`; the other way stays open.
    pub fn cut(&self, from: usize, to: usize) {
        let line = format!("ip neigh replace {} lladdr {NOBODY} nud permanent dev eth0", address(to));
        self.keeper.must(&line, Some(&self.hosts[from]));
    }

    /// Ends a cut.
    pub fn mend(&self, from: usize, to: usize) {
        self.keeper.must(&format!("ip neigh del {} dev eth0", address(to)), Some(&self.hosts[from]));
    }

    /// Pulls the host's cable: neither members nor clients reach it.
    pub fn unplug(&self, host: usize) {
        self.keeper.must(&format!("ip link set port{host} down"), None);
    }

    /// Puts the cable back.
    pub fn plug(&self, host: usize) {
        self.keeper.must(&format!("ip link set port{host} up"), None);
    }
}

/// The address of a host.
pub fn address(host: usize) -> String {
    format!("10.42.0.{}", host + 1)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    /// Whether a byte sent from the clients' namespace through `stream` arrives.
    fn arrives(stream: &mut TcpStream, other: &mut TcpStream) -> bool {
        other.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        stream.write_all(b"x").expect("a socket's buffer has room");
        other.read(&mut [0]).is_ok_and(|length| length == 1)
    }

    fn connected(switch: &Switch) -> (TcpStream, TcpStream) {
        let (server, client) = (switch.host(0).handle().expect("fd"), switch.host(1).handle().expect("fd"));
        let listener = std::thread::spawn(move || {
            server.enter().expect("root");
            TcpListener::bind((address(0), 80)).expect("a free port")
        });
        let listener = listener.join().expect("bound");
        let stream = std::thread::spawn(move || {
            client.enter().expect("root");
            TcpStream::connect((address(0), 80)).expect("a way")
        });
        let (accepted, _) = listener.accept().expect("a connection");
        (stream.join().expect("connected"), accepted)
    }

    #[test]
    fn a_cut_is_one_way_and_heals() {
        if !nix::unistd::Uid::effective().is_root() {
            println!("SKIPPED: only root may make namespaces");
            return;
        }
        let switch = Switch::new(2).expect("namespaces");
        let (mut one, mut zero) = connected(&switch);
        assert!(arrives(&mut one, &mut zero) && arrives(&mut zero, &mut one), "whole at first");
        switch.cut(0, 1);
        assert!(arrives(&mut one, &mut zero), "the other way is open");
        assert!(!arrives(&mut zero, &mut one), "this one is cut");
        switch.mend(0, 1);
        zero.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        one.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        assert_eq!(one.read(&mut [0]).expect("what was lost is sent again"), 1);
    }
}
