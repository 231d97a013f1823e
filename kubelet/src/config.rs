//! Everything the agent can be told, parsed once by its caller and handed down in parts.
//!
//! No field is an "unset" left for later: defaults are filled in by [`KubeletConfig::new`], and nothing
//! below reads the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use network::ClusterNetwork;
use network::pod::addresses::Range;

use crate::credentials::Renewal;
use crate::eviction::EvictionConfig;
use crate::pod::sysctls::Allowed;
use crate::runtime::fake::FakeScript;

/// How long a runtime may be silent, as upstream has it: it survives being restarted.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(30);

/// The name of a Node object; a DNS subdomain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(pub String);

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The agent's configuration.
#[derive(Clone, Debug)]
pub struct KubeletConfig {
    /// The node this agent speaks for.
    pub node_name: NodeName,
    /// Where pods' records and logs are kept. One agent at a time: guarded by a lock file.
    pub data_dir: PathBuf,
    /// Where images are kept; nodes of one machine may share it.
    pub image_dir: PathBuf,
    /// Where the HTTPS API listens; port 0 picks one. The port is reported in the node's status.
    pub listen: SocketAddr,
    /// The node's `InternalIP`; pods in the host network report it as theirs.
    pub address: IpAddr,
    /// What runs the containers.
    pub runtime: RuntimeKind,
    /// The socket of a runtime that speaks the Container Runtime Interface: it gets all pods but those whose
    /// RuntimeClass has the handler `native`.
    pub cri_socket: Option<PathBuf>,
    /// Authorities of that runtime's streaming server, where it speaks HTTPS; `None`: those of the machine.
    pub cri_streaming_ca: Option<PathBuf>,
    /// How long that runtime may be silent before the node isn't ready.
    pub runtime_patience: Duration,
    /// How often the node says that it lives.
    pub heartbeat: Heartbeat,
    /// Certificate, key and client CA of the HTTPS API. Without it the API isn't served.
    pub tls: Option<ServingTls>,
    /// How the node's own certificates are renewed; without it somebody else does that.
    pub renewal: Option<Renewal>,
    /// Replaces what is measured of the machine.
    pub capacity: CapacityOverrides,
    /// Labels set on the node in addition to hostname, os and architecture.
    pub labels: BTreeMap<String, String>,
    /// Taints set when the node registers for the first time.
    pub taints: Vec<Taint>,
    /// The delays between restarts of a failing container.
    pub backoff: Backoff,
    /// Size and number of a container's log files.
    pub logs: LogLimits,
    /// On a graceful stop of the agent: `true` ends its pods first (they are not reported as failed:
    /// the next start runs them again), `false` leaves them running to be adopted.
    pub stop_pods_on_shutdown: bool,
    /// The longest a graceful stop waits for pods to end before it kills them.
    pub shutdown_grace: Duration,
    /// On a graceful stop the whole node goes down: pods end by their priority and are reported as failed, the
    /// critical ones within this part of [`Self::shutdown_grace`], after all others. `None`: only the agent stops.
    pub node_shutdown: Option<Duration>,
    /// Which pods end when the node runs out of something.
    pub eviction: EvictionConfig,
    /// Gives pods addresses of their own, and Services a way to them; without it pods have the host's network.
    pub network: Option<PodNetworking>,
    /// The folder of manifests of pods that run whatever the API server says.
    pub static_pods: Option<PathBuf>,
    /// The most processes and threads of a pod from an image.
    pub pod_max_pids: Option<u64>,
    /// Kernel settings that pods may have beside those that concern nobody else.
    pub allowed_sysctls: Allowed,
    /// What `nodeInfo.kubeletVersion` reports, such as `v1.37.0`.
    pub version: String,
}

