//! From a key to a plan: each controller's look gathers its snapshot from the shared caches and calls the
//! pure reconcile.

mod certificates;
mod garbage;
mod jobs;
mod namespaces;
mod network;
mod nodes;
mod quotas;
mod workloads;

pub use certificates::Certificates;
pub use garbage::{GarbageCollector, Uid};
pub use jobs::{JobEnds, JobPods};
pub use namespaces::{Accounts, Namespaces, RootCa};
pub use network::{Budgets, ClaimProtection, EndpointsLists};
pub use nodes::{NodeLifecycle, PodGc, TaintEviction};
pub use quotas::Quotas;
pub use workloads::Workload;
