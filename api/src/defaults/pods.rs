//! Defaults of pods and of the pod templates inside other kinds.

use serde_json::Value;

use super::containers::container;
use super::fields::{Defaults, text};
use super::volumes::volume;

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Defaults of a pod: those of a template, and a few that templates don't get.
pub(super) fn pod(pod: &mut Value) {
    pod.map("status");
    pod.under("spec", |spec| {
        pod_spec(spec);
        spec.or_insert("enableServiceLinks", true);
        for list in CONTAINER_LISTS {
            spec.each(list, |container| container.within("resources", requests_from_limits));
        }
        spec.within("resources", requests_from_limits);
    });
}

/// Defaults of the `template` of a workload.
pub fn pod_template(template: &mut Value) {
    template.map("metadata");
    template.under("spec", pod_spec);
}

fn pod_spec(spec: &mut Value) {
    spec.text("dnsPolicy", "ClusterFirst");
    spec.text("restartPolicy", "Always");
    spec.text("schedulerName", "default-scheduler");
    spec.map("securityContext");
    spec.or_insert("terminationGracePeriodSeconds", 30);
    service_account(spec);
    for list in CONTAINER_LISTS {
        spec.each(list, container);
    }
    spec.each("volumes", volume);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        host_ports(spec);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always shown.
fn service_account(spec: &mut Value) {
    let name = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount").to_string(),
        name => name.to_string(),
    };
    if !name.is_empty() {
        spec.set("serviceAccountName", name.as_str().into());
        spec.set("serviceAccount", name.into());
    }
}

/// In the host's network a container's port is the host's port.
fn host_ports(spec: &mut Value) {
    for list in ["containers", "initContainers"] {
        spec.each(list, |container| {
            container.each("ports", |port| {
                let number = port.get("containerPort").cloned().unwrap_or_default();
                if port.get("hostPort").is_none_or(|host| host == 0) {
                    port.set("hostPort", number);
                }
            });
        });
    }
}

fn requests_from_limits(resources: &mut Value) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    resources.under("requests", |requests| {
        for (name, amount) in limits {
            requests.or_insert(&name, amount);
        }
    });
}
