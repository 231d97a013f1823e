//! Volumes, claims and classes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{AGE, DEFAULT, NAME, Spec, UNKNOWN, UNSET, field, items, or, str_at, text};

pub(super) fn columns(kind: &str) -> &'static [Spec] {
    match kind {
        "PersistentVolume" => VOLUME,
        "PersistentVolumeClaim" => CLAIM,
        "StorageClass" => CLASS,
        "VolumeAttributesClass" => ATTRIBUTES,
        "VolumeAttachment" => ATTACHMENT,
        _ => DEFAULT,
    }
}

const DEFAULT_CLASS: &str = "/metadata/annotations/storageclass.kubernetes.io~1is-default-class";

const VOLUME: &[Spec] = &[
    NAME,
    field("Capacity", "How much it holds.", "/spec/capacity/storage"),
    text("Access Modes", "How it may be mounted.", |object, _| json!(modes(object, "/spec/accessModes"))),
    field("Reclaim Policy", "What becomes of it without its claim.", "/spec/persistentVolumeReclaimPolicy"),
    text("Status", "How it stands.", phase),
    text("Claim", "Whose it is.", claim),
    field("StorageClass", "How it was made.", "/spec/storageClassName"),
    text("VolumeAttributesClass", "Its qualities.", |object, _| {
        or(str_at(object, "/spec/volumeAttributesClassName"), UNSET)
    }),
    field("Reason", "Why it stands so.", "/status/reason"),
    AGE,
    text("VolumeMode", "A file system or a block device.", volume_mode).wide(),
];
const CLAIM: &[Spec] = &[
    NAME,
    text("Status", "How it stands.", phase),
    field("Volume", "What it got.", "/spec/volumeName"),
    text("Capacity", "How much it got.", |object, _| json!(granted(object, "/status/capacity/storage"))),
    text("Access Modes", "How it may be mounted.", |object, _| {
        json!(if is_bound(object) { modes(object, "/status/accessModes") } else { String::new() })
    }),
    field("StorageClass", "How its volume is made.", "/spec/storageClassName"),
    text("VolumeAttributesClass", "Its qualities.", |object, _| {
        or(str_at(object, "/spec/volumeAttributesClassName"), UNSET)
    }),
    AGE,
    text("VolumeMode", "A file system or a block device.", volume_mode).wide(),
];
const CLASS: &[Spec] = &[
    text("Name", "Unique; the default class says so.", |object, _| {
        let mark = if str_at(object, DEFAULT_CLASS) == "true" { " (default)" } else { "" };
        json!(format!("{}{mark}", str_at(object, "/metadata/name")))
    })
    .naming(),
    field("Provisioner", "Who makes the volumes.", "/provisioner"),
    field("ReclaimPolicy", "What becomes of a volume without its claim.", "/reclaimPolicy"),
    field("VolumeBindingMode", "When volumes are made.", "/volumeBindingMode"),
    text("AllowVolumeExpansion", "Whether volumes may grow.", |object, _| {
        json!(object["allowVolumeExpansion"].as_bool().unwrap_or_default().to_string())
    }),
    AGE,
];
const ATTRIBUTES: &[Spec] = &[NAME, field("DriverName", "Whose volumes it is for.", "/driverName"), AGE];
const ATTACHMENT: &[Spec] = &[
    NAME,
    field("Attacher", "Who attaches it.", "/spec/attacher"),
    field("PV", "What is attached.", "/spec/source/persistentVolumeName"),
    field("Node", "Where.", "/spec/nodeName"),
    text("Attached", "Whether it is done.", |object, _| {
        json!(object.pointer("/status/attached").and_then(Value::as_bool).unwrap_or_default().to_string())
    }),
    AGE,
];

fn phase(object: &Value, _now: Timestamp) -> Value {
    match object.pointer("/metadata/deletionTimestamp") {
        Some(_) => json!("Terminating"),
        None => or(str_at(object, "/status/phase"), UNKNOWN),
    }
}

fn is_bound(claim: &Value) -> bool {
    !str_at(claim, "/spec/volumeName").is_empty()
}

fn granted<'a>(claim: &'a Value, pointer: &str) -> &'a str {
    if is_bound(claim) { str_at(claim, pointer) } else { "" }
}

fn claim(volume: &Value, _now: Timestamp) -> Value {
    match str_at(volume, "/spec/claimRef/name") {
        "" => json!(""),
        name => json!(format!("{}/{name}", str_at(volume, "/spec/claimRef/namespace"))),
    }
}

fn volume_mode(object: &Value, _now: Timestamp) -> Value {
    or(str_at(object, "/spec/volumeMode"), UNSET)
}

/// Access modes in kubectl's short form, each once.
fn modes(object: &Value, pointer: &str) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| items(object, pointer).iter().any(|item| item == mode);
    let short: Vec<&str> = SHORT.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect();
    short.join(",")
}
