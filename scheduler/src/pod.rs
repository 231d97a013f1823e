//! A pod as the scheduler sees it.
//!
//! [`PodInfo`] is one pod; its [`Shape`] is everything a decision depends on, without the pod's name. Pods
//! of one ReplicaSet have equal shapes, and equal shapes are one allocation, so work done for one pod of a
//! shape is found again by the others.

use crate::affinity::PodAffinity;
use crate::name::{ClaimKey, NodeName, PodKey, PodUid};
use crate::object::{PodObject, PodSpec, PodStatus, Volume};
use crate::plugins::Plugin;
use crate::plugins::image_locality::normalized;
use crate::profile::ProfileHandle;
use crate::resources::Requests;
use crate::selector::{Labels, NodeTerm, RequiredNode};
use crate::spread::{self, SpreadRule};
use crate::taint::Toleration;
use api::k8s::api::core::v1 as core;
use api::k8s::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use jiff::Timestamp;
use std::net::IpAddr;
use std::sync::Arc;

/// One pod: who it is, where it is, and its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: PodKey,
    /// Incarnation.
    pub uid: PodUid,
    /// Labels, for the spread rules of other pods.
    pub labels: Arc<Labels>,
    /// Uid of the controlling owner.
    pub owner: Option<PodUid>,
    /// The node it is bound to (or assumed on).
    pub node: Option<NodeName>,
    /// Higher first.
    pub priority: i32,
    /// When it was created; older first.
    pub created: Timestamp,
    /// Its deletion has begun.
    pub terminating: bool,
    /// It ran to its end and occupies nothing any more.
    pub finished: bool,
    /// It still has scheduling gates.
    pub gated: bool,
    /// The scheduler that is responsible for it.
    pub scheduler_name: Arc<str>,
    /// When it began to run.
    pub started: Option<Timestamp>,
    /// The node on which room is made for it.
    pub nominated: Option<NodeName>,
    /// It drives nobody away (`preemptionPolicy: Never`).
    pub never_preempts: bool,
    /// The PodGroup of its namespace with which it is scheduled.
    pub group: Option<Arc<str>>,
    /// The message of its present `PodScheduled=False` condition with reason Unschedulable.
    pub reported: Option<Arc<str>>,
    /// What a decision depends on.
    pub shape: Arc<Shape>,
}

/// What a decision about a pod depends on, besides the cluster. The node is not part of it: a pod has the same
/// shape before and after it is bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Namespace and labels, by which other pods' rules are about this one.
    pub namespace: Arc<str>,
    /// See `namespace`.
    pub labels: Arc<Labels>,
    /// What it needs of its node.
    pub needs: Arc<Needs>,
    /// Spread rules, explicit or implied.
    pub spread: Vec<SpreadRule>,
    /// Affinity and anti-affinity to other pods.
    pub affinity: PodAffinity,
    /// The claims that it uses, in the order of its volumes.
    pub claims: Vec<ClaimUse>,
}

/// A claim that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimUse {
    /// Which.
    pub key: ClaimKey,
    /// Name and uid of the pod, if the claim must be its own (an ephemeral volume's).
    pub owner: Option<(Arc<str>, PodUid)>,
}

/// What a pod needs of a node by itself, whoever else is where: the same for all Jobs' pods of one template,
/// while each Job labels its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Needs {
    /// By which rules it is placed.
    pub profile: ProfileHandle,
    /// Requested resources.
    pub requests: Requests,
    /// Required node labels and fields.
    pub required: RequiredNode,
    /// Preferred node terms with their weights.
    pub preferred: Vec<(i32, NodeTerm)>,
    /// Accepted taints.
    pub tolerations: Vec<Toleration>,
    /// Ports it occupies on its node.
    pub ports: Vec<HostPort>,
    /// The image of each of its containers, as nodes call it.
    pub images: Vec<Box<str>>,
}

/// Transport protocol of a host port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP, the default.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of the node that a pod occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Address it listens on; `None` is every address.
    pub address: Option<IpAddr>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port number.
    pub port: u16,
}

impl HostPort {
    /// Whether two pods on one node can't have these ports.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let overlap = self.address.is_none() || other.address.is_none() || self.address == other.address;
        self.port == other.port && self.protocol == other.protocol && overlap
    }
}

impl PodInfo {
    /// Reads an API object. Its shape is not yet shared with equal ones.
    pub fn of(pod: &PodObject) -> Self {
        let metadata = &pod.metadata;
        let key = PodKey::new(text(&metadata.namespace), text(&metadata.name));
        let labels = Arc::new(metadata.labels.clone().unwrap_or_default());
        let uid = PodUid(text(&metadata.uid).into());
        let controller = controller(metadata);
        let uid_of = |owner: &OwnerReference| PodUid(owner.uid.as_str().into());
        let spreading = controller.filter(|owner| spreads(owner)).map(uid_of);
        let default = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&default);
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        PodInfo {
            shape: Arc::new(Shape::of((spec, status), &key, &uid, &labels, spreading.as_ref())),
            uid,
            node: named(spec.node_name.as_deref()),
            priority: spec.priority.unwrap_or(0),
            created: metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            terminating: metadata.deletion_timestamp.is_some(),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            gated: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            scheduler_name: spec.scheduler_name.as_deref().unwrap_or(DEFAULT_SCHEDULER).into(),
            started: status.and_then(|status| status.start_time.as_ref()).map(|time| time.0),
            nominated: status.and_then(|status| named(status.nominated_node_name.as_deref())),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            group: group(spec).map(Into::into),
            reported: status.and_then(reported),
            labels,
            key,
            owner: controller.map(uid_of),
        }
    }

    /// Whether others may be driven away for it.
    pub fn preempts(&self) -> bool {
        !self.never_preempts && self.shape.needs.profile.preemption.is_some()
    }

    /// Whether it is the same pod with the same demands, so that an earlier answer still holds.
    pub fn demands_same(&self, other: &PodInfo) -> bool {
        self.uid == other.uid
            && self.priority == other.priority
            && self.never_preempts == other.never_preempts
            && self.group == other.group
            && self.shape == other.shape
    }

    /// Whether it weighs on its node exactly as `other` does.
    pub fn occupies_same(&self, other: &PodInfo) -> bool {
        self.demands_same(other)
            && self.node == other.node
            && self.owner == other.owner
            && self.terminating == other.terminating
    }
}

