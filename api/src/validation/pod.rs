//! Rules for pods and for the pod templates inside other kinds.

use std::collections::BTreeSet;

use serde_json::Value;

use super::field::{Errors, Field, labels};
use super::{container, resources, scheduling, volume};
use crate::name;
use crate::self_fence::ANNOTATION;
use crate::status::FieldError;

/// Whose pod spec this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A pod's own.
    None,
    /// A template of a controller that restarts pods for ever.
    Workload,
}

/// Validates a defaulted pod spec at a path, for kinds that contain one.
pub fn validate_pod_spec(path: &str, spec: &Value) -> Vec<FieldError> {
    self::spec(&Field::new(path, spec), Owner::Workload)
}

/// A pod template: labels, annotations and spec.
pub(super) fn template(template: &Field<'_>) -> Errors {
    let mut errors = labels(&template.at("metadata.labels"));
    errors.extend(self_fence(&template.at("metadata.annotations")));
    errors.extend(spec(&template.get("spec"), Owner::Workload));
    errors
}

/// A wish that is misspelt would be found out when the pod runs twice.
pub(super) fn self_fence(annotations: &Field<'_>) -> Errors {
    let wish = annotations.entries().find(|(key, _)| *key == ANNOTATION);
    wish.map(|(_, wish)| wish.one_of(&["true", "false"])).unwrap_or_default()
}

/// A pod spec.
pub(super) fn spec(spec: &Field<'_>, owner: Owner) -> Errors {
    let volumes: BTreeSet<&str> =
        spec.get("volumes").items().map(|volume| volume.get("name").text()).collect();
    let mut errors = volume::volumes(&spec.get("volumes"), owner);
    errors.extend(container::containers(spec, &volumes));
    if owner == Owner::Workload && spec.get("ephemeralContainers").exists() {
        errors.push(
            spec.get("ephemeralContainers").forbidden("ephemeral containers not allowed in pod template"),
        );
    }
    errors.extend(policies(spec));
    errors.extend(identity(spec));
    errors.extend(scheduling::scheduling(spec));
    errors.extend(resources::requirements(&spec.get("resources")));
    errors
}

fn policies(spec: &Field<'_>) -> Errors {
    let mut errors = spec.get("restartPolicy").one_of(&["Always", "OnFailure", "Never"]);
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.extend(spec.get("dnsPolicy").one_of(&dns));
    errors.extend(dns_config(spec));
    errors.extend(spec.get("terminationGracePeriodSeconds").nonnegative());
    errors.extend(spec.get("activeDeadlineSeconds").between(1, i64::from(i32::MAX)));
    errors.extend(spec.get("preemptionPolicy").one_of(&["PreemptLowerPriority", "Never"]));
    errors.extend(host_namespaces(spec));
    errors
}

fn dns_config(spec: &Field<'_>) -> Errors {
    let servers = spec.at("dnsConfig.nameservers");
    if spec.get("dnsPolicy").text() == "None" && servers.is_empty() {
        return vec![servers.required("must provide at least one DNS nameserver when `dnsPolicy` is None")];
    }
    let bad = servers.items().filter(|server| server.text().parse::<std::net::IpAddr>().is_err());
    bad.map(|server| server.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
        .collect()
}

fn host_namespaces(spec: &Field<'_>) -> Errors {
    let share = spec.get("shareProcessNamespace");
    match share.flag() && spec.get("hostPID").flag() {
        true => vec![share.invalid("ShareProcessNamespace and HostPID cannot both be enabled")],
        false => Errors::new(),
    }
}

fn identity(spec: &Field<'_>) -> Errors {
    let mut errors = spec.get("serviceAccountName").checked(name::dns1123_subdomain);
    errors.extend(spec.get("nodeName").checked(name::dns1123_subdomain));
    errors.extend(spec.get("hostname").checked(name::dns1123_label));
    errors.extend(spec.get("subdomain").checked(name::dns1123_label));
    errors.extend(spec.get("schedulerName").checked(name::dns1123_subdomain));
    errors.extend(spec.get("priorityClassName").checked(name::dns1123_subdomain));
    errors.extend(spec.get("runtimeClassName").checked(name::dns1123_subdomain));
    for secret in spec.get("imagePullSecrets").items() {
        errors.extend(secret.get("name").present());
    }
    let context = spec.get("securityContext");
    for id in ["runAsUser", "runAsGroup", "fsGroup"] {
        errors.extend(context.get(id).between(0, i64::from(i32::MAX)));
    }
    errors
}
