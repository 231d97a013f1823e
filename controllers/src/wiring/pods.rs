//! Whom a change of a pod concerns.

use super::{Wires, add_mapping, add_selecting, for_each, states};
use crate::{
    job, owner,
    pod::{self, Pod},
};
use client::informer::{Change, ObjectKey};
use kube::ResourceExt;

impl Wires {
    pub fn pod(&self, change: &Change<Pod>) {
        self.collect(change);
        for_each(change, |key| {
            self.queues.evictions.add(key.clone());
            self.queues.pod_gc.add(key);
        });
        for pod in states(change) {
            self.owner_of_pod(pod);
        }
        if let Some(pod) = change.object() {
            self.gone_or_terminal(pod, matches!(change, Change::Deleted(_)));
            self.emptied(pod);
            self.held_claims(pod);
            self.storage_of_pod(pod);
            if pod::is_terminal(pod) {
                self.recount(&pod.namespace().unwrap_or_default());
            }
            if job::is_tracked(pod) {
                self.queues.job_pods.add(ObjectKey::of(&**pod));
            }
        }
        self.selectors_of_pod(change);
    }

    fn owner_of_pod(&self, pod: &Pod) {
        let namespace = pod.namespace().unwrap_or_default();
        match owner::controller_of(pod) {
            Some(owner) => {
                if let Some(queue) = self.owners(&owner.kind) {
                    queue.add(ObjectKey::new(&namespace, &owner.name));
                }
            }
            None => self.adopters_of_pod(pod, &namespace),
        }
    }

    /// Whoever's selector an uncontrolled pod matches.
    fn adopters_of_pod(&self, pod: &Pod, namespace: &str) {
        let Some(caches) = self.caches.get() else { return };
        let (labels, queues) = (pod.labels(), &self.queues);
        add_selecting(&caches.sets, namespace, labels, &queues.sets, |set| Some(&set.spec.selector));
        add_selecting(&caches.stateful_sets, namespace, labels, &queues.stateful_sets, |set| {
            Some(&set.spec.selector)
        });
        add_selecting(&caches.daemon_sets, namespace, labels, &queues.daemon_sets, |set| {
            Some(&set.spec.selector)
        });
        add_selecting(&caches.jobs, namespace, labels, &queues.jobs, |job| {
            job.spec.as_ref()?.selector.as_ref()
        });
        let controllers = &caches.replication_controllers;
        add_mapping(controllers, namespace, labels, &queues.replication_controllers, |controller| {
            controller.spec.as_ref()?.selector.as_ref()
        });
    }

    /// The slices of Services that select the pod.
    pub(super) fn slices_of_pod(&self, pod: &Pod) {
        let Some(caches) = self.caches.get() else { return };
        let namespace = pod.namespace().unwrap_or_default();
        add_mapping(&caches.services, &namespace, pod.labels(), &self.queues.services, |service| {
            service.spec.as_ref()?.selector.as_ref()
        });
    }

    /// Services and budgets that select the pod, before or now.
    fn selectors_of_pod(&self, change: &Change<Pod>) {
        let Some(caches) = self.caches.get() else { return };
        for pod in states(change) {
            let (namespace, labels) = (pod.namespace().unwrap_or_default(), pod.labels());
            for queue in [&self.queues.services, &self.queues.endpoints] {
                add_mapping(&caches.services, &namespace, labels, queue, |service| {
                    service.spec.as_ref()?.selector.as_ref()
                });
            }
            add_selecting(&caches.budgets, &namespace, labels, &self.queues.budgets, |budget| {
                budget.spec.as_ref()?.selector.as_ref()
            });
        }
    }

    /// A Deployment that recreates waits for the last old pod.
    fn gone_or_terminal(&self, pod: &Pod, gone: bool) {
        let (Some(owner), Some(caches)) = (owner::controller_of(pod), self.caches.get()) else { return };
        let ended = gone || pod::is_terminal(pod);
        let set = ended.then(|| ObjectKey::new(pod.namespace().unwrap_or_default(), &owner.name));
        if let Some(set) = set.and_then(|key| caches.sets.get(&key)) {
            self.deployment_of(&set);
        }
    }

    /// A namespace that ends waits for its pods.
    fn emptied(&self, pod: &Pod) {
        let Some(caches) = self.caches.get() else { return };
        let key = ObjectKey::cluster(pod.namespace().unwrap_or_default());
        if caches
            .namespaces
            .get(&key)
            .is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
        {
            self.queues.namespaces.add(key);
        }
    }

    /// A claim that is being deleted waits for the last pod that uses it.
    fn held_claims(&self, pod: &Pod) {
        let namespace = pod.namespace().unwrap_or_default();
        for claim in pod::claims(pod) {
            let claim = ObjectKey::new(&namespace, claim);
            self.queues.claims.add(claim.clone());
            self.queues.claim_binding.add(claim);
        }
    }
}
