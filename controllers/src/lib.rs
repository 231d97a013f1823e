//! What should be: the control loops, one reconcile a file.
//!
//! Each controller is a pure function from an object and a snapshot to a [`plan::Plan`]; one shared driver
//! performs plans. What always holds: a key says what to look at, never what happened; nothing is written
//! without a precondition; a crash after any write leads to the same end. Controllers and everything else
//! meet only through objects of the API server.

pub mod autoscaler;
pub mod bootstrap_signer;
mod caches;
mod catalog;
pub mod certificates;
pub mod claim_protection;
pub mod cluster_dns;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
mod driver;
pub mod endpoint_mirror;
pub mod endpoint_slice;
pub mod endpoints;
pub mod ephemeral_claims;
mod expectations;
pub mod garbage_collector;
mod history;
pub mod job;
pub mod legacy_tokens;
mod looks;
pub mod namespace;
pub mod node_lifecycle;
mod node_match;
pub mod node_ranges;
pub mod node_ttl;
mod owner;
pub mod plan;
mod pod;
pub mod pod_gc;
mod protection;
pub mod replicaset;
pub mod resource_quota;
pub mod role_aggregation;
pub mod root_ca;
pub mod service_account;
pub mod service_cidr;
mod slice_packing;
pub mod stateful_set;
pub mod taint_eviction;
mod template;
mod term;
pub mod token_cleaner;
pub mod token_secrets;
mod trigger_time;
pub mod volume_binder;
pub mod volume_protection;
mod wiring;
#[cfg(test)]
mod world;

use client::{
    Shutdown,
    election::{self, ElectionConfig},
};
use kube::Client;
use node_lifecycle::NodeTimes;
use std::{fmt, sync::Arc, time::Duration};

/// Name of the lease, as kube-controller-manager's: only one of both acts in a cluster.
pub const LEASE: &str = "kube-controller-manager";

/// How the controllers run.
#[derive(Clone)]
pub struct ControllersConfig {
    /// Who we are and how fast leadership moves.
    pub election: ElectionConfig,
    /// How patient we are with silent nodes.
    pub nodes: NodeTimes,
    /// How long a node must be missing before its pods are removed. Upstream: 40 s.
    pub missing_node_quarantine: Duration,
    /// Where nodes' ranges of pod addresses come from; none leaves them to others.
    pub node_ranges: Option<node_ranges::NodeRanges>,
    /// The cluster's CA as PEM, published in every namespace; none publishes nothing.
    pub root_ca: Option<String>,
    /// Who signs certificate requests; none leaves them to others.
    pub signer: Option<Arc<dyn certificates::CertificateSigner>>,
    /// Keys that one controller reconciles at the same time. Upstream: 5.
    pub concurrency: usize,
}

impl fmt::Debug for ControllersConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signs = self.signer.is_some();
        f.debug_struct("ControllersConfig").field("election", &self.election).field("signs", &signs).finish()
    }
}

impl ControllersConfig {
    /// The timing of kube-controller-manager.
    pub fn upstream(identity: &str) -> ControllersConfig {
        ControllersConfig {
            election: ElectionConfig::upstream(LEASE, identity),
            nodes: NodeTimes::upstream(),
            missing_node_quarantine: Duration::from_secs(40),
            node_ranges: None,
            root_ca: None,
            signer: None,
            concurrency: 5,
        }
    }

    /// The profile of a local cluster: a dead node is noticed within about 1.5 s, its pods leave at once.
    pub fn fast(identity: &str) -> ControllersConfig {
        let nodes = NodeTimes {
            grace: Duration::from_millis(1500),
            startup_grace: Duration::from_secs(10),
            eviction_rate: 100.0,
            ..NodeTimes::upstream()
        };
        ControllersConfig {
            election: ElectionConfig::fast(LEASE, identity),
            nodes,
            missing_node_quarantine: Duration::from_secs(2),
            concurrency: 16,
            ..ControllersConfig::upstream(identity)
        }
    }
}

/// Runs all controllers whenever this process leads, until `shutdown`.
pub async fn run(client: Client, config: ControllersConfig, shutdown: Shutdown) {
    let election = config.election.clone();
    election::run_when_leader(client.clone(), election, shutdown, |leadership| {
        term::lead(client.clone(), config.clone(), leadership)
    })
    .await;
}
