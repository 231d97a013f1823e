//! Defaults of services and endpoints. Addresses and node ports are allocated elsewhere.

use serde_json::{Value, json};

use super::fields::{Defaults, text};

/// Three hours: how long a client stays with a pod under `ClientIP` affinity.
const AFFINITY_SECONDS: i64 = 10_800;

pub(super) fn service(service: &mut Value) {
    service.under("status", |status| status.map("loadBalancer"));
    service.under("spec", |spec| {
        spec.text("type", "ClusterIP");
        affinity(spec);
        spec.each("ports", port);
        policies(spec);
    });
}

fn affinity(spec: &mut Value) {
    spec.text("sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "ClientIP" => spec.under("sessionAffinityConfig", |config| {
            config.under("clientIP", |client| client.or_insert("timeoutSeconds", AFFINITY_SECONDS));
        }),
        _ => spec.remove("sessionAffinityConfig"),
    }
}

fn port(port: &mut Value) {
    port.text("protocol", "TCP");
    let unset = |target: &Value| *target == 0 || *target == "";
    if port.get("targetPort").is_none_or(unset) {
        let number = port.get("port").cloned().unwrap_or(json!(0));
        port.set("targetPort", number);
    }
}

fn policies(spec: &mut Value) {
    let kind = text(spec, "type").to_string();
    let external = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || kind == "ClusterIP" && external {
        spec.text("externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        spec.text("internalTrafficPolicy", "Cluster");
        spec.or_insert("ipFamilies", json!(["IPv4"]));
        spec.text("ipFamilyPolicy", "SingleStack");
    }
    if kind == "LoadBalancer" {
        spec.or_insert("allocateLoadBalancerNodePorts", true);
    }
}

pub(super) fn endpoints(endpoints: &mut Value) {
    endpoints.each("subsets", |subset| subset.each("ports", |port| port.text("protocol", "TCP")));
}
