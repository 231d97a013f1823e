//! Nodes: whether they are ready, and what they are.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{AGE, NAME, NONE, Spec, UNKNOWN, field, items, or, str_at, text};

pub(super) const COLUMNS: &[Spec] = &[
    NAME,
    text("Status", "Whether the node is ready and takes new pods.", status),
    text("Roles", "What the node is for, from its labels.", roles),
    AGE,
    field("Version", "The kubelet's version.", "/status/nodeInfo/kubeletVersion"),
    text("Internal-IP", "The address inside the cluster.", |node, _| address(node, "InternalIP")).wide(),
    text("External-IP", "The address outside the cluster.", |node, _| address(node, "ExternalIP")).wide(),
    text("OS-Image", "The operating system.", |node, _| info(node, "/osImage")).wide(),
    text("Kernel-Version", "The kernel.", |node, _| info(node, "/kernelVersion")).wide(),
    text("Container-Runtime", "What runs containers.", |node, _| info(node, "/containerRuntimeVersion"))
        .wide(),
];

fn status(node: &Value, _now: Timestamp) -> Value {
    let ready = items(node, "/status/conditions").iter().find(|condition| condition["type"] == "Ready");
    let mut status = match ready {
        Some(condition) if condition["status"] == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    json!(status)
}

fn roles(node: &Value, _now: Timestamp) -> Value {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    or(roles.join(","), NONE)
}

fn address(node: &Value, kind: &str) -> Value {
    let addresses = items(node, "/status/addresses");
    let found = addresses.iter().find(|address| address["type"] == kind);
    or(found.map(|address| str_at(address, "/address")).unwrap_or_default(), NONE)
}

fn info(node: &Value, pointer: &str) -> Value {
    or(str_at(&node["status"]["nodeInfo"], pointer), UNKNOWN)
}
