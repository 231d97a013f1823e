//! Defaults of ingresses, network policies and endpoint slices.

use serde_json::{Value, json};

use super::fields::Defaults;

pub(super) fn ingress(ingress: &mut Value) {
    ingress.under("status", |status| status.map("loadBalancer"));
}

/// A policy without types is about ingress, and about egress if it says anything on that.
pub(super) fn network_policy(policy: &mut Value) {
    policy.under("spec", |spec| {
        for direction in ["ingress", "egress"] {
            spec.each(direction, |rule| rule.each("ports", |port| port.text("protocol", "TCP")));
        }
        let egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
        spec.or_insert("policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
    });
}

pub(super) fn endpoint_slice(slice: &mut Value) {
    slice.each("ports", |port| {
        port.or_insert("name", "");
        port.text("protocol", "TCP");
    });
}
