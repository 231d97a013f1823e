//! From a key to a plan: each controller's look gathers its snapshot from the shared caches and calls the
//! pure reconcile.

mod accounts;
mod addresses;
mod autoscalers;
mod bootstrap;
mod certificates;
mod garbage;
mod jobs;
mod namespaces;
mod network;
mod nodes;
mod quotas;
mod volumes;
mod workloads;

pub use accounts::{Accounts, LegacyTokens, RoleAggregation, TokenSecrets};
pub use addresses::ServiceRanges;
pub use autoscalers::Autoscalers;
#[cfg(test)]
pub use bootstrap::BootstrapCaches;
pub use bootstrap::{Bootstrap, BootstrapSigner, TokenCleaner};
pub use certificates::Certificates;
pub use garbage::{GarbageCollector, Uid};
pub use jobs::{JobEnds, JobPods};
pub use namespaces::{Namespaces, RootCa};
pub use network::{Budgets, ClaimProtection, ClusterDns, EndpointsLists};
pub use nodes::{NodeLifecycle, NodeRanges, NodeTtl, PodGc, Silences, TaintEviction};
pub use quotas::Quotas;
pub use volumes::{ClaimBinding, EphemeralClaims, VolumeBinding, VolumeProtection};
pub use workloads::Workload;
