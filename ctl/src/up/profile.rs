//! What the processes of a local cluster are told: where they serve, and the fast clock of a cluster that is tried out.
//!
//! `server` and `node` themselves have upstream's slower defaults.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;

use super::UpError;
use super::layout::{ChildId, Layout};
use super::pod_network::PodNetwork;
use super::ports::{self, local};
use super::shape::Shape;
use super::spawn::ChildSpec;
use crate::standalone::url::Url;

/// All processes, members first.
pub fn children(shape: &Shape) -> impl Iterator<Item = ChildId> + use<> {
    let members = (1..=shape.members).map(ChildId::Member);
    let fake = (shape.fake_nodes > 0).then_some(ChildId::Fake);
    members.chain((1..=shape.nodes).map(ChildId::Node)).chain(fake)
}

/// Where each member serves clients of the API and of etcd, and where it talks to the other members.
pub struct MemberPorts {
    /// The API, by member.
    pub client: BTreeMap<u32, u16>,
    /// The store, to etcd's clients.
    pub etcd: BTreeMap<u32, u16>,
    /// Raft.
    pub peer: BTreeMap<u32, u16>,
}

impl MemberPorts {
    /// A single member serves on the cluster's port itself: no hop between client and server.
    ///
    /// # Errors
    /// No ports are free.
    pub fn choose(shape: &Shape) -> Result<Self, UpError> {
        let members = shape.members as usize;
        let free = ports::free(2 * members)?;
        let (etcd, client) = free.split_at(members);
        let client = if members == 1 { &[shape.port] } else { client };
        let numbered = |ports: &[u16]| (1..).zip(ports.iter().copied()).collect();
        Ok(Self { client: numbered(client), etcd: numbered(etcd), peer: numbered(&shape.peer_ports) })
    }
}

/// Where a member serves etcd's clients.
pub fn etcd_url(port: u16) -> Url {
    Url { secure: true, host: Ipv4Addr::LOCALHOST.to_string(), port }
}

/// How each process is started.
pub fn specs(layout: &Layout, shape: &Shape, ports: &MemberPorts, network: &PodNetwork) -> Vec<ChildSpec> {
    let spec = |id: ChildId| {
        let arguments = match id {
            ChildId::Member(number) => member_arguments(layout, shape, number, ports),
            ChildId::Node(number) => {
                let mut arguments = node_arguments(layout, id);
                arguments.extend(network.arguments(number));
                arguments.extend(runtime_arguments(shape));
                arguments
            }
            ChildId::Fake => fake_arguments(layout, shape),
        };
        ChildSpec { id, arguments, log: layout.log(id) }
    };
    children(shape).map(spec).collect()
}

/// Flags whose values aren't paths.
fn plain<const N: usize>(flags: [&str; N]) -> Vec<OsString> {
    flags.map(OsString::from).to_vec()
}

/// The fast profile of a member: elections, leases and evictions in about a second.
fn member_arguments(layout: &Layout, shape: &Shape, number: u32, ports: &MemberPorts) -> Vec<OsString> {
    let id = ChildId::Member(number);
    let mut arguments = plain(["server", "--child-of-supervisor", "--name", &id.to_string()]);
    arguments.extend(["--data-dir".into(), layout.child(id).into_os_string()]);
    arguments.extend(["--pki-dir".into(), layout.pki().into_os_string()]);
    arguments.extend(plain(["--listen", &local(ports.client[&number]).to_string()]));
    arguments.extend(plain(["--member-id", &number.to_string()]));
    arguments.extend(store_arguments(shape, number, ports));
    arguments.extend(plain(["--tick", "50ms"]));
    arguments.extend(plain(["--leader-elect-lease-duration", "1500ms"]));
    arguments.extend(plain(["--leader-elect-renew-deadline", "1s"]));
    arguments.extend(plain(["--leader-elect-retry-period", "300ms"]));
    arguments.extend(plain(["--node-monitor-grace-period", "1600ms"]));
    arguments.extend(plain(["--node-startup-grace-period", "10s"]));
    arguments.extend(plain(["--node-eviction-rate", "100", "--missing-node-quarantine", "2s"]));
    arguments.extend(plain(["--default-toleration-seconds", "0", "--proxy-loopback"]));
    if let Some(path) = &shape.scheduler_config {
        arguments.extend(plain(["--scheduler-config", path]));
    }
    arguments
}

/// Where a member's objects are: in its own store, which has peers, or in an etcd that others run.
fn store_arguments(shape: &Shape, number: u32, ports: &MemberPorts) -> Vec<OsString> {
    if !shape.etcd.is_empty() {
        return shape.etcd.iter().map(OsString::from).collect();
    }
    let mut arguments = plain(["--listen-client-urls", &etcd_url(ports.etcd[&number]).to_string()]);
    for (member, port) in &ports.peer {
        arguments.extend(plain(["--peer", &format!("{member}={}", local(*port))]));
    }
    arguments
}

/// The fast profile of a node: it says that it lives several times within the grace period.
fn node_arguments(layout: &Layout, id: ChildId) -> Vec<OsString> {
    let mut arguments = plain(["node", "--child-of-supervisor", "--name", &id.to_string()]);
    arguments.extend(["--data-dir".into(), layout.child(id).into_os_string()]);
    arguments.extend(["--image-dir".into(), layout.images().into_os_string()]);
    arguments.extend(["--kubeconfig".into(), layout.node_kubeconfig(id).into_os_string()]);
    arguments.extend(["--tls-cert-file".into(), layout.node_certificate(id).into_os_string()]);
    arguments.extend(["--tls-private-key-file".into(), layout.node_key(id).into_os_string()]);
    arguments.extend(["--client-ca-file".into(), layout.pki().join("ca.crt").into_os_string()]);
    arguments.extend(plain(["--listen", "127.0.0.1:0", "--address", "127.0.0.1"]));
    arguments.extend(plain(["--lease-renew-interval", "400ms", "--lease-duration", "2s"]));
    arguments.extend(plain(["--stop-pods-on-shutdown", "--shutdown-grace-period", "8s"]));
    // A local cluster is no reason for its owner to tidy up the disk (as kind has it).
    arguments.extend(plain(["--eviction-hard", "memory.available<100Mi"]));
    arguments
}

/// The runtime that a node's pods get beside its own; one that is being upgraded is missed after ten seconds.
fn runtime_arguments(shape: &Shape) -> Vec<OsString> {
    let flags = |socket: &String| {
        plain(["--container-runtime-endpoint", socket, "--container-runtime-patience", "10s"])
    };
    shape.container_runtime.iter().flat_map(flags).collect()
}

/// Simulated nodes can't be killed one by one, so their signs of life are rare and hold long: at rest 5,000 of
/// them cost 50 small writes a second.
fn fake_arguments(layout: &Layout, shape: &Shape) -> Vec<OsString> {
    let mut arguments = plain(["node", "--child-of-supervisor", "--fake", &shape.fake_nodes.to_string()]);
    arguments.extend(["--data-dir".into(), layout.child(ChildId::Fake).into_os_string()]);
    arguments.extend(["--kubeconfig".into(), layout.node_kubeconfig(ChildId::Fake).into_os_string()]);
    arguments.extend(plain(["--lease-renew-interval", "100s", "--lease-duration", "300s"]));
    arguments
}
