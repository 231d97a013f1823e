//! Claims, volumes, classes and nodes' limits, as decisions read them.

use crate::name::{ClaimKey, NodeName, PodUid, VolumeName};
use crate::selector::{Labels, NodeTerm, Selector};
use api::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim, TopologySelectorTerm};
use api::k8s::api::storage::v1::{CSINode, StorageClass};
use api::k8s::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// On a claim: it was bound, and its volume is not chosen anew.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim: the node that a scheduler chose for its first pod.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim or volume: its class, under its former name.
const FORMER_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// A class of this provisioner makes no volumes.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// Labels by which a volume says where it is.
const PLACES: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
/// Between the zones of a volume that is in several.
const BETWEEN_PLACES: &str = "__";

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimInfo {
    /// Namespace and name.
    pub key: ClaimKey,
    /// Incarnation.
    pub uid: Box<str>,
    /// Uid of the pod whose own it is (an ephemeral volume's).
    pub owner: Option<PodUid>,
    /// Name of its class; empty if it has none.
    pub class: Box<str>,
    /// The volume that it names.
    pub volume: Option<VolumeName>,
    /// It and its volume have been bound to each other.
    pub bound: bool,
    /// Its volume vanished.
    pub lost: bool,
    /// Its deletion has begun.
    pub terminating: bool,
    /// The node that was chosen for its first pod.
    pub selected: Option<NodeName>,
    /// One pod may use it (`ReadWriteOncePod`).
    pub exclusive: bool,
    /// What a volume must offer.
    pub terms: Terms,
    /// What a volume's labels must satisfy.
    pub selector: Option<Selector>,
}

/// A PersistentVolume.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeInfo {
    /// Its name.
    pub name: VolumeName,
    /// Incarnation.
    pub uid: Box<str>,
    /// Of the state that is described here.
    pub version: Box<str>,
    /// Name of its class; empty if it has none.
    pub class: Box<str>,
    /// The claim that it names, and of which incarnation if it says so.
    pub claim: Option<(ClaimKey, Option<Box<str>>)>,
    /// It is free.
    pub available: bool,
    /// Its deletion has begun.
    pub terminating: bool,
    /// What it offers.
    pub terms: Terms,
    /// Its labels.
    pub labels: Labels,
    /// Alternatives, of which its nodes match one; `None` is every node.
    pub nodes: Option<Vec<NodeTerm>>,
    /// Labels of nodes with their values, of which its nodes have one each.
    pub places: Vec<(Box<str>, Vec<Box<str>>)>,
    /// How a driver knows it.
    pub attachment: Option<Attachment>,
}

/// What a claim asks for, or a volume offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Size.
    pub bytes: i128,
    /// A raw device rather than a file system.
    pub block: bool,
    /// Access modes.
    pub modes: Vec<Box<str>>,
}

/// A volume as its driver knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// Name of the driver.
    pub driver: Box<str>,
    /// Its name for the volume.
    pub handle: Box<str>,
}

/// A StorageClass.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassInfo {
    /// Its name.
    pub name: Box<str>,
    /// Who makes its volumes.
    pub provisioner: Box<str>,
    /// Its claims wait for their first pod.
    pub waits: bool,
    /// Alternatives. None at all is every node.
    topologies: Vec<Topology>,
}

/// Labels of nodes, each with the values that are allowed.
type Topology = Vec<(Box<str>, Vec<Box<str>>)>;

/// How many volumes a node takes (CSINode).
#[derive(Clone, Debug, PartialEq)]
pub struct NodeLimits {
    /// The node.
    pub node: NodeName,
    /// By driver.
    pub drivers: BTreeMap<Box<str>, usize>,
}

fn text(text: &Option<String>) -> Box<str> {
    text.as_deref().unwrap_or_default().into()
}

fn class(annotations: &Option<BTreeMap<String, String>>, named: Option<&String>) -> Box<str> {
    let former = annotations.as_ref().and_then(|all| all.get(FORMER_CLASS));
    former.or(named).map(String::as_str).unwrap_or_default().into()
}

impl ClaimInfo {
    /// Reads an API object.
    pub fn of(claim: &PersistentVolumeClaim) -> Self {
        let metadata = &claim.metadata;
        let spec = claim.spec.clone().unwrap_or_default();
        let annotation = |name: &str| metadata.annotations.as_ref()?.get(name).map(String::as_str);
        let owners = metadata.owner_references.iter().flatten();
        let owner =
            owners.filter(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str()).next();
        let volume = spec.volume_name.as_deref().filter(|name| !name.is_empty());
        let modes = spec.access_modes.as_deref().unwrap_or_default();
        let requests = spec.resources.as_ref().and_then(|all| all.requests.as_ref());
        ClaimInfo {
            key: ClaimKey::new(&text(&metadata.namespace), &text(&metadata.name)),
            uid: text(&metadata.uid),
            owner: owner.map(|uid| PodUid(uid.into())),
            class: class(&metadata.annotations, spec.storage_class_name.as_ref()),
            volume: volume.map(|name| VolumeName(name.into())),
            bound: volume.is_some() && annotation(BIND_COMPLETED).is_some(),
            lost: claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost"),
            terminating: metadata.deletion_timestamp.is_some(),
            selected: annotation(SELECTED_NODE).filter(|name| !name.is_empty()).map(NodeName::from),
            exclusive: modes.iter().any(|mode| mode == "ReadWriteOncePod"),
            terms: Terms::of(requests, spec.volume_mode.as_deref(), modes),
            selector: spec.selector.as_ref().and_then(|selector| Selector::of(Some(selector))),
        }
    }

