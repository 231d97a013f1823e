//! Which change makes which controller look at which key. Nothing is decided here: a key too many costs a
//! look, a key too few would cost a reaction.

mod addresses;
mod identities;
mod nodes;
mod pods;
mod queues;
mod storage;

pub use queues::Queues;

use crate::{
    caches::{BY_OWNER, Caches, Watched},
    cluster_dns, endpoint_slice, job,
    looks::GarbageCollector,
    node_lifecycle::Census,
    owner,
};
use api::selector::LabelSelector;
use client::{
    informer::{Change, ObjectKey, Store},
    queue::WorkQueue,
};
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
        autoscaling::v2::HorizontalPodAutoscaler,
        batch::v1::{CronJob, Job},
        core::v1::{Endpoints, ReplicationController, ResourceQuota, Service},
        discovery::v1::EndpointSlice,
        policy::v1::PodDisruptionBudget,
        rbac::v1::ClusterRole,
    },
    apimachinery::pkg::apis::meta::v1 as meta,
};
use kube::{Resource, ResourceExt, core::ApiResource};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

/// What handlers need.
#[derive(Clone)]
pub struct Wires {
    queues: Queues,
    garbage: GarbageCollector,
    census: Census,
    caches: Arc<OnceLock<Caches>>,
}

/// Calls `add` for the object of a change.
fn for_each<K: Resource>(change: &Change<K>, add: impl Fn(ObjectKey)) {
    if let Some(object) = change.object() {
        add(ObjectKey::of(&**object));
    }
}

/// The object before and after.
fn states<K>(change: &Change<K>) -> impl Iterator<Item = &K> {
    let old = match change {
        Change::Applied { old, .. } => old.as_deref(),
        _ => None,
    };
    old.into_iter().chain(change.object().map(|object| &**object))
}

/// The Service that a slice is for.
pub fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let service = slice.labels().get(endpoint_slice::SERVICE_NAME)?;
    Some(ObjectKey::new(slice.namespace().unwrap_or_default(), service))
}

/// Adds every object of `store` in the namespace whose selector matches `labels`.
fn add_selecting<K: Watched>(
    store: &Store<K>,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    queue: &WorkQueue<ObjectKey>,
    selector: impl Fn(&K) -> Option<&meta::LabelSelector>,
) {
    for object in store.in_namespace(namespace) {
        let selector = selector(&object).and_then(|selector| LabelSelector::from_object(selector).ok());
        if selector.is_some_and(|selector| selector.matches(labels)) {
            queue.add(ObjectKey::of(&*object));
        }
    }
}

/// The same for the older kinds, whose selectors are maps; an empty one selects nothing.
fn add_mapping<K: Watched>(
    store: &Store<K>,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    queue: &WorkQueue<ObjectKey>,
    selector: impl Fn(&K) -> Option<&BTreeMap<String, String>>,
) {
    for object in store.in_namespace(namespace) {
        let selector = selector(&object).filter(|selector| !selector.is_empty());
        if selector.is_some_and(|pairs| pairs.iter().all(|(name, value)| labels.get(name) == Some(value))) {
            queue.add(ObjectKey::of(&*object));
        }
    }
}

impl Wires {
    /// To these queues, this collector and this census; deaf until it knows the caches.
    pub fn new(queues: &Queues, garbage: &GarbageCollector, census: &Census) -> Wires {
        Wires {
            queues: queues.clone(),
            garbage: garbage.clone(),
            census: census.clone(),
            caches: Arc::default(),
        }
    }

    /// Tells which caches answer who is concerned; must be called once, before any of them has listed.
    pub fn know(&self, caches: &Caches) {
        let first = self.caches.set(caches.clone());
        assert!(first.is_ok(), "wires are connected once");
    }

    fn collect<K: Resource<DynamicType = ()>>(&self, change: &Change<K>) {
        self.observe(&ApiResource::erase::<K>(&()), change);
    }

    /// What concerns those who look at every kind: the collector, and quotas, to which a deleted object gives back.
    pub fn observe<K: Resource>(&self, kind: &ApiResource, change: &Change<K>) {
        for uid in self.garbage.observe(kind, change) {
            self.queues.garbage.add(uid);
        }
        if let Change::Deleted(last) = change {
            self.recount(&last.namespace().unwrap_or_default());
        }
    }

    fn recount(&self, namespace: &str) {
        let Some(caches) = self.caches.get().filter(|_| !namespace.is_empty()) else { return };
        for quota in caches.quotas.in_namespace(namespace) {
            self.queues.quotas.add(ObjectKey::of(&*quota));
        }
    }

    pub fn quota(&self, change: &Change<ResourceQuota>) {
        self.own(change, &self.queues.quotas);
    }

    /// Tells the collector, and the object's own controller.
    fn own<K: Resource<DynamicType = ()>>(&self, change: &Change<K>, queue: &WorkQueue<ObjectKey>) {
        self.collect(change);
        for_each(change, |key| queue.add(key));
    }

    /// The queue of a kind that controls pods or revisions.
    fn owners(&self, kind: &str) -> Option<&WorkQueue<ObjectKey>> {
        match kind {
            "ReplicaSet" => Some(&self.queues.sets),
            "ReplicationController" => Some(&self.queues.replication_controllers),
            "StatefulSet" => Some(&self.queues.stateful_sets),
            "DaemonSet" => Some(&self.queues.daemon_sets),
            "Job" => Some(&self.queues.jobs),
            _ => None,
        }
    }

