//! Claims and volumes of model clusters: how they come about, what the rules say of them, and what they are as objects.

use super::model::ModelPod;
use super::world::World;
use crate::name::{ClaimKey, VolumeName};
use crate::storage::{ClaimInfo, ClassInfo, Fate, SELECTED_NODE, StorageEvent, VolumeInfo};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Names of classes by number: bound at once; waiting, of volumes that exist; waiting, of volumes that are made.
const CLASSES: [&str; 3] = ["now", "kept", "made"];
const KEPT: u8 = 1;
const MADE: u8 = 2;
/// Volumes that are made for a claim have its number and this.
const FIRST_MADE: u8 = 100;

#[derive(Clone, Debug)]
pub(super) struct ModelClaim {
    pub(super) class: u8,
    pub(super) size: i64,
    pub(super) exclusive: bool,
    pub(super) bound: Option<u8>,
    pub(super) selected: Option<u8>,
}

#[derive(Clone, Debug)]
pub(super) struct ModelVolume {
    pub(super) size: i64,
    pub(super) hosts: Option<Vec<u8>>,
    pub(super) zone: Option<u8>,
    pub(super) of: Option<u8>,
    /// A driver counts it.
    pub(super) counted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelFate {
    Volume(u8),
    Node(u8),
}

#[derive(Clone, Debug)]
pub(super) enum StorageStep {
    SetClaim(u8, ModelClaim),
    DropClaim(u8),
    SetVolume(u8, ModelVolume),
    DropVolume(u8),
}

fn model_claim() -> impl Strategy<Value = ModelClaim> {
    let bound = prop::option::weighted(0.4, 0..4u8);
    (0..3u8, 1..4i64, prop::bool::weighted(0.3), bound).prop_map(|(class, size, exclusive, bound)| {
        ModelClaim { class, size, exclusive, bound, selected: None }
    })
}

fn model_volume() -> impl Strategy<Value = ModelVolume> {
    let hosts = prop::option::weighted(0.6, prop::collection::vec(0..5u8, 1..4));
    let zone = prop::option::weighted(0.2, 0..3u8);
    (1..5i64, hosts, zone, prop::bool::weighted(0.5)).prop_map(|(size, hosts, zone, counted)| ModelVolume {
        size,
        hosts,
        zone,
        of: None,
        counted,
    })
}

pub(super) fn step() -> impl Strategy<Value = StorageStep> {
    prop_oneof![
        4 => (0..4u8, model_claim()).prop_map(|(name, claim)| StorageStep::SetClaim(name, claim)),
        1 => (0..4u8).prop_map(StorageStep::DropClaim),
        4 => (0..4u8, model_volume()).prop_map(|(name, volume)| StorageStep::SetVolume(name, volume)),
        1 => (0..4u8).prop_map(StorageStep::DropVolume),
    ]
}

// ---- the rules

impl World {
    /// Whether storage lets the pod come to the node.
    pub(super) fn stored(&self, pod: &ModelPod, at: u8) -> bool {
        self.fates(pod, at).is_some()
            && pod.claims.iter().all(|name| self.claim_allows(*name, at))
            && self.within_limit(pod, at)
    }

    fn claim_allows(&self, name: u8, at: u8) -> bool {
        let claim = &self.claims[&name];
        let used = claim.exclusive
            && self.pods.values().any(|(_, other, on)| on.is_some() && other.claims.contains(&name));
        !used && claim.bound.is_none_or(|volume| self.reaches(volume, at))
    }

    pub(super) fn reaches(&self, volume: u8, at: u8) -> bool {
        let Some(volume) = self.volumes.get(&volume) else { return false };
        let node = &self.nodes[&at];
        let host = volume.hosts.as_ref().is_none_or(|hosts| hosts.contains(&at));
        host && (node.zone.is_none() || volume.zone.is_none() || volume.zone == node.zone)
    }

    /// What becomes of the pod's claims that wait; `None` if one is missing or could get no volume.
    pub(super) fn fates(&self, pod: &ModelPod, at: u8) -> Option<Vec<(u8, ModelFate)>> {
        let mut waiting = Vec::new();
        for name in &pod.claims {
            let claim = self.claims.get(name)?;
            match (claim.bound, claim.class) {
                (Some(_), _) => {}
                (None, KEPT | MADE) => waiting.push((claim.size, *name)),
                _ => return None,
            }
        }
        waiting.sort_by_key(|(size, _)| *size);
        let mut fates: Vec<(u8, ModelFate)> = Vec::new();
        for (_, name) in waiting {
            let fate = self.fate(name, at, &fates)?;
            fates.push((name, fate));
        }
        Some(fates)
    }

    fn fate(&self, name: u8, at: u8, others: &[(u8, ModelFate)]) -> Option<ModelFate> {
        let claim = &self.claims[&name];
        let chosen = self.intents.get(&name).map(|(fate, _)| *fate);
        let chosen = chosen.or(claim.selected.map(ModelFate::Node));
        if let Some(ModelFate::Node(node)) = chosen {
            return (node == at).then_some(ModelFate::Node(at));
        }
        let meant = |volume: u8| {
            let fate = ModelFate::Volume(volume);
            let by_others = self.intents.iter().any(|(other, (one, _))| *other != name && *one == fate);
            by_others || others.iter().any(|(_, one)| *one == fate)
        };
        let host = |volume: &ModelVolume| volume.hosts.as_ref().is_none_or(|hosts| hosts.contains(&at));
        let mut right: Vec<(bool, i64, u8)> = self
            .volumes
            .iter()
            .filter(|(_, one)| one.of == Some(name) || one.of.is_none() && claim.class == KEPT)
            .filter(|(number, one)| one.size >= claim.size && host(one) && !meant(**number))
            .map(|(number, one)| (one.of != Some(name), one.size, *number))
            .collect();
        right.sort_unstable();
        let fates = right.into_iter().map(|(_, _, number)| ModelFate::Volume(number));
        match chosen {
            Some(chosen) => fates.into_iter().find(|fate| *fate == chosen),
            None => fates.into_iter().next().or((claim.class == MADE).then_some(ModelFate::Node(at))),
        }
    }

