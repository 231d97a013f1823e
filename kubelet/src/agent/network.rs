//! The node's part of the cluster's network.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use client::Shutdown;
use client::informer::Informer;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use network::pod::addresses::{NotARange, Range};
use network::pod::leftovers::{own, sweep};
use network::pod::namespace::{PodNetwork, PodNetworkError};
use sha2::{Digest, Sha256};

use crate::config::KubeletConfig;
use crate::node::NodeReporter;
use crate::pod::sandbox::ClusterDns;

/// Changes of the one Node that may wait unread; then its watch waits.
const CHANGES: usize = 16;

/// Pods' namespaces end with the machine, and so does what is kept here.
const ROOT: &str = "/run/amoeba/network";

/// What pods with addresses of their own are made with.
pub struct Network {
    /// Gives out namespaces and addresses.
    pub pods: PodNetwork,
    /// Whom pods ask for names.
    pub resolver: ClusterDns,
}

impl Network {
    /// The network of the node with this data directory; its pods of before keep their addresses.
    ///
    /// # Errors
    /// The machine doesn't let us.
    pub async fn open(data_dir: &Path, settings: &network::Settings) -> Result<Self, PodNetworkError> {
        let root = Path::new(ROOT).join(id_of(data_dir));
        own(&root, data_dir).map_err(PodNetworkError::system(format!("write to {}", root.display())))?;
        let pods = PodNetwork::open(&root, settings.pods).await?;
        sweep(pods.handle(), Path::new(ROOT)).await;
        let network::ClusterNetwork { dns, domain, .. } = &settings.cluster;
        let resolver = ClusterDns { server: dns.to_string(), domain: domain.clone() };
        Ok(Self { pods, resolver })
    }
}

/// What the node's network is made by, once the node has a range; `None` if it is to have none, or if
/// `shutdown` is requested first.
///
/// # Errors
/// The Node can't be asked for.
pub async fn settle(
    client: &kube::Client,
    config: &KubeletConfig,
    reporter: &NodeReporter,
    shutdown: &Shutdown,
) -> Option<network::Settings> {
    let networking = config.network.as_ref()?;
    let range = match networking.range {
        Some(range) => range,
        None => tokio::select! {
            range = given(client, config, reporter) => range,
            () = shutdown.requested() => return None,
        },
    };
    let node = config.node_name.0.clone();
    let address = config.address;
    Some(network::Settings { node, address, pods: range, cluster: networking.cluster.clone() })
}

/// The range that the control plane gives the node, which registers for it. Until then the node has said
/// nothing of its state, so it is not ready and gets no pods.
async fn given(client: &kube::Client, config: &KubeletConfig, reporter: &NodeReporter) -> Range {
    let nodes: Api<Node> = Api::all(client.clone());
    let fields = format!("metadata.name={}", config.node_name);
    let informer = Informer::builder(nodes).fields(&fields).start();
    let mut changes = informer.subscribe(CHANGES);
    reporter.register().await;
    tracing::info!(node = %config.node_name, "wait for a range of pod addresses (server --cluster-cidr)");
    loop {
        let Some(change) = changes.recv().await else { std::future::pending().await };
        let ranges = change.object().map(|node| range_of(node));
        match ranges {
            Some(Ok(Some(range))) => return range,
            Some(Err(wrong)) => tracing::error!(error = %wrong, "the Node's spec.podCIDR is of no use"),
            _ => {}
        }
    }
}

fn range_of(node: &Node) -> Result<Option<Range>, NotARange> {
    let text = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref());
    text.map(str::parse).transpose()
}

/// Tells this machine's nodes apart: those of different clusters may have the same name, and never the same
/// directory.
pub fn id_of(data_dir: &Path) -> String {
    let digest = Sha256::digest(data_dir.as_os_str().as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Routes Services for as long as the agent runs. Pods go on without if that fails.
pub async fn route_services(client: kube::Client, settings: network::Settings, shutdown: Shutdown) {
    if let Err(error) = network::run(client, settings, shutdown).await {
        tracing::error!(error = %super::chain(&error), "Services aren't routed on this machine");
    }
}
