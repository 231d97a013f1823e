//! The node's part of the cluster's network.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use client::Shutdown;
use network::pod::namespace::{PodNetwork, PodNetworkError};
use sha2::{Digest, Sha256};

use crate::pod::sandbox::ClusterDns;

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
        // Nodes of different clusters may have the same name, and never the same directory.
        let digest = Sha256::digest(data_dir.as_os_str().as_bytes());
        let id: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let root = Path::new(ROOT).join(id);
        let pods = PodNetwork::open(&root, settings.pods).await?;
        let resolver = ClusterDns { server: settings.dns.to_string(), domain: settings.domain.clone() };
        Ok(Self { pods, resolver })
    }
}

/// Routes Services for as long as the agent runs. Pods go on without if that fails.
pub async fn route_services(client: kube::Client, settings: network::Settings, shutdown: Shutdown) {
    if let Err(error) = network::run(client, settings, shutdown).await {
        tracing::error!(error = %super::chain(&error), "Services aren't routed on this machine");
    }
}
