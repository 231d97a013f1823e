//! Looks of the workload controllers: those that make objects, and so remember what their cache doesn't show.

use crate::{
    caches::{BY_OWNER, Caches, ORPHANS, Watched},
    cron_job, daemon_set, deployment,
    driver::{Controller, End, Report},
    expectations::{Expectations, Pending, Written},
    job, owner,
    plan::Plan,
    pod::Pod,
    replicaset, stateful_set,
};
use client::informer::{ObjectKey, Store};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::ReplicationController,
};
use kube::{Resource, ResourceExt};
use std::{marker::PhantomData, sync::Arc};

/// A kind whose controller makes objects of another kind.
pub trait Maker: Watched {
    /// The controller's name.
    const NAME: &'static str;
    /// What it makes.
    type Made: Watched;

    /// Where its objects are.
    fn own(caches: &Caches) -> &Store<Self>;
    /// Where those are that it makes.
    fn made(caches: &Caches) -> &Store<Self::Made>;
    /// Gathers a snapshot, after `pending` was asked for, and decides.
    fn plan(&self, caches: &Caches, pending: Pending, now: Timestamp) -> Plan;
}

/// The controller of a [`Maker`].
pub struct Workload<K> {
    caches: Caches,
    expectations: Expectations<ObjectKey>,
    kind: PhantomData<fn(K)>,
}

impl<K: Maker> Workload<K> {
    /// Over these caches, with nothing outstanding.
    pub fn new(caches: Caches) -> Workload<K> {
        Workload { caches, expectations: Expectations::default(), kind: PhantomData }
    }
}

impl<K: Maker> Controller for Workload<K> {
    type Key = ObjectKey;
    const NAME: &'static str = K::NAME;

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        let Some(object) = K::own(&self.caches).get(key) else {
            self.expectations.forget(key);
            return Ok(Plan::nothing());
        };
        if self.expectations.is_stale(key, &*object, now) {
            // Its arrival makes us look again.
            return Ok(Plan::nothing());
        }
        // Before the objects are read: see `Expectations::pending`.
        let pending = self.expectations.pending(key, K::made(&self.caches), now);
        Ok(object.plan(&self.caches, pending, now))
    }

    fn performed(&self, key: &ObjectKey, report: &Report, now: Timestamp) {
        let made = K::Made::plural(&());
        for created in report.created.iter().filter(|created| created.plural == made) {
            self.expectations.created(key, created.clone(), now);
        }
        for patched in report.patched.iter().filter(|patched| patched.plural == made) {
            self.expectations.patched(key, patched.clone(), now);
        }
        let is_own = |patched: &&Written| patched.plural == K::plural(&()) && patched.key == *key;
        if let Some(patched) = report.patched.iter().rfind(is_own) {
            self.expectations.wrote(key, patched.version, now);
        }
        for (object, uid) in &report.deleted {
            self.expectations.deleted(key, object.clone(), uid.clone(), now);
        }
        if let End::Refused(message) = &report.end {
            self.expectations.failed(key, message.clone());
        }
    }
}

/// The pods that `owner` controls, and those of its namespace that it may adopt.
fn pods_of<K: Watched>(caches: &Caches, owner: &K) -> Vec<Arc<Pod>> {
    let mut pods = caches.pods.by_index(BY_OWNER, &owner.uid().unwrap_or_default());
    pods.extend(caches.pods.by_index(ORPHANS, &owner.namespace().unwrap_or_default()));
    pods
}

fn revisions_of<K: Watched>(caches: &Caches, owner: &K) -> Vec<Arc<ControllerRevision>> {
    let mut revisions = caches.revisions.by_index(BY_OWNER, &owner.uid().unwrap_or_default());
    revisions.extend(caches.revisions.by_index(ORPHANS, &owner.namespace().unwrap_or_default()));
    revisions
}

impl Maker for ReplicaSet {
    const NAME: &'static str = "replicaset-controller";
    type Made = Pod;

    fn own(caches: &Caches) -> &Store<Self> {
        &caches.sets
    }

    fn made(caches: &Caches) -> &Store<Pod> {
        &caches.pods
    }

