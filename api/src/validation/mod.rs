//! Which objects are allowed, per kind, with upstream's messages.
//!
//! Objects are validated after decoding (so the JSON types are right) and defaulting. What the server owns
//! and what needs other objects (quota, references) is checked elsewhere.

mod admission;
mod batch;
mod certificates;
mod config;
mod container;
mod control;
mod field;
mod meta;
mod networking;
mod node;
mod pod;
mod pod_update;
mod policy;
mod probe;
mod rbac;
mod resources;
mod rules;
mod scheduling;
mod service;
mod storage;
mod volume;
mod workload;

use serde_json::Value;

use crate::status::FieldError;
use field::{Errors, Field};

pub use pod::validate_pod_spec;

/// Validates a defaulted object that is to be created. `group` is empty for the core group.
pub fn validate_create(group: &str, kind: &str, object: &Value) -> Vec<FieldError> {
    let root = Field::root(object);
    let mut errors = meta::object_meta(&root, meta::name_rule(group, kind));
    errors.extend(content(group, kind, &root));
    errors
}

/// Validates a defaulted object that replaces `old`.
pub fn validate_update(group: &str, kind: &str, object: &Value, old: &Value) -> Vec<FieldError> {
    let (root, old) = (Field::root(object), Field::root(old));
    let mut errors = meta::object_meta(&root, meta::name_rule(group, kind));
    errors.extend(meta::object_meta_update(&root, &old));
    errors.extend(content(group, kind, &root));
    errors.extend(immutability(group, kind, &root, &old));
    errors
}

/// Validates an object whose status replaces that of `old`.
pub fn validate_status_update(group: &str, kind: &str, object: &Value, old: &Value) -> Vec<FieldError> {
    let (root, old) = (Field::root(object), Field::root(old));
    let mut errors = meta::object_meta_update(&root, &old);
    match (group, kind) {
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet") => {
            errors.extend(workload::status(&root.get("status")))
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            errors.extend(certificates::signing_request(&root));
        }
        ("", "Pod") => errors.extend(pod_update::status(&root, &old)),
        _ => {}
    }
    errors
}

/// Validates a pod whose ephemeral containers replace those of `old`.
pub fn validate_ephemeral_containers(
    group: &str,
    kind: &str,
    object: &Value,
    old: &Value,
) -> Vec<FieldError> {
    let (root, old) = (Field::root(object), Field::root(old));
    let mut errors = meta::object_meta_update(&root, &old);
    errors.extend(content(group, kind, &root));
    errors.extend(pod_update::ephemeral_containers(
        &root.at("spec.ephemeralContainers"),
        &old.at("spec.ephemeralContainers"),
    ));
    errors
}

/// Validates a pod whose containers' resources replace those of `old`.
pub fn validate_resize(group: &str, kind: &str, object: &Value, old: &Value) -> Vec<FieldError> {
    let (root, old) = (Field::root(object), Field::root(old));
    let mut errors = meta::object_meta_update(&root, &old);
    errors.extend(content(group, kind, &root));
    errors.extend(pod_update::resize(&root, &old));
    errors
}

