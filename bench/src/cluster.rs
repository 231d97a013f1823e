//! A cluster of our own to measure: `amoeba up` in a fresh directory, and its end.

use crate::http::{Connection, Watch};
use crate::kubeconfig::Target;
use crate::process::{self, Pid};
use anyhow::{Context, Result, bail};
use http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid as UnixPid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Nothing that is measured takes longer; beyond it a measurement is given up.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often something is looked at that can't be waited for (a file, a port that isn't open yet).
const GLANCE: Duration = Duration::from_millis(2);

/// Size of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Members of the control plane.
    pub members: usize,
    /// Nodes.
    pub nodes: usize,
    /// Simulated nodes.
    pub fake_nodes: usize,
}

/// A running cluster. [`Cluster::stop`] ends it; dropped, it is killed.
pub struct Cluster {
    binary: PathBuf,
    directory: TempDir,
    up: Child,
    /// Where its API is.
    pub target: Target,
    /// When its process was started.
    pub started: Instant,
}

/// Waits for `future`; the error says what was awaited.
pub async fn within<T>(what: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
    let result = tokio::time::timeout(DEADLINE, future).await;
    result.with_context(|| format!("{what}: not within {} s", DEADLINE.as_secs()))?.context(what.to_owned())
}

impl Cluster {
    /// Starts a cluster in a fresh directory; returns before it is ready.
    pub async fn start(binary: &Path, shape: Shape) -> Result<Self> {
        Self::start_with(binary, shape, &[]).await
    }