    pub fn set(&self, change: &Change<ReplicaSet>) {
        self.own(change, &self.queues.sets);
        for set in states(change) {
            self.deployment_of(set);
        }
        self.sized(change);
    }

    /// Budgets count what the controllers of their pods want.
    fn sized<K: Watched>(&self, change: &Change<K>) {
        let (Some(caches), Some(object)) = (self.caches.get(), change.object()) else { return };
        for budget in caches.budgets.in_namespace(&object.namespace().unwrap_or_default()) {
            self.queues.budgets.add(ObjectKey::of(&*budget));
        }
    }

    fn deployment_of(&self, set: &ReplicaSet) {
        let namespace = set.namespace().unwrap_or_default();
        match owner::controller_of(set) {
            Some(owner) if owner.kind == "Deployment" => {
                self.queues.deployments.add(ObjectKey::new(&namespace, &owner.name));
            }
            Some(_) => {}
            None => self.adopters_of_set(set, &namespace),
        }
    }

    fn adopters_of_set(&self, set: &ReplicaSet, namespace: &str) {
        let Some(caches) = self.caches.get() else { return };
        add_selecting(&caches.deployments, namespace, set.labels(), &self.queues.deployments, |deployment| {
            Some(&deployment.spec.selector)
        });
    }

    pub fn deployment(&self, change: &Change<Deployment>) {
        self.own(change, &self.queues.deployments);
        self.sized(change);
    }

    pub fn replication_controller(&self, change: &Change<ReplicationController>) {
        self.own(change, &self.queues.replication_controllers);
        self.sized(change);
    }

    pub fn stateful_set(&self, change: &Change<StatefulSet>) {
        self.own(change, &self.queues.stateful_sets);
        self.sized(change);
    }

    pub fn daemon_set(&self, change: &Change<DaemonSet>) {
        self.own(change, &self.queues.daemon_sets);
    }

    pub fn revision(&self, change: &Change<ControllerRevision>) {
        self.collect(change);
        let owner = change.object().and_then(|revision| owner::controller_of(&**revision).cloned());
        let namespace = change.object().and_then(|revision| revision.namespace()).unwrap_or_default();
        if let Some(owner) = owner
            && let Some(queue) = self.owners(&owner.kind)
        {
            queue.add(ObjectKey::new(namespace, &owner.name));
        }
    }

    pub fn job(&self, change: &Change<Job>) {
        self.own(change, &self.queues.jobs);
        for_each(change, |key| self.queues.job_ends.add(key));
        for job in states(change) {
            if let Some(owner) = owner::controller_of(job).filter(|owner| owner.kind == "CronJob") {
                self.queues.cron_jobs.add(ObjectKey::new(job.namespace().unwrap_or_default(), &owner.name));
            }
        }
        self.released_pods(change);
    }

    /// The pods of a Job that has ended, or is gone, are held no longer.
    fn released_pods(&self, change: &Change<Job>) {
        let (Some(caches), Some(job)) = (self.caches.get(), change.object()) else { return };
        if matches!(change, Change::Deleted(_)) || job::is_finished(job) {
            for pod in caches.pods.by_index(BY_OWNER, &job.uid().unwrap_or_default()) {
                self.queues.job_pods.add(ObjectKey::of(&*pod));
            }
        }
    }

    pub fn cron_job(&self, change: &Change<CronJob>) {
        self.own(change, &self.queues.cron_jobs);
    }

    pub fn service(&self, change: &Change<Service>) {
        self.own(change, &self.queues.services);
        for_each(change, |key| {
            self.queues.endpoints.add(key.clone());
            self.cluster_dns(&key);
            self.queues.mirrors.add(key);
        });
    }

    fn cluster_dns(&self, service: &ObjectKey) {
        if service.namespace == cluster_dns::NAMESPACE && service.name == cluster_dns::NAME {
            self.queues.cluster_dns.add(service.clone());
        }
    }

    pub fn endpoints(&self, change: &Change<Endpoints>) {
        self.own(change, &self.queues.endpoints);
        for_each(change, |key| self.queues.mirrors.add(key));
    }

    pub fn slice(&self, change: &Change<EndpointSlice>) {
        self.collect(change);
        for service in states(change).filter_map(service_of) {
            self.queues.services.add(service.clone());
            self.cluster_dns(&service);
            self.queues.mirrors.add(service);
        }
    }

    pub fn budget(&self, change: &Change<PodDisruptionBudget>) {
        self.own(change, &self.queues.budgets);
    }

    /// Its own status must not lead to a look: that comes by the clock.
    pub fn autoscaler(&self, change: &Change<HorizontalPodAutoscaler>) {
        self.collect(change);
        if let Change::Applied { old: Some(old), new } = change
            && old.spec == new.spec
        {
            return;
        }
        for_each(change, |key| self.queues.autoscalers.add(key));
    }

    pub fn cluster_role(&self, change: &Change<ClusterRole>) {
        self.collect(change);
        let Some(caches) = self.caches.get() else { return };
        // Any role may be among those that an aggregated one sums up, before or now.
        for role in caches.cluster_roles.list().into_iter().filter(|role| role.aggregation_rule.is_some()) {
            self.queues.roles.add(ObjectKey::of(&*role));
        }
    }
}
