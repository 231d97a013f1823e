//! The cluster of a demo: an `amoeba up` of our own in a directory of its own, both gone at the end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::app::App;
use crate::cli::TargetFlags;
use crate::cluster::{Cluster, connect};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::up::chaos_socket::{self, ChildStatus, Order};
use crate::up::layout::Layout;
use crate::up::ports;

/// How long a cluster may take to become Ready before the demo gives up.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to stop before it is killed; longer than its own deadlines.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// A running cluster. [`DemoCluster::stop`] ends it in order; dropping it kills it.
pub struct DemoCluster {
    layout: Layout,
    process: Child,
    output: Lines<BufReader<ChildStdout>>,
    _directory: Directory,
}

/// A directory that is removed with this value.
struct Directory(PathBuf);

impl Directory {
    fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("amoeba-demo-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(fs::canonicalize(path)?))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What can't be removed is left: there is nobody to tell.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl DemoCluster {
    /// Starts members and nodes; returns when all nodes are Ready.
    pub async fn start(members: u32, nodes: u32) -> Result<Self, Failure> {
        let directory =
            Directory::make().map_err(|source| Failure::io("make a directory for the demo", source))?;
        let port = ports::free(1)?[0].to_string();
        let (members, nodes) = (members.to_string(), nodes.to_string());
        let failed = |source| Failure::io("start `amoeba up`", source);
        let mut process = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("--data-dir")
            .arg(&directory.0)
            .args(["up", "--child-of-supervisor", "--members", &members, "--nodes", &nodes, "--port", &port])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdout = process.stdout.take().expect("standard output was asked to be a pipe");
        let layout = Layout::new(directory.0.clone());
        let mut cluster =
            Self { layout, process, output: BufReader::new(stdout).lines(), _directory: directory };
        cluster.wait_ready().await?;
        Ok(cluster)
    }

    async fn wait_ready(&mut self) -> Result<(), Failure> {
        let ready = async {
            while let Ok(Some(line)) = self.output.next_line().await {
                if line.starts_with("Ready:") {
                    return true;
                }
            }
            false
        };
        match timeout(START_LIMIT, ready).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::NotHeld("the cluster ended before it was Ready".into())),
            Err(_) => {
                let seconds = START_LIMIT.as_secs();
                Err(Failure::Timeout(format!("the cluster is not Ready after {seconds} s")))
            }
        }
    }

    /// A client with full rights.
    pub async fn client(&self) -> Result<Cluster, Failure> {
        let target =
            TargetFlags { kubeconfig: Some(self.layout.admin_kubeconfig()), ..TargetFlags::default() };
        Ok(connect::connect(&App::new(target, Environment::default())).await?)
    }

    /// Gives an order to the supervisor.
    pub async fn order(&self, order: Order) -> Result<Vec<ChildStatus>, Failure> {
        Ok(chaos_socket::order(self.layout.root(), &self.layout.socket(), &order).await?)
    }

    /// The member that leads the Raft group.
    pub async fn leader(&self) -> Result<String, Failure> {
        let children = self.order(Order::List).await?;
        let leader = children.into_iter().find(|child| child.leader).map(|child| child.name);
        leader.ok_or_else(|| Failure::NotHeld("no member leads".into()))
    }

    /// Where everything lies.
    pub fn directory(&self) -> &Path {
        self.layout.root()
    }

    /// Ends everything in order. True if nothing had to be killed.
    pub async fn stop(mut self) -> bool {
        let pid = self.process.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        // Its last words would block it if nobody read them.
        let drain = async { while let Ok(Some(_)) = self.output.next_line().await {} };
        let ended = async { tokio::join!(drain, self.process.wait()).1 };
        matches!(timeout(STOP_LIMIT, ended).await, Ok(Ok(status)) if status.success())
    }
}