/// The rules about an object alone.
fn content(group: &str, kind: &str, root: &Field<'_>) -> Errors {
    match (group, kind) {
        ("", "Pod") => {
            let mut errors = pod::self_fence(&root.at("metadata.annotations"));
            errors.extend(pod::spec(&root.get("spec"), pod::Owner::None));
            errors
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crate::crd::validate_definition(root.value),
        ("apps", "Deployment") => workload::deployment(&root.get("spec")),
        ("apps", "ReplicaSet") => workload::replica_set(&root.get("spec")),
        ("apps", "ControllerRevision") => workload::controller_revision(root),
        ("apps", "StatefulSet") => workload::stateful_set(&root.get("spec")),
        ("apps", "DaemonSet") => workload::daemon_set(&root.get("spec")),
        ("", "ReplicationController") => workload::replication_controller(&root.get("spec")),
        ("", "PodTemplate") => pod::template(&root.get("template")),
        ("", "PersistentVolume") => storage::volume(&root.get("spec")),
        ("", "PersistentVolumeClaim") => storage::claim(&root.get("spec")),
        ("storage.k8s.io", "StorageClass") => storage::class(root),
        ("batch", "Job") => batch::job(&root.get("spec")),
        ("batch", "CronJob") => batch::cron_job(root),
        ("policy", "PodDisruptionBudget") => policy::disruption_budget(&root.get("spec")),
        ("autoscaling", "HorizontalPodAutoscaler") => policy::autoscaler(&root.get("spec")),
        ("scheduling.k8s.io", "PriorityClass") => policy::priority_class(root),
        ("networking.k8s.io", "Ingress") => networking::ingress(&root.get("spec")),
        ("networking.k8s.io", "NetworkPolicy") => networking::policy(&root.get("spec")),
        ("discovery.k8s.io", "EndpointSlice") => networking::endpoint_slice(root),
        ("", "Service") => service::service(&root.get("spec")),
        ("", "Endpoints") => service::endpoints(root),
        ("", "ConfigMap") => config::config_map(root),
        ("", "Secret") => config::secret(root),
        ("", "Node") => node::node(root),
        ("", "Event") => node::event(root),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::signing_request(root),
        ("coordination.k8s.io", "Lease") => node::lease(&root.get("spec")),
        ("rbac.authorization.k8s.io", "Role") => rbac::role(root, true),
        ("rbac.authorization.k8s.io", "ClusterRole") => rbac::role(root, false),
        ("rbac.authorization.k8s.io", "RoleBinding") => rbac::binding(root, &["ClusterRole", "Role"]),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => rbac::binding(root, &["ClusterRole"]),
        _ => control::object(kind, root),
    }
}

/// The rules about what may not change.
fn immutability(group: &str, kind: &str, root: &Field<'_>, old: &Field<'_>) -> Errors {
    match (group, kind) {
        ("", "Pod") => {
            let mut errors = pod_update::spec(&root.get("spec"), &old.get("spec"));
            errors.extend(pod_update::self_fence(root, old));
            errors
        }
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => {
            field::same(&root.at("spec.selector"), &old.at("spec.selector"))
        }
        ("apps", "StatefulSet") => workload::stateful_set_update(&root.get("spec"), &old.get("spec")),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            crate::crd::validate_definition_update(root.value, old.value)
        }
        ("batch", "Job") => batch::job_update(root, old),
        ("", "PersistentVolume") => storage::volume_update(root, old),
        ("", "PersistentVolumeClaim") => storage::claim_update(root, old),
        ("storage.k8s.io", "StorageClass") => storage::class_update(root, old),
        ("scheduling.k8s.io", "PriorityClass") => policy::priority_class_update(root, old),
        ("discovery.k8s.io", "EndpointSlice") => networking::endpoint_slice_update(root, old),
        ("apps", "ControllerRevision") => field::same(&root.get("data"), &old.get("data")),
        ("", "Service") => service::update(&root.get("spec"), &old.get("spec")),
        ("", "ConfigMap") => config::locked(root, old, &["data", "binaryData"]),
        ("", "Secret") => {
            let mut errors = field::same(&root.get("type"), &old.get("type"));
            errors.extend(config::locked(root, old, &["data"]));
            errors
        }
        ("", "Node") => node::update(&root.get("spec"), &old.get("spec")),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            rbac::binding_update(root, old)
        }
        _ => control::update(kind, root, old),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Definitions, FieldValidation, decode};
    use crate::testing::{Random, golden};

    #[test]
    fn cases() {
        golden("validation/cases.txt", |case| {
            let (group, kind) = case.get("kind").split_once('/').expect("GROUP/KIND");
            let json = |text: &str| -> Value {
                let mut object =
                    crate::schema::parse(text.as_bytes(), crate::schema::Format::Yaml).expect("YAML").value;
                if object.pointer("/metadata/name").is_none() {
                    crate::object::set_name(&mut object, "x");
                }
                crate::defaults::apply(group, kind, &mut object);
                object
            };
            let errors = match case.find("old") {
                Some(old) => validate_update(group, kind, &json(case.get("object")), &json(old)),
                None => validate_create(group, kind, &json(case.get("object"))),
            };
            let lines: Vec<String> = errors.iter().map(FieldError::to_string).collect();
            if lines.is_empty() { "fine".into() } else { lines.join("\n") }
        });
    }

    /// Whatever a client sends, the way through the API server ends in an answer.
    #[test]
    fn no_object_of_any_kind_stops_defaulting_or_validation() {
        let definitions = Definitions::builtin();
        for (index, (group, _, kind, definition)) in definitions.kinds().enumerate() {
            let schema = definitions.schema(definition).expect("a built-in definition");
            for seed in 1..30 {
                let random = Random(seed * 1000 + index as u64).value(schema, 0);
                let Ok(decoded) = decode(schema, random, FieldValidation::Ignore) else { continue };
                let mut object = decoded.object;
                crate::defaults::apply(group, kind, &mut object);
                let once = object.clone();
                crate::defaults::apply(group, kind, &mut object);
                assert_eq!(once, object, "defaults of {kind} applied twice, seed {seed}");
                validate_create(group, kind, &object);
                let errors = validate_update(group, kind, &object, &object);
                let immutable = |error: &&FieldError| error.detail.contains("immutable");
                assert_eq!(errors.iter().find(immutable), None, "{kind} didn't change, seed {seed}");
            }
        }
    }

    /// What defaulting adds is part of the schema.
    #[test]
    fn defaults_are_known_fields() {
        let definitions = Definitions::builtin();
        for (index, (group, _, kind, definition)) in definitions.kinds().enumerate() {
            let schema = definitions.schema(definition).expect("a built-in definition");
            for seed in 1..30 {
                let random = Random(seed * 1000 + index as u64).value(schema, 0);
                let Ok(decoded) = decode(schema, random, FieldValidation::Ignore) else { continue };
                let mut object = decoded.object;
                crate::defaults::apply(group, kind, &mut object);
                let strict = decode(schema, object.clone(), FieldValidation::Strict);
                assert_eq!(strict.map(|decoded| decoded.warnings), Ok(Vec::new()), "{kind}, seed {seed}");
            }
        }
    }
}
