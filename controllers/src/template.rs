//! Pods from templates.

use crate::{
    owner::{self, Owned},
    plan::{Action, Announce, Target, to_value},
    pod::Pod,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::{ResourceExt, core::ApiResource};
use serde_json::{Value, json};

/// How a new pod is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// Exactly so.
    As(String),
    /// Completed by the server.
    From(String),
}

/// Creates a pod of the template, controlled by `owner`.
pub fn create<O: Owned>(owner: &O, template: &PodTemplateSpec, name: Named, reason: String) -> Action {
    Action::Create {
        kind: ApiResource::erase::<Pod>(&()),
        object: pod_of(owner, template, name),
        announce: Some(announce(owner)),
        reason,
    }
}

/// Deletes a pod of `owner`, in whatever state it is by now.
pub fn delete<O: Owned>(owner: &O, pod: &Pod, reason: impl Into<String>) -> Action {
    Action::Delete {
        target: Target::of(pod).in_any_state(),
        propagation: None,
        grace: None,
        announce: Some(announce(owner)),
        reason: reason.into(),
    }
}

fn announce<O: Owned>(owner: &O) -> Announce {
    Announce { regarding: owner.object_ref(&()), noun: "pod" }
}

/// A pod of the template, controlled by `owner`.
pub fn pod_of<O: Owned>(owner: &O, template: &PodTemplateSpec, name: Named) -> Value {
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": owner.namespace(),
            "ownerReferences": [owner::controller_reference(owner)],
        },
        "spec": to_value(&template.spec),
    });
    let (field, name) = match name {
        Named::As(name) => ("name", name),
        Named::From(prefix) => ("generateName", prefix),
    };
    object["metadata"][field] = json!(name);
    let fields = [
        ("labels", to_value(&metadata.labels)),
        ("annotations", to_value(&metadata.annotations)),
        ("finalizers", to_value(&metadata.finalizers)),
    ];
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
        object["metadata"][name] = value;
    }
    object
}