/// Name of the scheduler that pods get which name none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

fn named(node: Option<&str>) -> Option<NodeName> {
    node.filter(|name| !name.is_empty()).map(NodeName::from)
}

fn group(spec: &PodSpec) -> Option<&str> {
    spec.scheduling_group.as_ref()?.pod_group_name.as_deref().filter(|name| !name.is_empty())
}

fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Kinds whose pods stand for each other, so that they are better not lost together. As upstream: pods of a Job or
/// a DaemonSet have no implied spread rules.
const SPREADING: [(&str, &str); 3] =
    [("v1", "ReplicationController"), ("apps/v1", "ReplicaSet"), ("apps/v1", "StatefulSet")];

fn spreads(owner: &OwnerReference) -> bool {
    SPREADING.contains(&(owner.api_version.as_str(), owner.kind.as_str()))
}

fn reported(status: &PodStatus) -> Option<Arc<str>> {
    let mut conditions = status.conditions.iter().flatten();
    let scheduled = conditions.find(|condition| condition.type_ == "PodScheduled")?;
    let unschedulable = scheduled.status == "False" && scheduled.reason.as_deref() == Some("Unschedulable");
    scheduled.message.as_deref().filter(|_| unschedulable).map(Into::into)
}

impl Shape {
    /// Whether it has any rule or wish about where other pods are.
    pub fn has_rules_about_others(&self) -> bool {
        self.is_tied_to_others() || !self.affinity.preferred.is_empty()
    }

    /// Whether a rule of its own is about where other pods are.
    pub fn is_tied_to_others(&self) -> bool {
        !(self.spread.is_empty() && self.affinity.near.is_empty() && self.affinity.apart.is_empty())
    }

    /// The same for a pod of this profile, from the shape that it has by its object alone.
    pub fn under(&self, profile: &ProfileHandle) -> Self {
        let needs = Needs { profile: profile.clone(), ..(*self.needs).clone() };
        Shape { needs: Arc::new(needs), spread: profile.spread(&self.spread), ..self.clone() }
    }

    fn of(
        (spec, status): (&PodSpec, Option<&PodStatus>),
        pod: &PodKey,
        uid: &PodUid,
        labels: &Arc<Labels>,
        owner: Option<&PodUid>,
    ) -> Self {
        let namespace = &pod.namespace;
        Shape {
            namespace: namespace.clone(),
            labels: labels.clone(),
            needs: Arc::new(Needs::of(spec, status)),
            affinity: PodAffinity::of(spec, namespace, labels),
            spread: spread::rules(spec, namespace, labels, owner),
            claims: spec.volumes.iter().flatten().filter_map(|volume| claim(volume, pod, uid)).collect(),
        }
    }
}

impl Needs {
    /// What a node must have left, with the amounts, of which none is zero.
    pub fn must_fit(&self) -> impl Iterator<Item = (&str, i64)> {
        let filters = self.profile.filters(Plugin::NodeResourcesFit);
        let must = move |name: &str, amount: i64| filters && amount > 0 && self.profile.considers(name);
        self.requests.exact.iter().filter(move |(name, amount)| must(name, *amount))
    }

    fn of(spec: &PodSpec, status: Option<&PodStatus>) -> Self {
        Needs {
            profile: ProfileHandle::default(),
            requests: Requests::of(spec, status),
            required: RequiredNode::of(spec),
            preferred: preferred(spec),
            tolerations: spec.tolerations.iter().flatten().map(Toleration::of).collect(),
            ports: host_ports(spec),
            images: images(spec),
        }
    }
}

fn claim(volume: &Volume, pod: &PodKey, uid: &PodUid) -> Option<ClaimUse> {
    let key = |name: &str| ClaimKey { namespace: pod.namespace.clone(), name: name.into() };
    if let Some(named) = &volume.persistent_volume_claim {
        return Some(ClaimUse { key: key(&named.claim_name), owner: None });
    }
    volume.ephemeral.as_ref()?;
    let name = format!("{}-{}", pod.name, volume.name);
    Some(ClaimUse { key: key(&name), owner: Some((pod.name.clone(), uid.clone())) })
}

fn preferred(spec: &PodSpec) -> Vec<(i32, NodeTerm)> {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let terms = affinity.and_then(|node| node.preferred_during_scheduling_ignored_during_execution.as_ref());
    terms.into_iter().flatten().map(|term| (term.weight, NodeTerm::of(&term.preference))).collect()
}

fn images(spec: &PodSpec) -> Vec<Box<str>> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.map(|one| normalized(one.image.as_deref().unwrap_or_default())).collect()
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let containers = sidecars.chain(&spec.containers);
    containers.flat_map(|container| container.ports.iter().flatten()).filter_map(host_port).collect()
}

fn host_port(port: &core::ContainerPort) -> Option<HostPort> {
    let number = u16::try_from(port.host_port?).ok().filter(|number| *number > 0)?;
    let address = port.host_ip.as_deref().and_then(|address| address.parse::<IpAddr>().ok());
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    Some(HostPort { address: address.filter(|address| !address.is_unspecified()), protocol, port: number })
}
