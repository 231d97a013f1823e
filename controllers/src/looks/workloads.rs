//! Looks of the workload controllers: ReplicaSets and Deployments.

use crate::{
    caches::{BY_OWNER, Caches},
    deployment,
    driver::{Controller, End, Report},
    expectations::Expectations,
    owner,
    plan::Plan,
    replicaset,
};
use client::informer::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use std::sync::Arc;

/// The ReplicaSet controller.
pub struct ReplicaSets {
    caches: Caches,
    expectations: Expectations<ObjectKey>,
}

impl ReplicaSets {
    /// Over these caches, with nothing outstanding.
    pub fn new(caches: Caches) -> ReplicaSets {
        ReplicaSets { caches, expectations: Expectations::default() }
    }

    /// ReplicaSets of the same controller; a ReplicaSet without one is alone.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<ReplicaSet>> {
        owner::controller_of(set)
            .map_or_else(Vec::new, |owner| self.caches.sets.by_index(BY_OWNER, &owner.uid))
    }
}

impl Controller for ReplicaSets {
    type Key = ObjectKey;
    const NAME: &'static str = "replicaset-controller";

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        let Some(set) = self.caches.sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Plan::nothing());
        };
        // Before the pods are read: see `Expectations::pending`.
        let pending = self.expectations.pending(key, &self.caches.pods, now);
        let pods = self.caches.pods.in_namespace(&key.namespace);
        let view = replicaset::Snapshot { pods, related: self.related(&set), pending };
        Ok(replicaset::reconcile(&set, &view, now))
    }

    fn performed(&self, key: &ObjectKey, report: &Report, now: Timestamp) {
        note(&self.expectations, key, report, now);
    }
}

/// The Deployment controller. Its creates are named, so that only a refusal has to be remembered.
pub struct Deployments {
    caches: Caches,
    expectations: Expectations<ObjectKey>,
}

impl Deployments {
    /// Over these caches.
    pub fn new(caches: Caches) -> Deployments {
        Deployments { caches, expectations: Expectations::default() }
    }
}

impl Controller for Deployments {
    type Key = ObjectKey;
    const NAME: &'static str = "deployment-controller";

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        let Some(deployment) = self.caches.deployments.get(key) else {
            self.expectations.forget(key);
            return Ok(Plan::nothing());
        };
        let view = deployment::Snapshot {
            pending: self.expectations.pending(key, &self.caches.sets, now),
            sets: self.caches.sets.in_namespace(&key.namespace),
            pods: self.caches.pods.in_namespace(&key.namespace),
        };
        Ok(deployment::reconcile(&deployment, &view, now))
    }

    fn performed(&self, key: &ObjectKey, report: &Report, now: Timestamp) {
        note(&self.expectations, key, report, now);
    }
}

fn note(expectations: &Expectations<ObjectKey>, key: &ObjectKey, report: &Report, now: Timestamp) {
    for created in &report.created {
        expectations.created(key, created.clone(), now);
    }
    for (object, uid) in &report.deleted {
        expectations.deleted(key, object.clone(), uid.clone(), now);
    }
    if let End::Refused(message) = &report.end {
        expectations.failed(key, message.clone());
    }
}
