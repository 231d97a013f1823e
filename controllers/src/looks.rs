//! From a key to a plan: each controller's look gathers its snapshot from the shared caches and calls the
//! pure reconcile.

mod garbage;
mod namespaces;
mod nodes;
mod workloads;

pub use garbage::{GarbageCollector, Uid};
pub use namespaces::{Accounts, Namespaces, RootCa};
pub use nodes::{NodeLifecycle, PodGc, TaintEviction};
pub use workloads::{Deployments, ReplicaSets};
