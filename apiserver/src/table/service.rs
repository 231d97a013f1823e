//! Services: how they are reached.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{AGE, NAME, NONE, Spec, field, int, items, or, str_at, text};

pub(super) const COLUMNS: &[Spec] = &[
    NAME,
    field("Type", "How the Service is exposed.", "/spec/type"),
    text("Cluster-IP", "The address inside the cluster.", cluster_ip),
    text("External-IP", "Addresses outside the cluster.", external_ip),
    text("Port(s)", "Ports, with the node's port behind a colon.", ports),
    AGE,
    text("Selector", "Labels of the pods behind the Service.", selector).wide(),
];

fn cluster_ip(service: &Value, _now: Timestamp) -> Value {
    let first = str_at(service, "/spec/clusterIPs/0");
    or(if first.is_empty() { str_at(service, "/spec/clusterIP") } else { first }, NONE)
}

fn external_ip(service: &Value, _now: Timestamp) -> Value {
    let given: Vec<&str> = items(service, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match str_at(service, "/spec/type") {
        "ExternalName" => json!(str_at(service, "/spec/externalName")),
        "LoadBalancer" => {
            let balancers = items(service, "/status/loadBalancer/ingress").iter().map(ingress_point);
            or(balancers.chain(given).collect::<Vec<_>>().join(","), "<pending>")
        }
        _ => or(given.join(","), NONE),
    }
}

fn ingress_point(ingress: &Value) -> &str {
    match str_at(ingress, "/ip") {
        "" => str_at(ingress, "/hostname"),
        ip => ip,
    }
}

fn ports(service: &Value, _now: Timestamp) -> Value {
    let ports = items(service, "/spec/ports").iter().map(|port| {
        let protocol = str_at(port, "/protocol");
        match (int(port, "/port"), int(port, "/nodePort")) {
            (port, 0) => format!("{port}/{protocol}"),
            (port, node_port) => format!("{port}:{node_port}/{protocol}"),
        }
    });
    or(ports.collect::<Vec<_>>().join(","), NONE)
}

fn selector(service: &Value, _now: Timestamp) -> Value {
    let labels = service.pointer("/spec/selector").and_then(Value::as_object).into_iter().flatten();
    let labels = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    or(labels.collect::<Vec<_>>().join(","), NONE)
}
