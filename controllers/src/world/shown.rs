//! Objects as a line each, as scripts and summaries show them.

use super::{World, text};
use client::informer::ObjectKey;
use serde_json::{Value, json};

impl World {
    /// One line an object.
    pub fn show(&self, plural: &str) -> Vec<String> {
        self.server.of_kind(plural).map(|(key, object)| line(plural, key, object)).collect()
    }
}

fn line(plural: &str, key: &ObjectKey, object: &Value) -> String {
    let deleting = if api::object::is_deleting(object) { " deleting" } else { "" };
    let facts = match plural {
        "pods" => format!(
            "{} on {:?}{}",
            text(object, "/status/phase"),
            text(object, "/spec/nodeName"),
            avoided(object)
        ),
        "deployments" => format!("revision={} {}", annotation(object, "revision"), status(object)),
        "replicasets" => {
            let replicas = &object["spec"]["replicas"];
            format!("revision={} replicas={replicas} {}", annotation(object, "revision"), status(object))
        }
        "jobs"
        | "statefulsets"
        | "daemonsets"
        | "replicationcontrollers"
        | "cronjobs"
        | "poddisruptionbudgets"
        | "servicecidrs"
        | "certificatesigningrequests" => status(object),
        "resourcequotas" => status(object).replace('"', ""),
        "endpointslices" => format!("{} {}", object["ports"], object["endpoints"]),
        "endpoints" => object["subsets"].to_string(),
        "controllerrevisions" => format!("revision={}", object["revision"]),
        "persistentvolumes" => {
            let claim = &object["spec"]["claimRef"];
            format!("{} for {:?}", text(object, "/status/phase"), text(claim, "/name"))
        }
        "clusterroles" => object["rules"].to_string(),
        "nodes" => format!("{} {}", object["status"]["conditions"][0]["status"], taints(object)),
        "namespaces" => text(object, "/status/phase"),
        _ => format!(
            "finalizers={:?} owners={}",
            api::object::finalizers(object),
            api::object::owner_references(object).len()
        ),
    };
    format!("{plural} {key} {facts}{deleting}")
}

/// The nodes that a pod would rather not run on.
fn avoided(pod: &Value) -> String {
    let preferred =
        "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/preference";
    let fields = pod.pointer(preferred).and_then(|term| term["matchFields"].as_array());
    fields.map_or_else(String::new, |fields| {
        let nodes: Vec<String> = fields.iter().map(|field| text(field, "/values/0")).collect();
        format!(" rather than {}", nodes.join(", "))
    })
}

fn annotation(object: &Value, name: &str) -> String {
    text(object, &format!("/metadata/annotations/deployment.kubernetes.io~1{name}"))
}

fn status(object: &Value) -> String {
    let mut status = object["status"].clone();
    if let Some(fields) = status.as_object_mut() {
        fields.remove("conditions");
        fields.remove("observedGeneration");
        fields.retain(|_, count| *count != json!(0));
    }
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let conditions: Vec<String> = conditions
        .iter()
        .map(|condition| {
            format!(
                "{}={}/{}",
                text(condition, "/type"),
                text(condition, "/status"),
                text(condition, "/reason")
            )
        })
        .collect();
    format!("{status} {}", conditions.join(" "))
}

fn taints(node: &Value) -> String {
    let taints = node.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
    let taints: Vec<String> =
        taints.iter().map(|taint| format!("{}:{}", text(taint, "/key"), text(taint, "/effect"))).collect();
    taints.join(",")
}
