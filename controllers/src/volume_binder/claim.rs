//! One claim: bound, waiting, provisioned for, or lost.

use super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONER, SELECTED_NODE, claim_ref, class_of_claim, fit, is_for,
    local_path, volume_name, waits_for_consumer,
};
use crate::plan::{Part, Plan, Severity, Target};
use client::recorder::reference;
use k8s_openapi::api::{
    core::v1::{
        Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, PersistentVolumeStatus,
    },
    storage::v1::StorageClass,
};
use kube::ResourceExt;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

/// What a claim's fate depends on.
#[derive(Debug, Clone, Default)]
pub struct ClaimView {
    /// All volumes.
    pub volumes: Vec<Arc<PersistentVolume>>,
    /// The class that the claim names, if it exists.
    pub class: Option<Arc<StorageClass>>,
    /// The node that the scheduler chose, or that a pod which uses the claim is on, if there is one and it exists.
    pub node: Option<Arc<Node>>,
}

/// What to do for `claim`.
pub fn reconcile(claim: &PersistentVolumeClaim, view: &ClaimView) -> Plan {
    let mut plan = Plan::nothing();
    let named = view.volumes.iter().find(|volume| volume.name_any() == volume_name(claim));
    if claim.annotations().contains_key(BIND_COMPLETED) {
        completed(claim, named, &mut plan);
    } else if claim.metadata.deletion_timestamp.is_none() {
        match volume_name(claim) {
            "" => choose(claim, view, &mut plan),
            _ => take_named(claim, named, &mut plan),
        }
    }
    plan
}

/// It was bound once: its volume is there and still its own, or it is lost.
fn completed(claim: &PersistentVolumeClaim, volume: Option<&Arc<PersistentVolume>>, plan: &mut Plan) {
    match volume {
        Some(volume) if claim_ref(volume).is_none() || is_for(volume, claim) => bind(claim, volume, plan),
        Some(_) => lose(
            claim,
            "ClaimMisbound",
            "Two claims are bound to the same volume, this one is bound incorrectly",
            plan,
        ),
        None => lose(
            claim,
            "ClaimLost",
            "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
            plan,
        ),
    }
}

fn lose(claim: &PersistentVolumeClaim, event: &'static str, message: &str, plan: &mut Plan) {
    if phase(claim) == Some("Lost") {
        return;
    }
    plan.event(reference(claim), Severity::Warning, event, message);
    set_phase(claim, "Lost", plan);
}

fn phase(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref().and_then(|status| status.phase.as_deref())
}

fn set_phase(claim: &PersistentVolumeClaim, phase: &str, plan: &mut Plan) {
    let old = claim.status.clone().unwrap_or_default();
    let mut new = PersistentVolumeClaimStatus { phase: Some(phase.to_owned()), ..old.clone() };
    if phase != "Bound" {
        (new.access_modes, new.capacity) = (None, None);
    }
    plan.status(Target::of(claim), &old, &new, "status");
}

/// The user has named the volume.
fn take_named(claim: &PersistentVolumeClaim, volume: Option<&Arc<PersistentVolume>>, plan: &mut Plan) {
    match volume {
        Some(volume) if is_for(volume, claim) => bind(claim, volume, plan),
        Some(volume) if claim_ref(volume).is_none() => match fit::mismatch(claim, volume) {
            None => bind(claim, volume, plan),
            Some(reason) => {
                let message = format!("Cannot bind to requested volume \"{}\": {reason}", volume.name_any());
                plan.event(reference(claim), Severity::Warning, "VolumeMismatch", message);
                set_phase(claim, "Pending", plan);
            }
        },
        _ => set_phase(claim, "Pending", plan),
    }
}