    fn plan(&self, caches: &Caches, pending: Pending, now: Timestamp) -> Plan {
        // Of the same controller; a ReplicaSet without one is alone.
        let related = owner::controller_of(self)
            .map_or_else(Vec::new, |owner| caches.sets.by_index(BY_OWNER, &owner.uid));
        let pods = caches.pods.in_namespace(&self.namespace().unwrap_or_default());
        replicaset::reconcile(self, &replicaset::Snapshot { pods, related, pending }, now)
    }
}

impl Maker for ReplicationController {
    const NAME: &'static str = "replication-controller";
    type Made = Pod;

    fn own(caches: &Caches) -> &Store<Self> {
        &caches.replication_controllers
    }

    fn made(caches: &Caches) -> &Store<Pod> {
        &caches.pods
    }

    fn plan(&self, caches: &Caches, pending: Pending, now: Timestamp) -> Plan {
        let view = replicaset::Snapshot { pods: pods_of(caches, self), related: Vec::new(), pending };
        replicaset::reconcile(self, &view, now)
    }
}

/// Its creates are named, so that only a refusal has to be remembered.
impl Maker for Deployment {
    const NAME: &'static str = "deployment-controller";
    type Made = ReplicaSet;

    fn own(caches: &Caches) -> &Store<Self> {
        &caches.deployments
    }

    fn made(caches: &Caches) -> &Store<ReplicaSet> {
        &caches.sets
    }

    fn plan(&self, caches: &Caches, pending: Pending, now: Timestamp) -> Plan {
        let namespace = self.namespace().unwrap_or_default();
        let view = deployment::Snapshot {
            pending,
            sets: caches.sets.in_namespace(&namespace),
            pods: caches.pods.in_namespace(&namespace),
        };
        deployment::reconcile(self, &view, now)
    }
}

impl Maker for StatefulSet {
    const NAME: &'static str = "statefulset-controller";
    type Made = Pod;

    fn own(caches: &Caches) -> &Store<Self> {
        &caches.stateful_sets
    }

    fn made(caches: &Caches) -> &Store<Pod> {
        &caches.pods
    }

    fn plan(&self, caches: &Caches, pending: Pending, now: Timestamp) -> Plan {
        let view = stateful_set::Snapshot {
            pods: pods_of(caches, self),
            revisions: revisions_of(caches, self),
            claims: caches.claims.in_namespace(&self.namespace().unwrap_or_default()),
            pending,
        };
        stateful_set::reconcile(self, &view, now)
    }
}

impl Maker for DaemonSet {
    const NAME: &'static str = "daemonset-controller";
    type Made = Pod;

    fn own(caches: &Caches) -> &Store<Self> {
        &caches.daemon_sets
    }

    fn made(caches: &Caches) -> &Store<Pod> {
        &caches.pods
    }

    fn plan(&self, caches: &Caches, pending: Pending, now: Timestamp) -> Plan {
        let view = daemon_set::Snapshot {
            pods: pods_of(caches, self),
            revisions: revisions_of(caches, self),
            nodes: caches.nodes.list(),
            pending,
        };
        daemon_set::reconcile(self, &view, now)
    }
}

impl Maker for Job {
    const NAME: &'static str = "job-controller";
    type Made = Pod;

    fn own(caches: &Caches) -> &Store<Self> {
        &caches.jobs
    }

    fn made(caches: &Caches) -> &Store<Pod> {
        &caches.pods
    }

    fn plan(&self, caches: &Caches, pending: Pending, now: Timestamp) -> Plan {
        job::reconcile(self, &job::Snapshot { pods: pods_of(caches, self), pending }, now)
    }
}

impl Maker for CronJob {
    const NAME: &'static str = "cronjob-controller";
    type Made = Job;

    fn own(caches: &Caches) -> &Store<Self> {
        &caches.cron_jobs
    }

    fn made(caches: &Caches) -> &Store<Job> {
        &caches.jobs
    }

    fn plan(&self, caches: &Caches, pending: Pending, now: Timestamp) -> Plan {
        let jobs = caches.jobs.by_index(BY_OWNER, &self.uid().unwrap_or_default());
        cron_job::reconcile(self, &cron_job::Snapshot { jobs, pending }, now)
    }
}
