//! Workloads.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{
    AGE, DEFAULT, NAME, NONE, Spec, container_images, container_names, int, labels_at, number, selector,
    str_at, text,
};

pub(super) fn columns(kind: &str) -> &'static [Spec] {
    match kind {
        "Deployment" => DEPLOYMENT,
        "ReplicaSet" => REPLICA_SET,
        "StatefulSet" => STATEFUL_SET,
        "DaemonSet" => DAEMON_SET,
        "ControllerRevision" => CONTROLLER_REVISION,
        _ => DEFAULT,
    }
}

const CONTAINERS: Spec =
    text("Containers", "Names of the containers in the template.", container_names).wide();
const IMAGES: Spec = text("Images", "Images of the containers in the template.", container_images).wide();
const SELECTOR: Spec = text("Selector", "Which pods belong to it.", selector).wide();

const DEPLOYMENT: &[Spec] = &[
    NAME,
    text("Ready", "Ready pods of those asked for.", ready_of_desired),
    number("Up-to-date", "Pods of the newest template.", |object, _| {
        json!(int(object, "/status/updatedReplicas"))
    }),
    number("Available", "Pods that have been ready for long enough.", |object, _| {
        json!(int(object, "/status/availableReplicas"))
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
const REPLICA_SET: &[Spec] = &[
    NAME,
    number("Desired", "Pods asked for.", |object, _| json!(int(object, "/spec/replicas"))),
    number("Current", "Pods there are.", |object, _| json!(int(object, "/status/replicas"))),
    number("Ready", "Pods that are ready.", |object, _| json!(int(object, "/status/readyReplicas"))),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
const STATEFUL_SET: &[Spec] =
    &[NAME, text("Ready", "Ready pods of those asked for.", ready_of_desired), AGE, CONTAINERS, IMAGES];
const DAEMON_SET: &[Spec] = &[
    NAME,
    number("Desired", "Nodes that should run it.", |object, _| {
        json!(int(object, "/status/desiredNumberScheduled"))
    }),
    number("Current", "Nodes that run it.", |object, _| json!(int(object, "/status/currentNumberScheduled"))),
    number("Ready", "Nodes where it is ready.", |object, _| json!(int(object, "/status/numberReady"))),
    number("Up-to-date", "Nodes with the newest template.", |object, _| {
        json!(int(object, "/status/updatedNumberScheduled"))
    }),
    number("Available", "Nodes where it has been ready for long enough.", |object, _| {
        json!(int(object, "/status/numberAvailable"))
    }),
    text("Node Selector", "On which nodes it should run.", |object, _| {
        json!(labels_at(object, "/spec/template/spec/nodeSelector"))
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
const CONTROLLER_REVISION: &[Spec] = &[
    NAME,
    text("Controller", "The object whose revision it is.", controller),
    number("Revision", "Grows with each change.", |object, _| json!(int(object, "/revision"))),
    AGE,
];

fn ready_of_desired(object: &Value, _now: Timestamp) -> Value {
    json!(format!("{}/{}", int(object, "/status/readyReplicas"), int(object, "/spec/replicas")))
}

fn controller(object: &Value, _now: Timestamp) -> Value {
    let owners = super::cells::items(object, "/metadata/ownerReferences");
    let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) else {
        return json!(NONE);
    };
    let (group, _) = api::object::group_version(str_at(owner, "/apiVersion"));
    let kind = str_at(owner, "/kind").to_lowercase();
    let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
    json!(format!("{kind}/{}", str_at(owner, "/name")))
}