fn choose(claim: &PersistentVolumeClaim, view: &ClaimView, plan: &mut Plan) {
    let waits = waits_for_consumer(view.class.as_deref());
    if let Some(volume) = fit::best(claim, &view.volumes, waits) {
        return bind(claim, volume, plan);
    }
    set_phase(claim, "Pending", plan);
    let selected = claim.annotations().contains_key(SELECTED_NODE) || view.node.is_some();
    if waits && !selected {
        let message = "waiting for first consumer to be created before binding";
        return plan.event(reference(claim), Severity::Normal, "WaitForFirstConsumer", message);
    }
    match (class_of_claim(claim), &view.class) {
        (None | Some(""), _) => {
            let message = "no persistent volumes available for this claim and no storage class is set";
            plan.event(reference(claim), Severity::Normal, "FailedBinding", message);
        }
        (Some(name), None) => {
            let message = format!("storageclass.storage.k8s.io \"{name}\" not found");
            plan.event(reference(claim), Severity::Warning, "ProvisioningFailed", message);
        }
        (Some(_), Some(class)) => provision(claim, class, view, plan),
    }
}

fn provision(claim: &PersistentVolumeClaim, class: &StorageClass, view: &ClaimView, plan: &mut Plan) {
    let provisioner = class.provisioner.as_str();
    if provisioner == "kubernetes.io/no-provisioner" {
        return;
    }
    let is_named = |name: &&str| claim.annotations().get(*name).is_some_and(|value| value == provisioner);
    if !PROVISIONER.iter().all(is_named) {
        let annotations: BTreeMap<&str, &str> = PROVISIONER.map(|name| (name, provisioner)).into();
        let patch = json!({"metadata": {"annotations": annotations}});
        plan.patch(Target::of(claim), Part::Whole, patch, "its class says who makes its volume");
    }
    if provisioner == local_path::PROVISIONER {
        return local_path::provision(claim, class, view.node.as_deref(), plan);
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by \
         the system administrator. If volume creation is delayed, please verify that the provisioner is running \
         and correctly registered."
    );
    plan.event(reference(claim), Severity::Normal, "ExternalProvisioning", message);
}

/// The four writes, as far as they are missing.
fn bind(claim: &PersistentVolumeClaim, volume: &PersistentVolume, plan: &mut Plan) {
    let uid = claim_ref(volume).and_then(|reference| reference.uid.as_deref()).unwrap_or_default();
    if uid.is_empty() {
        let mut patch = json!({"spec": {"claimRef": local_path::reference_to(claim)}});
        if claim_ref(volume).is_none() {
            patch["metadata"] = json!({"annotations": {BOUND_BY_CONTROLLER: "yes"}});
        }
        plan.patch(Target::of(volume), Part::Whole, patch, format!("bind to claim {}", claim.name_any()));
    }
    let old = volume.status.clone().unwrap_or_default();
    let bound = PersistentVolumeStatus { phase: Some("Bound".to_owned()), ..old.clone() };
    plan.status(Target::of(volume), &old, &bound, "status");
    let mut patch = json!({});
    if volume_name(claim).is_empty() {
        patch["spec"] = json!({"volumeName": volume.name_any()});
        patch["metadata"]["annotations"][BOUND_BY_CONTROLLER] = json!("yes");
    }
    if !claim.annotations().contains_key(BIND_COMPLETED) {
        patch["metadata"]["annotations"][BIND_COMPLETED] = json!("yes");
    }
    plan.patch(Target::of(claim), Part::Whole, patch, format!("bind to volume {}", volume.name_any()));
    claim_is_bound(claim, volume, plan);
}

fn claim_is_bound(claim: &PersistentVolumeClaim, volume: &PersistentVolume, plan: &mut Plan) {
    let old = claim.status.clone().unwrap_or_default();
    let mut new = PersistentVolumeClaimStatus { phase: Some("Bound".to_owned()), ..old.clone() };
    new.access_modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.clone());
    // A capacity that is there already may be newer than the volume's: file systems grow later.
    new.capacity = old.capacity.clone().or_else(|| fit::capacity(volume).cloned());
    plan.status(Target::of(claim), &old, &new, "status");
}
