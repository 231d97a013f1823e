//! One or three members of either server in fresh directories, on their share of the cores.
//!
//! Both are started with the same flags: ours takes etcd's names. Durability stays as it is by default,
//! which is on for both; [`super::flushes`] counts it.

use super::http2::{Arrival, Head, Http2, Messages};
use super::load::{self, Keys, Puts, Window};
use super::messages::{StatusRequest, StatusResponse};
use crate::cluster::free_port;
use crate::process::{self, Memory, Pid};
use anyhow::{Context, Result, bail, ensure};
use prost::Message as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A group that can't write by then never will.
const START: Duration = Duration::from_secs(30);
/// How often a starting group is tried.
const GLANCE: Duration = Duration::from_millis(20);

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Debian's etcd.
    Etcd,
    /// Ours.
    Amoeba,
}

/// Where programs are, and which cores and directory they get.
#[derive(Clone, Debug)]
pub struct Setting {
    /// etcd.
    pub etcd: PathBuf,
    /// Ours.
    pub amoeba: PathBuf,
    /// Cores of the servers, as `taskset` writes them.
    pub server_cores: String,
    /// Where data directories are made.
    pub directory: PathBuf,
}

/// A running group. Dropped, it is killed and its data removed.
pub struct Group {
    members: Vec<Child>,
    /// Where clients connect, the leader's address first.
    pub addresses: Vec<SocketAddr>,
    _directory: TempDir,
}

impl Group {
    /// Starts a group and waits until every member takes writes.
    pub async fn start(side: Side, count: usize, setting: &Setting) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("bench-store-").tempdir_in(&setting.directory)?;
        let members: Vec<Ports> = (0..count).map(|_| Ports::free()).collect::<Result<_>>()?;
        let cluster: Vec<String> =
            members.iter().enumerate().map(|(i, one)| format!("m{i}={}", one.peer())).collect();
        let mut children = Vec::new();
        for (number, ports) in members.iter().enumerate() {
            let arguments = ports.arguments(number, directory.path(), &cluster.join(","));
            children.push(spawn(
                side,
                setting,
                &arguments,
                &directory.path().join(format!("m{number}.log")),
            )?);
        }
        let addresses =
            members.iter().map(|ports| SocketAddr::from((Ipv4Addr::LOCALHOST, ports.client))).collect();
        let mut group = Group { members: children, addresses, _directory: directory };
        let ready = group.wait_until_ready().await;
        ready.with_context(|| format!("{side:?} with {count} member(s): {}", group.log()))?;
        Ok(group)
    }

    /// CPU time of all members so far.
    pub fn cpu(&self) -> Duration {
        process::cpu(&self.pids())
    }

    /// How often the members' threads went to sleep so far.
    pub fn switches(&self) -> u64 {
        self.pids().into_iter().map(process::voluntary_switches).sum()
    }

    /// Memory of the first member.
    pub fn memory(&self) -> Result<Memory> {
        process::memory(self.pids()[0])
    }

    /// The members' processes.
    pub fn pids(&self) -> Vec<Pid> {
        self.members.iter().filter_map(|child| Pid::try_from(child.id()).ok()).collect()
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        for address in self.addresses.clone() {
            let one = [address];
            loop {
                if let Some(status) =
                    self.members.iter_mut().find_map(|child| child.try_wait().ok().flatten())
                {
                    bail!("a member ended with {status}");
                }
                let put =
                    load::run(&one, 1, Window::unlimited(), |_| Puts::new(Keys::Each((0..1).step_by(1)), 1));
                match tokio::time::timeout_at(deadline.into(), put).await.context("not ready in time")? {
                    Ok(_) => break,
                    Err(_) => tokio::time::sleep(GLANCE).await,
                }
            }
        }
        self.leader_first().await
    }

    async fn leader_first(&mut self) -> Result<()> {
        if self.addresses.len() == 1 {
            return Ok(());
        }
        for number in 0..self.addresses.len() {
            let status = status(self.addresses[number]).await?;
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                self.addresses.swap(0, number);
                return Ok(());
            }
        }
        bail!("no member says that it leads")
    }

    /// The last lines that the members wrote.
    fn log(&self) -> String {
        let read = |number| std::fs::read_to_string(self._directory.path().join(format!("m{number}.log")));
        let logs: Vec<String> = (0..self.members.len()).filter_map(|number| read(number).ok()).collect();
        let last: Vec<&str> = logs.iter().flat_map(|log| log.lines().rev().take(3)).collect();
        last.join("\n")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for child in &mut self.members {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where a member listens.
struct Ports {
    client: u16,
    peer: u16,
}

impl Ports {
    fn free() -> Result<Self> {
        Ok(Ports { client: free_port()?, peer: free_port()? })
    }

    fn peer(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer)
    }

    fn arguments(&self, number: usize, directory: &Path, cluster: &str) -> Vec<String> {
        let client = format!("http://127.0.0.1:{}", self.client);
        let data = directory.join(format!("m{number}")).display().to_string();
        let flags = [
            ("--name", format!("m{number}")),
            ("--data-dir", data),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", self.peer()),
            ("--initial-advertise-peer-urls", self.peer()),
            ("--initial-cluster", cluster.to_owned()),
            ("--initial-cluster-state", "new".to_owned()),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }
}

/// `taskset` sets the affinity and becomes the server, so the child's process id is the server's.
fn spawn(side: Side, setting: &Setting, arguments: &[String], log: &Path) -> Result<Child> {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &setting.server_cores]);
    match side {
        Side::Etcd => command.arg(&setting.etcd).args(["--logger", "zap", "--log-level", "error"]),
        Side::Amoeba => command.arg(&setting.amoeba).arg("store").env("RUST_LOG", "error"),
    };
    let log = std::fs::File::create(log)?;
    let (stdout, stderr) = (Stdio::from(log.try_clone()?), Stdio::from(log));
    command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    command.spawn().with_context(|| format!("start {side:?} by taskset (package util-linux)"))
}

/// Asks a member about itself.
async fn status(address: SocketAddr) -> Result<StatusResponse> {
    let mut http = Http2::connect(address).await?;
    let stream = http.open(&Head::new("/etcdserverpb.Maintenance/Status"));
    http.message(stream, &StatusRequest {}.encode_to_vec(), true);
    http.flush().await?;
    let mut messages = Messages::default();
    let answer = loop {
        http.receive().await?;
        let mut ended = false;
        while let Some(arrival) = http.next()? {
            match arrival {
                Arrival::Data(_, piece) => messages.push(&piece),
                Arrival::End(_) => ended = true,
            }
        }
        if let Some(answer) = messages.next() {
            break answer;
        }
        ensure!(!ended, "the status request failed");
    };
    StatusResponse::decode(answer).context("the status of a member")
}
