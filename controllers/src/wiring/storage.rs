//! Whom a change of a volume, a claim or a class concerns.

use super::{Wires, add_selecting, for_each, states};
use crate::{
    caches::Caches,
    ephemeral_claims, owner,
    pod::Pod,
    volume_binder::{self, local_path},
};
use client::informer::{Change, ObjectKey};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use kube::ResourceExt;

impl Wires {
    pub fn claim(&self, change: &Change<PersistentVolumeClaim>) {
        self.own(change, &self.queues.claims);
        for_each(change, |key| self.queues.claim_binding.add(key));
        let (Some(caches), Some(claim)) = (self.caches.get(), change.object()) else { return };
        for state in states(change) {
            match volume_binder::volume_name(state) {
                // A volume that was made for it may be waiting.
                "" => self.volumes_for(caches, state),
                volume => self.queues.volume_binding.add(ObjectKey::cluster(volume)),
            }
        }
        let namespace = claim.namespace().unwrap_or_default();
        if let Some(pod) = owner::controller_of(&**claim).filter(|owner| owner.kind == "Pod") {
            self.queues.ephemeral_claims.add(ObjectKey::new(&namespace, &pod.name));
        }
        // A StatefulSet's pods wait for their claims, and its claims' owners follow its policy.
        add_selecting(&caches.stateful_sets, &namespace, claim.labels(), &self.queues.stateful_sets, |set| {
            set.spec.volume_claim_templates.as_ref().map(|_| &set.spec.selector)
        });
    }

    fn volumes_for(&self, caches: &Caches, claim: &PersistentVolumeClaim) {
        let key = ObjectKey::of(claim);
        let volumes = caches.volumes.list().into_iter();
        volumes
            .filter(|volume| volume_binder::claim_of(volume).as_ref() == Some(&key))
            .for_each(|volume| self.queues.volume_binding.add(ObjectKey::of(&*volume)));
    }

    pub fn volume(&self, change: &Change<PersistentVolume>) {
        self.own(change, &self.queues.volumes);
        for_each(change, |key| self.queues.volume_binding.add(key));
        for volume in states(change) {
            match volume_binder::claim_of(volume) {
                Some(claim) => self.queues.claim_binding.add(claim),
                None => self.unbound_claims(volume_binder::class_of_volume(volume)),
            }
            // Claims that name it before it exists.
            self.claims_naming(&volume.name_any());
        }
    }

    pub fn class(&self, change: &Change<StorageClass>) {
        self.collect(change);
        for_each(change, |key| self.unbound_claims(&key.name));
    }

    fn unbound_claims(&self, class: &str) {
        self.claims_with(|claim| {
            volume_binder::volume_name(claim).is_empty()
                && volume_binder::class_of_claim(claim).unwrap_or_default() == class
        });
    }

    fn claims_naming(&self, volume: &str) {
        self.claims_with(|claim| volume_binder::volume_name(claim) == volume);
    }

    fn claims_with(&self, wanted: impl Fn(&PersistentVolumeClaim) -> bool) {
        let Some(caches) = self.caches.get() else { return };
        for claim in caches.claims.list().into_iter().filter(|claim| wanted(claim)) {
            self.queues.claim_binding.add(ObjectKey::of(&*claim));
        }
    }

    /// Pods with claims of their own, and pods that remove a volume's directory.
    pub(super) fn storage_of_pod(&self, pod: &Pod) {
        if ephemeral_claims::has_any(pod) {
            self.queues.ephemeral_claims.add(ObjectKey::of(pod));
        }
        if let Some(volume) = local_path::removed_by(pod) {
            self.queues.volume_binding.add(ObjectKey::cluster(volume));
        }
    }
}
