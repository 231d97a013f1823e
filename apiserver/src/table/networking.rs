//! Ingresses, network policies and endpoint slices.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{
    AGE, DEFAULT, NAME, NONE, Spec, UNSET, field, items, join_of, or, selector_at, str_at, text,
};

pub(super) fn columns(kind: &str) -> &'static [Spec] {
    match kind {
        "Ingress" => INGRESS,
        "IngressClass" => CLASS,
        "NetworkPolicy" => POLICY,
        "EndpointSlice" => SLICE,
        _ => DEFAULT,
    }
}

/// Endpoints and ports that are shown before "more".
const SHOWN: usize = 3;

const INGRESS: &[Spec] = &[
    NAME,
    text("Class", "Who serves it.", |object, _| or(str_at(object, "/spec/ingressClassName"), NONE)),
    text("Hosts", "For which names.", hosts),
    text("Address", "Where it is served.", address),
    text("Ports", "On which ports.", |object, _| {
        json!(if items(object, "/spec/tls").is_empty() { "80" } else { "80, 443" })
    }),
    AGE,
];
const CLASS: &[Spec] = &[
    NAME,
    field("Controller", "Who serves its ingresses.", "/spec/controller"),
    text("Parameters", "Where more is said.", parameters),
    AGE,
];
const POLICY: &[Spec] = &[
    NAME,
    text("Pod-Selector", "For which pods.", |object, _| json!(selector_at(object, "/spec/podSelector"))),
    AGE,
];
const SLICE: &[Spec] = &[
    NAME,
    field("AddressType", "What its addresses are.", "/addressType"),
    text("Ports", "Where they listen.", |object, _| {
        shortened(items(object, "/ports").iter().map(|port| port["port"].to_string()).collect(), UNSET)
    }),
    text("Endpoints", "Who they are.", |object, _| {
        let addresses = items(object, "/endpoints").iter().flat_map(|endpoint| items(endpoint, "/addresses"));
        shortened(addresses.map(|a| a.as_str().unwrap_or_default().to_owned()).collect(), UNSET)
    }),
    AGE,
];

fn hosts(ingress: &Value, _now: Timestamp) -> Value {
    let rules = items(ingress, "/spec/rules");
    let named: Vec<Value> = rules.iter().filter(|rule| !str_at(rule, "/host").is_empty()).cloned().collect();
    match named.len() {
        0 => json!("*"),
        count if count > SHOWN => {
            json!(format!("{} + {} more...", join_of(&named[..SHOWN], "/host"), count - SHOWN))
        }
        _ => json!(join_of(&named, "/host")),
    }
}

fn address(ingress: &Value, _now: Timestamp) -> Value {
    let points = items(ingress, "/status/loadBalancer/ingress").iter();
    let texts = points.map(|point| match str_at(point, "/ip") {
        "" => str_at(point, "/hostname"),
        ip => ip,
    });
    json!(texts.collect::<Vec<_>>().join(","))
}

fn parameters(class: &Value, _now: Timestamp) -> Value {
    let kind = str_at(class, "/spec/parameters/kind");
    if kind.is_empty() {
        return json!(NONE);
    }
    let group = str_at(class, "/spec/parameters/apiGroup");
    let name = str_at(class, "/spec/parameters/name");
    json!(if group.is_empty() { format!("{kind}/{name}") } else { format!("{kind}.{group}/{name}") })
}

fn shortened(texts: Vec<String>, none: &str) -> Value {
    match texts.len() {
        0 => json!(none),
        count if count > SHOWN => json!(format!("{} + {} more...", texts[..SHOWN].join(","), count - SHOWN)),
        _ => json!(texts.join(",")),
    }
}
