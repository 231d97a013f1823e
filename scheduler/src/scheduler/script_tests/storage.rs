//! Claims, volumes, classes and nodes' limits in scripts.

use super::Event;
use super::objects::option;
use crate::name::{ClaimKey, VolumeName};
use crate::storage::{ClaimInfo, ClassInfo, NodeLimits, StorageEvent, VolumeInfo};
use serde_json::{Value, json};

/// `claim NAME …`, `volume NAME …`, `class NAME …`, `limits NODE DRIVER=COUNT …`
pub fn event(words: &[&str]) -> Event {
    let (kind, name) = (words[0], words[1]);
    let options = words[2..].iter().map(|word| option(word));
    let read = "the object can be read";
    Event::Storage(match kind {
        "claim" => {
            let object =
                options.fold(claim(name), |object, (option, value)| with_claim(object, option, value));
            StorageEvent::Claim(ClaimInfo::of(&serde_json::from_value(object).expect(read)))
        }
        "volume" => {
            let object =
                options.fold(volume(name), |object, (option, value)| with_volume(object, option, value));
            StorageEvent::Volume(VolumeInfo::of(&serde_json::from_value(object).expect(read)))
        }
        "class" => {
            let object =
                options.fold(class(name), |object, (option, value)| with_class(object, option, value));
            StorageEvent::Class(ClassInfo::of(&serde_json::from_value(object).expect(read)))
        }
        _ => {
            let drivers: Vec<Value> = options.map(|(driver, count)| limit(driver, count)).collect();
            let object = json!({"metadata": {"name": name}, "spec": {"drivers": drivers}});
            StorageEvent::Limits(NodeLimits::of(&serde_json::from_value(object).expect(read)))
        }
    })
}

/// `claim NAME`, `volume NAME`, `class NAME`, `limits NODE`
pub fn gone(words: &[&str]) -> Event {
    Event::Storage(match *words {
        ["claim", name] => StorageEvent::ClaimGone(ClaimKey::new("default", name)),
        ["volume", name] => StorageEvent::VolumeGone(VolumeName(name.into())),
        ["class", name] => StorageEvent::ClassGone(name.into()),
        [_, node] => StorageEvent::LimitsGone(node.into()),
        _ => panic!("unknown words: {words:?}"),
    })
}

fn claim(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "annotations": {}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        "status": {},
    })
}

fn with_claim(mut claim: Value, option: &str, value: &str) -> Value {
    match option {
        "size" => claim["spec"]["resources"]["requests"]["storage"] = json!(value),
        "class" => claim["spec"]["storageClassName"] = json!(value),
        "mode" => claim["spec"]["accessModes"] = json!([value]),
        "volume" => claim["spec"]["volumeName"] = json!(value),
        "bound" => claim["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes"),
        "for" => claim["metadata"]["annotations"][crate::storage::SELECTED_NODE] = json!(value),
        "of" => {
            claim["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod", "name": value, "uid": format!("uid-{value}"), "controller": true}]);
        }
        "lost" => claim["status"]["phase"] = json!("Lost"),
        "terminating" => claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
        _ => panic!("unknown option of a claim: {option}"),
    }
    claim
}

fn volume(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "1", "labels": {}},
        "spec": {"accessModes": ["ReadWriteOnce", "ReadWriteOncePod"], "capacity": {"storage": "1Gi"}},
        "status": {"phase": "Available"},
    })
}

fn with_volume(mut volume: Value, option: &str, value: &str) -> Value {
    match option {
        "size" => volume["spec"]["capacity"]["storage"] = json!(value),
        "class" => volume["spec"]["storageClassName"] = json!(value),
        "of" => {
            volume["spec"]["claimRef"] =
                json!({"namespace": "default", "name": value, "uid": format!("uid-{value}")});
            volume["status"]["phase"] = json!("Bound");
        }
        "named" => volume["spec"]["claimRef"] = json!({"namespace": "default", "name": value}),
        "on" => {
            let hosts: Vec<&str> = value.split('|').collect();
            volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": hosts}]}]}});
        }
        "zone" => volume["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(value),
        "driver" => {
            let handle = volume["metadata"]["name"].clone();
            volume["spec"]["csi"] = json!({"driver": value, "volumeHandle": handle});
        }
        _ => panic!("unknown option of a volume: {option}"),
    }
    volume
}

fn class(name: &str) -> Value {
    json!({"metadata": {"name": name}, "provisioner": "kubernetes.io/no-provisioner"})
}

fn with_class(mut class: Value, option: &str, value: &str) -> Value {
    match option {
        "waits" => class["volumeBindingMode"] = json!("WaitForFirstConsumer"),
        "by" => class["provisioner"] = json!(value),
        "in" => {
            class["allowedTopologies"] = json!([{"matchLabelExpressions": [{"key": "zone", "values": value.split('|').collect::<Vec<_>>()}]}]);
        }
        _ => panic!("unknown option of a class: {option}"),
    }
    class
}

fn limit(driver: &str, count: &str) -> Value {
    let count: i32 = count.parse().expect("a number");
    json!({"name": driver, "nodeID": "id", "topologyKeys": [], "allocatable": {"count": count}})
}
