//! Pods' network namespaces, held by a file each, so that they outlive the agent and end with the machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns};
use parking_lot::Mutex;
use rtnetlink::Handle;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex as AsyncMutex;

use super::addresses::{Addresses, Exhausted, Range};
use super::host_ports::{self, HostPort};
use super::link::{self, LinkError};
use crate::held_namespace::{self, Kind};
use crate::nft::{Kept, NftError};
use crate::table::name_of;

/// The bridge of all pods of this machine.
pub const BRIDGE: &str = "amoeba0";

/// The way to the pods of machines that aren't on the same link.
pub const TUNNEL: &str = "amoeba1";

/// Why a pod has no network.
#[derive(Debug, thiserror::Error)]
pub enum PodNetworkError {
    /// No address is left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The machine's ports couldn't be led to it.
    #[error(transparent)]
    Ports(#[from] NftError),
    /// Links couldn't be made.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The system refused.
    #[error("{attempted}: {source}")]
    System {
        /// What was attempted.
        attempted: String,
        /// Why not.
        source: io::Error,
    },
}

impl PodNetworkError {
    /// Says what was attempted.
    pub fn system(attempted: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempted = attempted.into();
        |source| Self::System { attempted, source }
    }
}

fn system(attempted: impl Into<String>) -> impl FnOnce(io::Error) -> PodNetworkError {
    PodNetworkError::system(attempted)
}

/// A pod's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// The file that holds its network namespace.
    pub namespace: PathBuf,
}

/// The pods of one node.
pub struct PodNetwork {
    root: PathBuf,
    range: Range,
    addresses: Mutex<Addresses>,
    handle: Handle,
    ports: AsyncMutex<Ports>,
}

/// The machine's ports that lead to pods.
struct Ports {
    pods: BTreeMap<String, (Ipv4Addr, Vec<HostPort>)>,
    /// Laid out only while there are any.
    rules: Kept,
}

impl PodNetwork {
    /// The network of a node with this range. Pods that an earlier agent left under `root` keep their
    /// addresses. `root` should be on a file system that ends with the machine, as namespaces do.
    ///
    /// # Errors
    /// The bridge can't be made; mostly for want of privileges.
    pub async fn open(root: &Path, range: Range) -> Result<Self, PodNetworkError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(system("speak to the kernel's network"))?;
        tokio::spawn(connection);
        link::bridge(&handle, BRIDGE, range).await?;
        set("net/ipv4/ip_forward")?;
        // Lets Services lead to what listens on the machine's loopback; the rules drop all else.
        set(&format!("net/ipv4/conf/{BRIDGE}/route_localnet"))?;
        let noted = read(root).map_err(system(format!("read {}", root.display())))?;
        let taken = noted.iter().map(|(uid, (ip, _))| (*ip, uid.clone()));
        let addresses = Mutex::new(Addresses::new(range, taken));
        let mut ports = Ports::new(root);
        ports.pods = noted.into_iter().filter(|(_, (_, ports))| !ports.is_empty()).collect();
        ports.tell().await?;
        Ok(Self { root: root.to_owned(), range, addresses, handle, ports: AsyncMutex::new(ports) })
    }

    /// The kernel's network, for more routes.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The pod's namespace and address, made unless they are there. A pod that had an address before the
    /// machine started anew gets it again if it can. The machine's `ports` lead to it.
    ///
    /// # Errors
    /// The range is exhausted, or the system refuses. Nothing is left behind then.
    pub async fn attach(
        &self,
        uid: &str,
        had: Option<Ipv4Addr>,
        ports: &[HostPort],
    ) -> Result<Attachment, PodNetworkError> {
        let namespace = self.root.join(uid);
        let there = std::fs::exists(self.note(uid)).unwrap_or(false);
        let ip = self.addresses.lock().take(uid, had)?;
        if there {
            return Ok(Attachment { ip, namespace });
        }
        let made = self.make(uid, ip, &namespace, ports).await;
        if let Err(error) = made {
            self.detach(uid).await?;
            return Err(error);
        }
        Ok(Attachment { ip, namespace })
    }

    async fn make(
        &self,
        uid: &str,
        ip: Ipv4Addr,
        path: &Path,
        ports: &[HostPort],
    ) -> Result<(), PodNetworkError> {
        // What a crash between two steps left.
        self.clear(uid).await?;
        let target = path.to_owned();
        let create = move || held_namespace::hold(Kind::Network, &target).and_then(|()| File::open(&target));
        let made = tokio::task::spawn_blocking(create).await.map_err(io::Error::other);
        let attempted = format!("make the network namespace {}", path.display());
        let namespace = made.and_then(|made| made).map_err(system(attempted))?;
        link::pair(&self.handle, BRIDGE, &outer_name(uid), namespace.as_raw_fd()).await?;
        let gateway = self.range.gateway();
        let inside = within(namespace, async move |handle| link::inside(&handle, ip, gateway).await).await;
        inside.map_err(system("enter a pod's network namespace"))??;
        if !ports.is_empty() {
            let mut all = self.ports.lock().await;
            all.pods.insert(uid.to_owned(), (ip, ports.to_vec()));
            all.tell().await?;
        }
        // Written last: who finds it finds all of it.
        let note: Vec<String> =
            [ip.to_string()].into_iter().chain(ports.iter().map(HostPort::to_string)).collect();
        std::fs::write(self.note(uid), note.join("\n")).map_err(system("note a pod's address"))
    }

    /// Takes everything away. No such pod is fine.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn detach(&self, uid: &str) -> Result<(), PodNetworkError> {
        self.clear(uid).await?;
        self.addresses.lock().give_back(uid);
        Ok(())
    }

    async fn clear(&self, uid: &str) -> Result<(), PodNetworkError> {
        let mut ports = self.ports.lock().await;
        if ports.pods.remove(uid).is_some() {
            ports.tell().await?;
        }
        drop(ports);
        link::remove(&self.handle, &outer_name(uid)).await?;
        empty(&self.root, uid)
    }

    fn note(&self, uid: &str) -> PathBuf {
        note(&self.root, uid)
    }
}

