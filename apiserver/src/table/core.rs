//! The smaller kinds of the core group, and Lease.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{AGE, DEFAULT, NAME, NONE, Spec, entries, field, int, items, number, or, str_at, text};

pub(super) fn columns(kind: &str) -> &'static [Spec] {
    match kind {
        "ComponentStatus" => COMPONENT_STATUS,
        "Namespace" => NAMESPACE,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "Endpoints" => ENDPOINTS,
        _ => DEFAULT,
    }
}

const NAMESPACE: &[Spec] =
    &[NAME, field("Status", "Active, or Terminating while it is deleted.", "/status/phase"), AGE];
const CONFIG_MAP: &[Spec] = &[NAME, number("Data", "Number of entries.", config_map_entries), AGE];
const SECRET: &[Spec] = &[
    NAME,
    field("Type", "What the Secret is for.", "/type"),
    number("Data", "Number of entries.", |secret, _| json!(entries(secret, "/data"))),
    AGE,
];
const SERVICE_ACCOUNT: &[Spec] = &[
    NAME,
    number("Secrets", "Number of Secrets.", |account, _| json!(items(account, "/secrets").len())),
    AGE,
];
const ENDPOINTS: &[Spec] = &[NAME, text("Endpoints", "Addresses with ports.", endpoints), AGE];
const COMPONENT_STATUS: &[Spec] = &[
    NAME,
    text("Status", "Whether it works.", |object, _| match condition(object, "status") {
        "True" => json!("Healthy"),
        "False" => json!("Unhealthy"),
        _ => json!("Unknown"),
    }),
    text("Message", "What it says.", |object, _| json!(condition(object, "message"))),
    text("Error", "What is wrong.", |object, _| json!(condition(object, "error"))),
];

fn condition<'a>(object: &'a Value, part: &str) -> &'a str {
    object["conditions"][0][part].as_str().unwrap_or_default()
}

pub(super) const LEASE: &[Spec] =
    &[NAME, field("Holder", "Who holds the lease.", "/spec/holderIdentity"), AGE];

/// Upstream prints this many and counts the rest.
const ENDPOINTS_SHOWN: usize = 3;

fn config_map_entries(map: &Value, _now: Timestamp) -> Value {
    json!(entries(map, "/data") + entries(map, "/binaryData"))
}

fn endpoints(object: &Value, _now: Timestamp) -> Value {
    let all: Vec<String> = items(object, "/subsets").iter().flat_map(subset_endpoints).collect();
    if all.len() <= ENDPOINTS_SHOWN {
        return or(all.join(","), NONE);
    }
    json!(format!("{} + {} more...", all[..ENDPOINTS_SHOWN].join(","), all.len() - ENDPOINTS_SHOWN))
}

fn subset_endpoints(subset: &Value) -> Vec<String> {
    let (addresses, ports) = (items(subset, "/addresses"), items(subset, "/ports"));
    if ports.is_empty() {
        return addresses.iter().map(|address| str_at(address, "/ip").to_owned()).collect();
    }
    let joined = ports.iter().flat_map(|port| {
        addresses.iter().map(move |address| match str_at(address, "/ip") {
            ip if ip.contains(':') => format!("[{ip}]:{}", int(port, "/port")),
            ip => format!("{ip}:{}", int(port, "/port")),
        })
    });
    joined.collect()
}
