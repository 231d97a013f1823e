//! One volume: free, bound, or released by a claim that is gone, and then kept or deleted.

use super::{BOUND_BY_CONTROLLER, PROVISIONED_BY, claim_ref, local_path, volume_name};
use crate::{
    plan::{Action, Part, Plan, Presence, Severity, Target},
    pod::Pod,
};
use client::recorder::reference;
use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus,
};
use kube::{ResourceExt, core::ApiResource};
use serde_json::json;
use std::sync::Arc;

/// What a volume's fate depends on.
#[derive(Debug, Clone, Default)]
pub struct VolumeView {
    /// The claim of the name that the volume says.
    pub claim: Option<Arc<PersistentVolumeClaim>>,
    /// The pod that removes a directory, if there is one.
    pub remover: Option<Arc<Pod>>,
}

/// What to do for `volume`.
pub fn reconcile(volume: &PersistentVolume, view: &VolumeView) -> Plan {
    let mut plan = Plan::nothing();
    let Some(reference) = claim_ref(volume) else {
        set_phase(volume, "Available", &mut plan);
        return plan;
    };
    let uid = reference.uid.as_deref().unwrap_or_default();
    if uid.is_empty() {
        set_phase(volume, "Available", &mut plan);
        return plan;
    }
    match view.claim.as_ref().filter(|claim| claim.metadata.uid.as_deref() == Some(uid)) {
        None => release(volume, reference, view, &mut plan),
        Some(claim) if volume_name(claim) == volume.name_any() => set_phase(volume, "Bound", &mut plan),
        // The claim's own reconcile goes on from here.
        Some(claim) if volume_name(claim).is_empty() => {}
        Some(claim) => let_go(volume, claim, view, &mut plan),
    }
    plan
}

fn phase(volume: &PersistentVolume) -> Option<&str> {
    volume.status.as_ref().and_then(|status| status.phase.as_deref())
}

fn set_phase(volume: &PersistentVolume, phase: &str, plan: &mut Plan) {
    let old = volume.status.clone().unwrap_or_default();
    let new = PersistentVolumeStatus { phase: Some(phase.to_owned()), ..old.clone() };
    plan.status(Target::of(volume), &old, &new, "status");
}

/// The claim has got another volume meanwhile.
fn let_go(volume: &PersistentVolume, claim: &PersistentVolumeClaim, view: &VolumeView, plan: &mut Plan) {
    let ours = volume.annotations().contains_key(PROVISIONED_BY) && policy(volume) == "Delete";
    if ours {
        return reclaim(volume, view, plan);
    }
    let chosen = volume.annotations().contains_key(BOUND_BY_CONTROLLER);
    let patch = if chosen {
        json!({"metadata": {"annotations": {BOUND_BY_CONTROLLER: null}}, "spec": {"claimRef": null}})
    } else {
        json!({"spec": {"claimRef": {"uid": null}}})
    };
    let reason = format!("claim {} is bound to volume {}", claim.name_any(), volume_name(claim));
    plan.patch(Target::of(volume), Part::Whole, patch, reason);
    set_phase(volume, "Available", plan);
}

fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

/// Its claim is gone: nobody else gets what is in it.
fn release(volume: &PersistentVolume, claim: &ObjectReference, view: &VolumeView, plan: &mut Plan) {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    if !matches!(phase(volume), Some("Released" | "Failed")) {
        let kind = ApiResource::erase::<PersistentVolumeClaim>(&());
        plan.push(Action::Confirm {
            target: Target::named(kind, &text(&claim.namespace), &text(&claim.name), &text(&claim.uid)),
            expected: Presence::Gone,
            reason: "a claim that a late cache doesn't show keeps its volume".to_owned(),
        });
        set_phase(volume, "Released", plan);
    }
    reclaim(volume, view, plan);
}

fn reclaim(volume: &PersistentVolume, view: &VolumeView, plan: &mut Plan) {
    let maker = volume.annotations().get(PROVISIONED_BY).map(String::as_str);
    match (policy(volume), maker) {
        ("Delete", Some(local_path::PROVISIONER)) => {
            local_path::delete(volume, view.remover.as_deref(), plan)
        }
        // Its own provisioner deletes it.
        ("Delete", Some(_)) => {}
        ("Delete" | "Recycle", None) if phase(volume) != Some("Failed") => {
            let message = format!("no volume plugin that can {} it is known", policy(volume).to_lowercase());
            plan.event(reference(volume), Severity::Warning, "VolumeFailedDelete", message.clone());
            let old = volume.status.clone().unwrap_or_default();
            let phase = Some("Failed".to_owned());
            let new = PersistentVolumeStatus { phase, message: Some(message), ..old.clone() };
            plan.status(Target::of(volume), &old, &new, "status");
        }
        _ => {}
    }
}
