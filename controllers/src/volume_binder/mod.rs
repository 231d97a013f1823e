//! Volumes and claims: which volume a claim gets, and what becomes of a volume whose claim is gone. Upstream's
//! `pkg/controller/volume/persistentvolume` gives the rules.
//!
//! A pair is bound in four writes: the volume names the claim, the volume is Bound, the claim names the volume, the
//! claim is Bound. The first decides; whoever finds a pair half bound goes on from there. A claim whose class waits
//! for its first consumer is bound or provisioned for once the scheduler has chosen its node.

mod claim;
mod fit;
pub mod local_path;
mod volume;

pub use claim::{ClaimView, reconcile as reconcile_claim};
pub use volume::{VolumeView, reconcile as reconcile_volume};

use client::informer::ObjectKey;
use k8s_openapi::api::{
    core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use kube::ResourceExt;

/// On a claim: it was bound, and its volume is not chosen anew.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a volume or claim: the binder chose the other, so it may let go of it.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: the node that the scheduler chose for the first pod.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: who is to make a volume, under its present and its former name.
const PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];

/// The class that a claim or a volume names; the former annotation goes first.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    let former = claim.annotations().get("volume.beta.kubernetes.io/storage-class").map(String::as_str);
    former.or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref())
}

/// The class of a volume; empty if it has none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default()
}

/// The claim that a volume names.
pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The name of the volume that a claim names; empty if it names none.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// The key of the claim that a volume names.
pub fn claim_of(volume: &PersistentVolume) -> Option<ObjectKey> {
    let reference = claim_ref(volume)?;
    Some(ObjectKey::new(reference.namespace.clone()?, reference.name.clone()?))
}

/// The node that the scheduler chose for the claim's first pod.
pub fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.annotations().get(SELECTED_NODE).map(String::as_str)
}

/// Whether the class binds its claims only when a pod needs them.
fn waits_for_consumer(class: Option<&StorageClass>) -> bool {
    class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
}

/// Whether the volume names this claim: by name, and by uid unless it says none yet.
fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|reference| {
        let uid = reference.uid.as_deref().unwrap_or_default();
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
    })
}