    async fn start_with(binary: &Path, shape: Shape, flags: &[String]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("amoeba-bench-").tempdir()?;
        let log = std::fs::File::create(directory.path().join("up.log"))?;
        let started = Instant::now();
        let mut up = Command::new(binary)
            .args(["up", "--members", &shape.members.to_string(), "--nodes", &shape.nodes.to_string()])
            .args(fake_nodes(shape.fake_nodes))
            .args(flags)
            .args(["--port", &free_port()?.to_string()])
            .arg("--data-dir")
            .arg(directory.path().join("cluster"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let kubeconfig = directory.path().join("cluster/admin.kubeconfig");
        let found = within("wait for admin.kubeconfig", async {
            while !kubeconfig.exists() {
                if let Some(status) = up.try_wait()? {
                    bail!("amoeba up ended with {status}");
                }
                tokio::time::sleep(GLANCE).await;
            }
            Target::read(&kubeconfig)
        });
        match found.await {
            Ok(target) => Ok(Cluster { binary: binary.to_owned(), directory, up, target, started }),
            Err(error) => Err(error.context(log_of(directory.path()))),
        }
    }

    /// Starts a cluster and waits until all its nodes are Ready. Returns how long that took as well.
    pub async fn ready(binary: &Path, shape: Shape) -> Result<(Self, Duration)> {
        Self::ready_with(binary, shape, &[]).await
    }

    /// The same with further flags of `amoeba up`.
    pub async fn ready_with(binary: &Path, shape: Shape, flags: &[String]) -> Result<(Self, Duration)> {
        let cluster = Cluster::start_with(binary, shape, flags).await?;
        match within("wait for all nodes to be Ready", cluster.nodes_ready(shape.nodes)).await {
            Ok(()) => {
                let took = cluster.started.elapsed();
                Ok((cluster, took))
            }
            Err(error) => Err(error.context(log_of(cluster.directory.path()))),
        }
    }

    /// Where it is reached, and as whom.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// A connection, as soon as there is somebody to connect to.
    pub async fn connect(&self) -> Result<Connection> {
        within("connect to the API server", async {
            loop {
                match Connection::open(&self.target).await {
                    Ok(connection) => return Ok(connection),
                    Err(_) => tokio::time::sleep(GLANCE).await,
                }
            }
        })
        .await
    }

    /// Lists, then watches from there: the objects, and the watch.
    pub async fn list_and_watch(&self, path: &str) -> Result<(Vec<Value>, Watch)> {
        let mut connection = self.connect().await?;
        let list = connection.json(Method::GET, path, None).await?;
        let version =
            list["metadata"]["resourceVersion"].as_str().context("a list without resourceVersion")?;
        let watch = connection.watch(&format!("{path}?watch=true&resourceVersion={version}")).await?;
        Ok((list["items"].as_array().cloned().unwrap_or_default(), watch))
    }

    /// Watches the objects at `path` until `enough` says so of them, by `namespace/name`.
    pub async fn watch_until(
        &self,
        path: &str,
        mut enough: impl FnMut(&BTreeMap<String, Value>) -> bool,
    ) -> Result<()> {
        let (items, mut watch) = self.list_and_watch(path).await?;
        let mut objects: BTreeMap<String, Value> = items.into_iter().map(|one| (key(&one), one)).collect();
        while !enough(&objects) {
            let mut event = watch.next().await?;
            let object = event["object"].take();
            match event["type"].as_str() {
                Some("DELETED") => drop(objects.remove(&key(&object))),
                Some("ADDED" | "MODIFIED") => drop(objects.insert(key(&object), object)),
                Some("ERROR") => bail!("watch of {path}: {object}"),
                _ => {}
            }
        }
        Ok(())
    }

    async fn nodes_ready(&self, count: usize) -> Result<()> {
        loop {
            let all_ready = |nodes: &BTreeMap<String, Value>| {
                nodes.values().filter(|node| condition(node, "Ready") == Some("True")).count() >= count
            };
            match self.watch_until("/api/v1/nodes", all_ready).await {
                Ok(()) => return Ok(()),
                // A server that only just listens may refuse at first.
                Err(_) => tokio::time::sleep(GLANCE).await,
            }
        }
    }

    /// Waits until a node's condition Ready is this.
    pub async fn node_is(&self, name: &str, ready: &str) -> Result<()> {
        let key = format!("/{name}");
        let is = |nodes: &BTreeMap<String, Value>| {
            nodes.get(&key).is_some_and(|node| condition(node, "Ready") == Some(ready))
        };
        within("wait for the node", self.watch_until("/api/v1/nodes", is)).await
    }

    /// Where everything of the cluster lies.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("cluster")
    }

    /// The name of the member that leads.
    pub async fn leader(&self) -> Result<String> {
        let table = self.chaos(&["ls"]).await?;
        let line = table.lines().find(|line| line.contains("(leader)")).context("no member leads")?;
        line.split_whitespace().next().map(str::to_owned).context("a line begins with a name")
    }

    /// Runs `amoeba chaos …` against this cluster. Returns what it prints.
    pub async fn chaos(&self, arguments: &[&str]) -> Result<String> {
        self.run([&["chaos"][..], arguments].concat().iter().map(OsStr::new)).await
    }

    /// Gives the nodes an image from an archive.
    pub async fn load_image(&self, archive: &Path) -> Result<()> {
        self.run([OsStr::new("image"), OsStr::new("load"), archive.as_os_str()].into_iter()).await.map(drop)
    }

    async fn run<'a>(&self, arguments: impl Iterator<Item = &'a OsStr>) -> Result<String> {
        let arguments: Vec<&OsStr> = arguments.collect();
        let mut command = Command::new(&self.binary);
        command.args(&arguments).arg("--data-dir").arg(self.data_dir());
        let output = command.stdin(Stdio::null()).output().await.context("run amoeba")?;
        if !output.status.success() {
            bail!("amoeba {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The processes of the members of the control plane.
    pub fn servers(&self) -> Vec<Pid> {
        self.children_of_verb("server")
    }

    /// The processes of the nodes' agents.
    pub fn agents(&self) -> Vec<Pid> {
        self.children_of_verb("node")
    }

    /// The supervisors of containers, and the process that they come from.
    pub fn supervisors(&self) -> Vec<Pid> {
        let is_supervisor = |pid: &Pid| process::arguments(*pid).get(1).is_some_and(|word| word == "shim");
        self.processes().into_iter().filter(is_supervisor).collect()
    }

    fn children_of_verb(&self, verb: &str) -> Vec<Pid> {
        let all = self
            .up
            .id()
            .and_then(|pid| Pid::try_from(pid).ok())
            .map(process::descendants)
            .unwrap_or_default();
        let servers = all.into_iter().filter(|(_, command)| command.get(1).is_some_and(|word| word == verb));
        servers.map(|(pid, _)| pid).collect()
    }

    /// Every process of the cluster: supervisor, members, nodes, the shims and processes of pods.
    pub fn processes(&self) -> Vec<Pid> {
        let mut pids = self.directory.path().to_str().map(process::with_argument).unwrap_or_default();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Ends the cluster as Ctrl-C does, and whatever survives it.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.up.id().and_then(|pid| i32::try_from(pid).ok()) {
            kill(UnixPid::from_raw(pid), Signal::SIGINT).context("interrupt amoeba up")?;
        }
        within("wait for amoeba up to end", async { Ok(self.up.wait().await?) }).await?;
        Ok(())
    }
}

impl Drop for Cluster {
    /// Pods outlive their node on purpose; a measurement must not leave them behind.
    fn drop(&mut self) {
        let _ = self.up.start_kill();
        for pid in self.processes() {
            let _ = kill(UnixPid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The flag for simulated nodes, if there are to be some.
fn fake_nodes(count: usize) -> Vec<String> {
    if count == 0 { Vec::new() } else { vec!["--fake-nodes".to_owned(), count.to_string()] }
}

/// The status of one condition of an object.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|one| one["type"] == kind)?["status"].as_str()
}

fn key(object: &Value) -> String {
    let metadata = &object["metadata"];
    format!("{}/{}", metadata["namespace"].as_str().unwrap_or(""), metadata["name"].as_str().unwrap_or(""))
}

/// A port that nobody listens on now. Somebody may take it before we do; then `up` says so.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

/// The end of the log, for error messages.
fn log_of(directory: &Path) -> String {
    let log = std::fs::read_to_string(directory.join("up.log")).unwrap_or_default();
    let last: Vec<&str> = log.lines().rev().take(15).collect();
    format!("amoeba up said:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
}