    /// Whether a free volume is what it asks for, wherever it is.
    pub fn may_take(&self, volume: &VolumeInfo) -> bool {
        volume.claim.is_none()
            && volume.available
            && volume.class == self.class
            && self.selector.as_ref().is_none_or(|selector| selector.matches(&volume.labels))
            && self.terms.modes.iter().all(|mode| volume.terms.modes.contains(mode))
    }

    /// Whether a volume is for it by its own word.
    pub fn is_named_by(&self, volume: &VolumeInfo) -> bool {
        let named = volume.claim.as_ref();
        named.is_some_and(|(key, uid)| *key == self.key && uid.as_ref().is_none_or(|uid| *uid == self.uid))
    }
}

impl Terms {
    fn of(amounts: Option<&BTreeMap<String, Quantity>>, mode: Option<&str>, modes: &[String]) -> Self {
        let size = amounts.and_then(|amounts| amounts.get("storage"));
        let size = size.and_then(|size| api::quantity::Quantity::parse(&size.0).ok());
        Terms {
            bytes: size.map_or(0, |size| size.value()),
            block: mode == Some("Block"),
            modes: modes.iter().map(|mode| mode.as_str().into()).collect(),
        }
    }

    /// Whether the offer is large enough, and of the kind that is asked for.
    pub fn cover(&self, asked: &Terms) -> bool {
        self.bytes >= asked.bytes && self.block == asked.block
    }
}

impl VolumeInfo {
    /// Reads an API object.
    pub fn of(volume: &PersistentVolume) -> Self {
        let metadata = &volume.metadata;
        let spec = volume.spec.clone().unwrap_or_default();
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let claim = spec.claim_ref.as_ref().map(|claim| {
            let uid = claim.uid.as_deref().filter(|uid| !uid.is_empty());
            (ClaimKey::new(&text(&claim.namespace), &text(&claim.name)), uid.map(Into::into))
        });
        let nodes = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
        let labels = metadata.labels.clone().unwrap_or_default();
        let attachment = |csi: &api::k8s::api::core::v1::CSIPersistentVolumeSource| Attachment {
            driver: csi.driver.as_str().into(),
            handle: csi.volume_handle.as_str().into(),
        };
        VolumeInfo {
            name: VolumeName(text(&metadata.name).into()),
            uid: text(&metadata.uid),
            version: text(&metadata.resource_version),
            class: class(&metadata.annotations, spec.storage_class_name.as_ref()),
            claim,
            available: phase == Some("Available"),
            terminating: metadata.deletion_timestamp.is_some(),
            terms: Terms::of(
                spec.capacity.as_ref(),
                spec.volume_mode.as_deref(),
                spec.access_modes.as_deref().unwrap_or_default(),
            ),
            places: places(&labels),
            labels,
            nodes: nodes.map(|nodes| nodes.node_selector_terms.iter().map(NodeTerm::of).collect()),
            attachment: spec.csi.as_ref().map(attachment),
        }
    }

    /// Whether it can be reached from a node.
    pub fn is_reached_from(&self, node: &NodeName, labels: &Labels) -> bool {
        let reached = |terms: &Vec<NodeTerm>| terms.iter().any(|term| term.matches(&node.0, labels));
        self.nodes.as_ref().is_none_or(reached)
    }

    /// Whether a node's labels say that it is where the volume is. A node that says nothing of places is anywhere.
    pub fn is_in_place(&self, labels: &Labels) -> bool {
        let somewhere = PLACES.iter().any(|key| labels.contains_key(*key));
        let there = |(key, values): &(Box<str>, Vec<Box<str>>)| {
            let here = labels.get(&**key).or_else(|| labels.get(&present_name(key)));
            here.is_some_and(|here| values.iter().any(|value| **value == **here))
        };
        !somewhere || self.places.iter().all(there)
    }
}

/// A label's name since it isn't in beta any more.
fn present_name(key: &str) -> String {
    key.replace("failure-domain.beta.kubernetes.io/", "topology.kubernetes.io/")
}

fn places(labels: &Labels) -> Vec<(Box<str>, Vec<Box<str>>)> {
    let said = PLACES.iter().filter_map(|key| Some((*key, labels.get(*key)?)));
    said.map(|(key, values)| (key.into(), values.split(BETWEEN_PLACES).map(Into::into).collect())).collect()
}

impl ClassInfo {
    /// Reads an API object.
    pub fn of(class: &StorageClass) -> Self {
        let topology = |term: &TopologySelectorTerm| -> Topology {
            let labels = term.match_label_expressions.iter().flatten();
            labels
                .map(|one| (one.key.as_str().into(), one.values.iter().map(|v| v.as_str().into()).collect()))
                .collect()
        };
        ClassInfo {
            name: text(&class.metadata.name),
            provisioner: class.provisioner.as_str().into(),
            waits: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            topologies: class.allowed_topologies.iter().flatten().map(topology).collect(),
        }
    }

    /// Whether its provisioner makes volumes for a node with these labels.
    pub fn provisions_for(&self, labels: &Labels) -> bool {
        let has = |(key, values): &(Box<str>, Vec<Box<str>>)| {
            labels.get(&**key).is_some_and(|here| values.iter().any(|value| **value == **here))
        };
        let matches = |term: &Topology| !term.is_empty() && term.iter().all(has);
        !matches!(&*self.provisioner, "" | NO_PROVISIONER)
            && (self.topologies.is_empty() || self.topologies.iter().any(matches))
    }
}

impl NodeLimits {
    /// Reads an API object, which has the node's name.
    pub fn of(node: &CSINode) -> Self {
        let drivers = node.spec.drivers.iter().filter_map(|driver| {
            let count = driver.allocatable.as_ref()?.count?;
            Some((driver.name.as_str().into(), usize::try_from(count).unwrap_or(0)))
        });
        NodeLimits { node: text(&node.metadata.name)[..].into(), drivers: drivers.collect() }
    }
}
