//! Keeps the kernel's rules as the NetworkPolicies have it.
//!
//! Pods and namespaces are watched only while there are policies: most clusters have none, and all pods of a
//! cluster are many. When the agent ends, its rules stay, as its pods do; who routes next takes them up.

use std::net::IpAddr;
use std::sync::Arc;

use client::Shutdown;
use client::informer::Informer;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use tokio::sync::Notify;

use super::layout::{FRAME, TABLE, table};
use super::plan::{Cluster, isolation};
use super::pod::{PolicyPod, kept};
use crate::driver::Looks;
use crate::nft::{Kept, NftError};
use crate::table::Table;

/// Enforces policies on the pods of the machine with this address until `shutdown` is requested.
pub async fn keep(client: kube::Client, machine: IpAddr, shutdown: Shutdown) {
    let mut keeper = Keeper::start(client, machine);
    let changed = keeper.changed.clone();
    let mut looks = Looks::new(&changed, &shutdown);
    while looks.next().await {
        looks.went_well(keeper.look().await);
    }
}

struct Keeper {
    client: kube::Client,
    machine: IpAddr,
    changed: Arc<Notify>,
    policies: Informer<NetworkPolicy>,
    around: Option<Around>,
    rules: Kept,
    /// No policies, and the kernel knows.
    idle: bool,
}

/// What policies speak of.
struct Around {
    pods: Informer<Pod>,
    namespaces: Informer<Namespace>,
}

impl Keeper {
    fn start(client: kube::Client, machine: IpAddr) -> Self {
        let changed = Arc::new(Notify::new());
        let on_change = changed.clone();
        let policies = Informer::builder(Api::<NetworkPolicy>::all(client.clone()))
            .on_change(move |_| on_change.notify_one())
            .start();
        let rules = Kept::new(TABLE, FRAME);
        Self { client, machine, changed, policies, around: None, rules, idle: false }
    }

    async fn look(&mut self) -> Result<(), NftError> {
        let policies = self.policies.store();
        if !policies.is_synced() {
            return Ok(());
        }
        if policies.is_empty() {
            self.around = None;
            if !self.idle {
                self.rules.remove().await?;
                self.idle = true;
            }
            return Ok(());
        }
        self.idle = false;
        let around = self.around.get_or_insert_with(|| Around::watch(&self.client, &self.changed));
        match around.table(&policies.list(), self.machine) {
            Some(table) => self.rules.bring(table).await,
            None => Ok(()),
        }
    }
}

impl Around {
    fn watch(client: &kube::Client, changed: &Arc<Notify>) -> Self {
        let (on_pod, on_namespace) = (changed.clone(), changed.clone());
        let pods = Informer::builder(Api::<Pod>::all(client.clone()))
            .keep(kept)
            .on_change(move |_| on_pod.notify_one())
            .start();
        let namespaces = Informer::builder(Api::<Namespace>::all(client.clone()))
            .on_change(move |_| on_namespace.notify_one())
            .start();
        Self { pods, namespaces }
    }

    /// What is to be enforced; `None` while not all is known.
    fn table(&self, policies: &[Arc<NetworkPolicy>], machine: IpAddr) -> Option<Table> {
        let (pods, namespaces) = (self.pods.store(), self.namespaces.store());
        if !pods.is_synced() || !namespaces.is_synced() {
            return None;
        }
        let pods: Vec<PolicyPod> = pods.list().iter().filter_map(|pod| PolicyPod::of(pod)).collect();
        let namespaces = namespaces.list();
        let cluster = Cluster {
            policies: policies.iter().map(|policy| &**policy).collect(),
            pods: pods.iter().collect(),
            namespaces: namespaces.iter().map(|namespace| &**namespace).collect(),
        };
        Some(table(&isolation(&cluster, |pod| pod.machine == Some(machine))))
    }
}