    fn within_limit(&self, pod: &ModelPod, at: u8) -> bool {
        let Some(limit) = self.nodes[&at].limit else { return true };
        let counted = |pod: &ModelPod| -> Vec<String> {
            let known = pod.claims.iter().filter_map(|name| Some((*name, self.claims.get(name)?)));
            known.filter_map(|(name, claim)| self.counted(name, claim)).collect()
        };
        let here: std::collections::BTreeSet<String> = self.on(at).flat_map(counted).collect();
        let mine: std::collections::BTreeSet<String> = counted(pod).into_iter().collect();
        mine.is_subset(&here) || here.union(&mine).count() <= usize::from(limit)
    }

    /// How the driver whose volumes are limited calls what the claim attaches.
    fn counted(&self, name: u8, claim: &ModelClaim) -> Option<String> {
        match claim.bound {
            Some(volume) => self.volumes.get(&volume).filter(|one| one.counted).map(|_| format!("v{volume}")),
            // Whoever makes its volume, and whenever: a class whose claims are bound at once has the driver, too.
            None => (claim.class != KEPT).then(|| format!("default/c{name}")),
        }
    }
}

// ---- the models as API objects

pub(super) fn classes() -> impl Iterator<Item = StorageEvent> {
    CLASSES.into_iter().enumerate().map(|(number, name)| {
        let mode = if number == 0 { "Immediate" } else { "WaitForFirstConsumer" };
        let provisioner = if number == usize::from(KEPT) { "kubernetes.io/no-provisioner" } else { "d" };
        let class =
            json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
        StorageEvent::Class(ClassInfo::of(&serde_json::from_value(class).expect("a class")))
    })
}

pub(super) fn limits(node: u8, limit: Option<u8>) -> StorageEvent {
    let driver = |count| json!({"name": "d", "nodeID": "x", "allocatable": {"count": count}});
    let drivers: Vec<Value> = limit.map(driver).into_iter().collect();
    let object = json!({"metadata": {"name": format!("n{node}")}, "spec": {"drivers": drivers}});
    StorageEvent::Limits(crate::storage::NodeLimits::of(&serde_json::from_value(object).expect("a CSINode")))
}

pub(super) fn claim_event(name: u8, claim: &ModelClaim) -> StorageEvent {
    let mode = if claim.exclusive { "ReadWriteOncePod" } else { "ReadWriteOnce" };
    let mut object = json!({
        "metadata": {"name": format!("c{name}"), "namespace": "default", "uid": format!("c{name}"), "annotations": {}},
        "spec": {
            "accessModes": [mode], "storageClassName": CLASSES[usize::from(claim.class)],
            "resources": {"requests": {"storage": claim.size.to_string()}},
        },
    });
    if let Some(volume) = claim.bound {
        object["spec"]["volumeName"] = json!(format!("v{volume}"));
        object["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes");
    }
    if let Some(node) = claim.selected {
        object["metadata"]["annotations"][SELECTED_NODE] = json!(format!("n{node}"));
    }
    StorageEvent::Claim(ClaimInfo::of(&serde_json::from_value(object).expect("a claim")))
}

pub(super) fn volume_event(name: u8, volume: &ModelVolume) -> StorageEvent {
    let class = if name >= FIRST_MADE { CLASSES[usize::from(MADE)] } else { CLASSES[usize::from(KEPT)] };
    let mut object = json!({
        "metadata": {"name": format!("v{name}"), "uid": format!("v{name}"), "labels": {}},
        "spec": {
            "accessModes": ["ReadWriteOnce", "ReadWriteOncePod"], "storageClassName": class,
            "capacity": {"storage": volume.size.to_string()},
        },
        "status": {"phase": if volume.of.is_some() { "Bound" } else { "Available" }},
    });
    if let Some(hosts) = &volume.hosts {
        let hosts: Vec<String> = hosts.iter().map(|host| format!("n{host}")).collect();
        let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": hosts}]});
        object["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [term]}});
    }
    if let Some(zone) = volume.zone {
        object["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(zone.to_string());
    }
    if let Some(claim) = volume.of {
        let name = format!("c{claim}");
        object["spec"]["claimRef"] = json!({"namespace": "default", "name": name, "uid": name});
    }
    if volume.counted {
        object["spec"]["csi"] = json!({"driver": "d", "volumeHandle": format!("v{name}")});
    }
    StorageEvent::Volume(VolumeInfo::of(&serde_json::from_value(object).expect("a volume")))
}

pub(super) fn claim_key(name: u8) -> ClaimKey {
    ClaimKey::new("default", &format!("c{name}"))
}

pub(super) fn volume_name(name: u8) -> VolumeName {
    VolumeName(format!("v{name}").into())
}

/// The fates of the scheduler in numbers.
pub(super) fn model_fate(fate: &Fate) -> ModelFate {
    match fate {
        Fate::Volume(name) => ModelFate::Volume(super::number(&name.0)),
        Fate::Node(name) => ModelFate::Node(super::number(&name.0)),
    }
}

/// The volume that a provisioner makes for a claim on a node.
pub(super) fn made(claim: u8, size: i64, node: u8) -> (u8, ModelVolume) {
    let volume = ModelVolume { size, hosts: Some(vec![node]), zone: None, of: Some(claim), counted: true };
    (FIRST_MADE + claim, volume)
}
