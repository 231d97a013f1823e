//! What the API server fills in when a client leaves it out.
//!
//! Defaults are applied to every object that is created or replaced, after decoding and before admission
//! and validation; applying them twice changes nothing. Values that depend on anything but the object
//! itself (allocated addresses, generated names, times) are not defaults and come from elsewhere.

mod autoscaling;
mod batch;
mod containers;
mod control;
mod fields;
mod networking;
mod pods;
mod rbac;
mod services;
mod storage;
mod volumes;
mod workloads;

use serde_json::Value;

pub use pods::pod_template;

use fields::Defaults;

/// Fills the defaults of a kind into an object; `group` is empty for the core group. Kinds without
/// defaults are left alone.
pub fn apply(group: &str, kind: &str, object: &mut Value) {
    match (group, kind) {
        ("", "Pod") => pods::pod(object),
        ("", "Service") => services::service(object),
        ("", "Endpoints") => services::endpoints(object),
        ("", "Secret") => secret(object),
        ("", "Namespace") => namespace(object),
        ("", "Node") => node(object),
        ("", "PodTemplate") => object.under("template", pod_template),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => custom_resource_definition(object),
        ("apps", "Deployment") => workloads::deployment(object),
        ("apps", "ReplicaSet") => workloads::replica_set(object),
        ("apps", "StatefulSet") => workloads::stateful_set(object),
        ("apps", "DaemonSet") => workloads::daemon_set(object),
        ("", "ReplicationController") => workloads::replication_controller(object),
        ("", "PersistentVolume") => storage::persistent_volume(object),
        ("", "PersistentVolumeClaim") => storage::claim(object),
        ("batch", "Job") => batch::job(object),
        ("batch", "CronJob") => batch::cron_job(object),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::autoscaler(object),
        ("policy", "PodDisruptionBudget") => disruption_budget(object),
        ("networking.k8s.io", "Ingress") => networking::ingress(object),
        ("networking.k8s.io", "NetworkPolicy") => networking::network_policy(object),
        ("discovery.k8s.io", "EndpointSlice") => networking::endpoint_slice(object),
        ("storage.k8s.io", "StorageClass") => storage::storage_class(object),
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver(object),
        ("storage.k8s.io", "VolumeAttachment") => storage::volume_attachment(object),
        ("scheduling.k8s.io", "PriorityClass") => object.text("preemptionPolicy", "PreemptLowerPriority"),
        ("certificates.k8s.io", "PodCertificateRequest") => {
            object.under("spec", |spec| spec.or_insert("maxExpirationSeconds", 86_400));
        }
        ("", "LimitRange") => control::limit_range(object),
        ("admissionregistration.k8s.io", _) => admission(kind, object),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => control::flow_schema(object),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => control::priority_level(object),
        ("resource.k8s.io", "ResourceClaim") => control::claim(object),
        ("resource.k8s.io", "ResourceClaimTemplate") => control::claim_template(object),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => rbac::binding(object),
        _ => {}
    }
}

fn admission(kind: &str, object: &mut Value) {
    match kind {
        "MutatingWebhookConfiguration" => control::webhooks(object, true),
        "ValidatingWebhookConfiguration" => control::webhooks(object, false),
        "MutatingAdmissionPolicy" | "ValidatingAdmissionPolicy" => control::policy(object),
        "MutatingAdmissionPolicyBinding" | "ValidatingAdmissionPolicyBinding" => {
            control::policy_binding(object)
        }
        _ => {}
    }
}

/// `stringData` is write-only: it becomes `data`.
fn secret(object: &mut Value) {
    use base64::Engine;
    object.text("type", "Opaque");
    let Some(Value::Object(texts)) = object.as_object_mut().and_then(|map| map.remove("stringData")) else {
        return;
    };
    object.under("data", |data| {
        for (key, text) in texts {
            let bytes = text.as_str().unwrap_or_default();
            data.set(&key, base64::engine::general_purpose::STANDARD.encode(bytes).into());
        }
    });
}

/// The label lets selectors mean a namespace by its name.
fn namespace(object: &mut Value) {
    let name = crate::object::name(object).to_string();
    if !name.is_empty() {
        crate::object::set_label(object, "kubernetes.io/metadata.name", &name);
    }
    object.map("spec");
    object.map("status");
}

fn disruption_budget(object: &mut Value) {
    object.under("status", |status| {
        for counter in ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"] {
            status.or_insert(counter, 0);
        }
    });
}

fn custom_resource_definition(object: &mut Value) {
    object.under("spec", |spec| {
        spec.within("names", |names| {
            let kind = fields::text(names, "kind").to_owned();
            if !kind.is_empty() {
                names.text("singular", &kind.to_lowercase());
                names.text("listKind", &format!("{kind}List"));
            }
        });
        spec.under("conversion", |conversion| conversion.text("strategy", "None"));
        spec.within("conversion", |conversion| {
            conversion.within("webhook", |webhook| {
                webhook.within("clientConfig", |client| {
                    client.within("service", |service| service.or_insert("port", 443))
                });
            });
        });
    });
}

fn node(object: &mut Value) {
    object.map("spec");
    object.under("status", |status| {
        if let Some(capacity) = status.get("capacity").cloned() {
            status.or_insert("allocatable", capacity);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;

    #[test]
    fn cases() {
        golden("defaults/cases.txt", |case| {
            let mut object: Value = serde_json::from_str(case.get("object")).expect("JSON");
            let (group, kind) = case.get("kind").split_once('/').expect("GROUP/KIND");
            apply(group, kind, &mut object);
            let once = object.clone();
            apply(group, kind, &mut object);
            assert_eq!(once, object, "defaults applied twice change nothing more");
            crate::yaml::to_yaml(&object)
        });
    }
}