fn note(root: &Path, uid: &str) -> PathBuf {
    root.join(format!("{uid}.ip"))
}

/// Removes the files of a pod, and what is mounted on them.
pub fn empty(root: &Path, uid: &str) -> Result<(), PodNetworkError> {
    let path = root.join(uid);
    let attempted = format!("remove {}", path.display());
    let _ = umount2(&path, MntFlags::MNT_DETACH); // nothing mounted is fine
    unless_missing(std::fs::remove_file(&path)).map_err(system(attempted.clone()))?;
    unless_missing(std::fs::remove_file(note(root, uid))).map_err(system(attempted))
}

/// The table of a node's ports: nodes of one machine have one each, called after their directory.
pub fn table_of(root: &Path) -> String {
    name_of("amoeba-ports", &root.to_string_lossy())
}

impl Ports {
    fn new(root: &Path) -> Self {
        let name = table_of(root);
        let frame = host_ports::frame(&name);
        Self { pods: BTreeMap::new(), rules: Kept::new(name, frame) }
    }

    async fn tell(&mut self) -> Result<(), NftError> {
        if !self.pods.is_empty() {
            let pods = self.pods.values().map(|(ip, ports)| (*ip, ports.as_slice()));
            return self.rules.bring(host_ports::table(pods)).await;
        }
        // A node whose pods ask for no ports needs no nft.
        match self.rules.remove().await {
            Err(NftError::Run(_)) => Ok(()),
            other => other,
        }
    }
}

fn set(name: &str) -> Result<(), PodNetworkError> {
    let path = format!("/proc/sys/{name}");
    // Some places show the right value and refuse to have it written.
    if std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    std::fs::write(&path, "1").map_err(system(format!("set {path}")))
}

/// The pods that are there, with their addresses and ports.
pub fn read(root: &Path) -> io::Result<BTreeMap<String, (Ipv4Addr, Vec<HostPort>)>> {
    std::fs::create_dir_all(root)?;
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        let (Some(uid), Some("ip")) = (stem(&path), path.extension().and_then(|e| e.to_str())) else {
            continue;
        };
        let note = std::fs::read_to_string(&path)?;
        let mut lines = note.lines();
        if let Some(ip) = lines.next().and_then(|ip| ip.parse().ok()) {
            found.insert(uid.to_owned(), (ip, lines.filter_map(|line| line.parse().ok()).collect()));
        }
    }
    Ok(found)
}

fn stem(path: &Path) -> Option<&str> {
    path.file_stem().and_then(|stem| stem.to_str())
}

fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Link names have fifteen characters at most; two pods don't share so much of a digest.
pub fn outer_name(uid: &str) -> String {
    let digest = Sha256::digest(uid.as_bytes());
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("am{hex}")
}

/// Runs something with a view of the kernel's network from within the namespace.
async fn within<T, F>(namespace: File, what: F) -> io::Result<T>
where
    T: Send + 'static,
    F: AsyncFnOnce(Handle) -> T + Send + 'static,
{
    on_a_thread(move || enter(&namespace, what)).await
}

/// Runs something that may block on a thread that is in the namespace; `None` is the caller's own.
///
/// # Errors
/// There is no such namespace, or whatever the work says.
pub async fn on_a_thread_within<T: Send + 'static>(
    namespace: Option<PathBuf>,
    what: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    on_a_thread(move || {
        if let Some(path) = namespace {
            setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
        }
        what()
    })
    .await
}

/// On a thread that nobody else will use.
async fn on_a_thread<T: Send + 'static>(
    what: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("pod-network".to_owned());
    thread.spawn(move || {
        let _ = answer.send(what());
    })?;
    answered.await.map_err(io::Error::other)?
}

fn enter<T, F: AsyncFnOnce(Handle) -> T>(namespace: &File, what: F) -> io::Result<T> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(what(handle).await)
    })
}
