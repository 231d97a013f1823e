//! Looks of what storage needs: binding, protection, pods' own claims.

use crate::{
    caches::Caches,
    driver::Controller,
    ephemeral_claims,
    plan::Plan,
    pod::{self, Pod},
    volume_binder::{self, ClaimView, VolumeView, local_path},
    volume_protection,
};
use client::informer::ObjectKey;
use jiff::Timestamp;
use kube::ResourceExt;
use std::sync::Arc;

/// Claims to volumes.
pub struct ClaimBinding(pub Caches);

impl Controller for ClaimBinding {
    type Key = ObjectKey;
    const NAME: &'static str = "persistentvolume-controller";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let caches = &self.0;
        let Some(claim) = caches.claims.get(key) else { return Ok(Plan::nothing()) };
        let class = volume_binder::class_of_claim(&claim);
        let node = volume_binder::selected_node(&claim).map(str::to_owned).or_else(|| self.user_node(key));
        let view = ClaimView {
            volumes: caches.volumes.list(),
            class: class.and_then(|name| caches.classes.get(&ObjectKey::cluster(name))),
            node: node.and_then(|name| caches.nodes.get(&ObjectKey::cluster(name))),
        };
        Ok(volume_binder::reconcile_claim(&claim, &view))
    }
}

impl ClaimBinding {
    /// The node of a pod that uses the claim. A scheduler that knows no volumes has chosen it without saying so.
    fn user_node(&self, claim: &ObjectKey) -> Option<String> {
        let pods = self.0.pods.in_namespace(&claim.namespace);
        let uses = |pod: &&Arc<Pod>| {
            !pod::node_name(pod).is_empty()
                && !pod::is_terminal(pod)
                && pod::claims(pod).any(|used| used == claim.name)
        };
        pods.iter().find(uses).map(|pod| pod::node_name(pod).to_owned())
    }
}

/// Volumes whose claims come and go.
pub struct VolumeBinding(pub Caches);

impl Controller for VolumeBinding {
    type Key = ObjectKey;
    const NAME: &'static str = "persistentvolume-controller";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let caches = &self.0;
        let Some(volume) = caches.volumes.get(key) else { return Ok(Plan::nothing()) };
        let claim = volume_binder::claim_of(&volume).and_then(|key| caches.claims.get(&key));
        let remover = ObjectKey::new(local_path::NAMESPACE, local_path::remover_name(&volume.name_any()));
        let view = VolumeView { claim, remover: caches.pods.get(&remover) };
        Ok(volume_binder::reconcile_volume(&volume, &view))
    }
}

/// The volume protection controller.
pub struct VolumeProtection(pub Caches);

impl Controller for VolumeProtection {
    type Key = ObjectKey;
    const NAME: &'static str = "pv-protection-controller";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let volume = self.0.volumes.get(key);
        Ok(volume.map_or_else(Plan::nothing, |volume| volume_protection::reconcile(&volume)))
    }
}

/// The claims of pods' ephemeral volumes.
pub struct EphemeralClaims(pub Caches);

impl Controller for EphemeralClaims {
    type Key = ObjectKey;
    const NAME: &'static str = "ephemeral-volume-controller";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let Some(pod) = self.0.pods.get(key) else { return Ok(Plan::nothing()) };
        Ok(ephemeral_claims::reconcile(&pod, &self.0.claims.in_namespace(&key.namespace)))
    }
}
