//! Custom resources, and the definitions that make them.

use serde_json::{Value, json};

use super::set;
use crate::registry::strategy::{Strategy, Traits};

/// Keeps a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A custom kind: its generation counts changes of anything but metadata (and status, if that has a path of
/// its own).
pub struct Custom {
    /// Whether status is written through its own path only.
    pub has_status: bool,
}

impl Strategy for Custom {
    fn traits(&self) -> Traits {
        Traits { has_generation: true, unconditional_update: false, ..Traits::ORDINARY }
    }

    fn prepare_create(&self, object: &mut Value) {
        if self.has_status
            && let Some(map) = object.as_object_mut()
        {
            map.remove("status");
        }
    }

    fn is_another_generation(&self, object: &Value, old: &Value) -> bool {
        let counted = |object: &Value| {
            let mut counted = object.clone();
            if let Some(map) = counted.as_object_mut() {
                map.retain(|key, _| {
                    let apart = matches!(key.as_str(), "metadata" | "apiVersion");
                    !apart && (key != "status" || !self.has_status)
                });
            }
            counted
        };
        counted(object) != counted(old)
    }
}

/// CustomResourceDefinition: remembers which versions were ever stored, and ends after its objects.
pub struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn traits(&self) -> Traits {
        Traits { has_generation: true, unconditional_update: false, ..Traits::ORDINARY }
    }

    fn prepare_create(&self, object: &mut Value) {
        let status =
            json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": [], "storedVersions": []});
        set(object, "status", status);
        remember_stored_version(object);
    }

    fn prepare_update(&self, object: &mut Value, _old: &Value) {
        remember_stored_version(object);
    }

    fn begin_delete(&self, object: &mut Value) {
        let mut finalizers = api::object::finalizers(object);
        if !finalizers.iter().any(|finalizer| finalizer == CLEANUP) {
            finalizers.push(CLEANUP.to_owned());
            api::object::set_finalizers(object, &finalizers);
        }
        let since = object["metadata"]["deletionTimestamp"].clone();
        let why = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        let condition = json!({
            "type": "Terminating", "status": "True", "reason": "InstanceDeletionPending", "message": why,
            "lastTransitionTime": since,
        });
        crate::crd::set_condition(object, condition);
    }

    fn holds_deletion(&self, object: &Value) -> bool {
        !api::object::is_deleting(object)
    }
}

fn remember_stored_version(object: &mut Value) {
    let versions = object["spec"]["versions"].as_array().into_iter().flatten();
    let stored =
        versions.filter(|version| version["storage"] == true).map(|version| version["name"].clone()).next();
    let Some(stored) = stored else { return };
    match object["status"]["storedVersions"].as_array_mut() {
        Some(known) if known.contains(&stored) => {}
        Some(known) => known.push(stored),
        None => object["status"]["storedVersions"] = json!([stored]),
    }
}
