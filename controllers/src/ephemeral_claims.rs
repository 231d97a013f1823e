//! Ephemeral volumes: a pod's own claims, made from the templates in its volumes, and gone with it.
//! Upstream's `pkg/controller/volume/ephemeral` gives the rules.

use crate::{
    owner,
    plan::{Action, Plan, to_value},
    pod::{self, Pod},
};
use client::recorder::{Severity, reference};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimTemplate};
use kube::{ResourceExt, core::ApiResource};
use serde_json::json;
use std::sync::Arc;

/// What to do for `pod`, given the claims of its namespace.
pub fn reconcile(pod: &Pod, claims: &[Arc<PersistentVolumeClaim>]) -> Plan {
    let mut plan = Plan::nothing();
    if pod.metadata.deletion_timestamp.is_some() || pod::is_terminal(pod) {
        return plan;
    }
    for (volume, template) in templates(pod) {
        let name = format!("{}-{volume}", pod.name_any());
        match claims.iter().find(|claim| claim.name_any() == name) {
            None => plan.push(create(pod, template, &name)),
            Some(claim) if owner::controls(pod, &**claim) => {}
            Some(_) => plan.event(
                reference(pod),
                Severity::Warning,
                "FailedBinding",
                format!("PVC {}/{name} was not created for pod", pod.namespace().unwrap_or_default()),
            ),
        }
    }
    plan
}

/// The names of a pod's ephemeral volumes with the templates of their claims.
fn templates(pod: &Pod) -> impl Iterator<Item = (&str, &PersistentVolumeClaimTemplate)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| {
        Some((volume.name.as_str(), volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?))
    })
}

/// Whether a pod has such volumes.
pub fn has_any(pod: &Pod) -> bool {
    templates(pod).next().is_some()
}

fn create(pod: &Pod, template: &PersistentVolumeClaimTemplate, name: &str) -> Action {
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "namespace": pod.namespace(),
            "name": name,
            "ownerReferences": [owner::controller_reference(pod)],
        },
        "spec": to_value(&template.spec),
    });
    let fields = [("labels", to_value(&metadata.labels)), ("annotations", to_value(&metadata.annotations))];
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
        object["metadata"][name] = value;
    }
    Action::Create {
        kind: ApiResource::erase::<PersistentVolumeClaim>(&()),
        object,
        announce: None,
        reason: format!("an ephemeral volume of pod {}", pod.name_any()),
    }
}