impl KubeletConfig {
    /// A native node with upstream's intervals, serving no API.
    pub fn new(node_name: impl Into<String>, data_dir: impl Into<PathBuf>, address: IpAddr) -> Self {
        let data_dir = data_dir.into();
        Self {
            node_name: NodeName(node_name.into()),
            image_dir: data_dir.join("images"),
            data_dir,
            listen: SocketAddr::new(address, 0),
            address,
            runtime: RuntimeKind::Native { shim_command: Vec::new() },
            cri_socket: None,
            cri_streaming_ca: None,
            runtime_patience: RUNTIME_PATIENCE,
            heartbeat: Heartbeat::default(),
            tls: None,
            renewal: None,
            capacity: CapacityOverrides::default(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            backoff: Backoff::default(),
            logs: LogLimits::default(),
            stop_pods_on_shutdown: false,
            shutdown_grace: Duration::from_secs(30),
            node_shutdown: None,
            eviction: EvictionConfig::off(),
            network: None,
            static_pods: None,
            pod_max_pids: None,
            allowed_sysctls: Allowed::default(),
            version: "v1.37.0".to_owned(),
        }
    }
}

/// How pods get addresses of their own.
#[derive(Clone, Debug)]
pub struct PodNetworking {
    /// The node's range; without one it is what the Node's `spec.podCIDR` says, which the agent waits for.
    pub range: Option<Range>,
    /// What all nodes agree on.
    pub cluster: ClusterNetwork,
}

/// Which runtime runs the containers.
#[derive(Clone, Debug)]
pub enum RuntimeKind {
    /// Containers made in process, and plain processes of this host, each under a shim.
    Native {
        /// The command that ends in [`crate::shim_main`]; empty means `current_exe() shim`. The shim's
        /// own arguments are appended.
        shim_command: Vec<OsString>,
    },
    /// Nothing really runs: for tests and simulated nodes.
    Fake(FakeScript),
}

/// How often the node says that it lives.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// Between renewals of the node's Lease. A failed renewal is retried after a fifth of it.
    pub renew_interval: Duration,
    /// `spec.leaseDurationSeconds` of the Lease; whole seconds, at least one.
    pub lease_duration: Duration,
    /// Between reports of an unchanged node status. Changes are reported at once.
    pub status_interval: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            renew_interval: Duration::from_secs(10),
            lease_duration: Duration::from_secs(40),
            status_interval: Duration::from_secs(300),
        }
    }
}

impl Heartbeat {
    /// The `up` profile: a dead node is noticed within about a second.
    pub fn fast() -> Self {
        Self {
            renew_interval: Duration::from_millis(250),
            lease_duration: Duration::from_secs(1),
            status_interval: Duration::from_secs(300),
        }
    }
}

/// PEM files of the HTTPS API.
#[derive(Clone, Debug)]
pub struct ServingTls {
    /// What it shows.
    pub certificate: ServingCertificate,
    /// The CA that signs callers' certificates.
    pub client_ca: PathBuf,
}

/// Where the certificate of the HTTPS API comes from.
#[derive(Clone, Debug)]
pub enum ServingCertificate {
    /// From these PEM files.
    Files {
        /// The certificate chain.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// From the cluster, which is asked for it; needs [`KubeletConfig::renewal`].
    Requested,
}

/// What the node claims to have instead of what is measured.
#[derive(Clone, Debug, Default)]
pub struct CapacityOverrides {
    /// In quantity form, such as `4` or `500m`.
    pub cpu: Option<String>,
    /// In quantity form, such as `8Gi`.
    pub memory: Option<String>,
    /// In quantity form.
    pub ephemeral_storage: Option<String>,
    /// How many pods fit; 110 as upstream when unset.
    pub pods: Option<u32>,
}

/// The delays between restarts of a failing container: `initial`, doubled each time up to `max`, and
/// forgotten once a run lasted `reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first delay.
    pub initial: Duration,
    /// The longest delay.
    pub max: Duration,
    /// A run this long clears the past.
    pub reset: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(10),
            max: Duration::from_secs(300),
            reset: Duration::from_secs(600),
        }
    }
}

/// Size and number of a container's log files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogLimits {
    /// Bytes after which the current file is rotated away.
    pub max_size: u64,
    /// Files kept, the current one included; at least one.
    pub max_files: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { max_size: 10 << 20, max_files: 5 }
    }
}
