//! Namespace: born Active with the finalizer `kubernetes`, deleted only when that is gone.

use serde_json::{Value, json};

use super::set;
use crate::registry::strategy::{Strategy, Traits};

/// The finalizer that the namespace controller removes once the namespace is empty.
const FINALIZER: &str = "kubernetes";
/// The label by which selectors can name a namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The strategy of namespaces.
pub struct Namespace;

impl Strategy for Namespace {
    fn traits(&self) -> Traits {
        Traits::ORDINARY
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"phase": "Active"}));
        let finalizers = object["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            let all: Vec<Value> = finalizers.into_iter().chain([json!(FINALIZER)]).collect();
            object["spec"]["finalizers"] = Value::Array(all);
        }
        label_with_name(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        set(object, "spec", old["spec"].clone());
        label_with_name(object);
    }

    fn begin_delete(&self, object: &mut Value) {
        object["status"]["phase"] = json!("Terminating");
        // A namespace has no grace period: it goes when it is empty.
        api::object::metadata_mut(object).remove("deletionGracePeriodSeconds");
    }

    fn holds_deletion(&self, object: &Value) -> bool {
        object["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
    }
}

fn label_with_name(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    object["metadata"]["labels"][NAME_LABEL] = name;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_namespace_is_active_and_finalized() {
        let mut object = json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}});
        Namespace.prepare_create(&mut object);
        assert_eq!(
            object,
            json!({
                "metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            })
        );
        assert!(Namespace.holds_deletion(&object));
    }
}
