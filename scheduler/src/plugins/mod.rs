//! The rules by which nodes are rejected and compared, one file each, named as upstream names its plugins.
//!
//! A rule is prepared once per decision from (snapshot, pod) and then asked node by node. `passes` is the
//! fast answer of the scan; `reasons` says why not, and is empty exactly if `passes` is true.

pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources_balanced_allocation;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod node_volume_limits;
pub mod pod_topology_spread;
pub mod taint_toleration;
pub mod volume_binding;
pub mod volume_restrictions;
pub mod volume_zone;

use crate::profile::{FILTERS, SCORES};
use crate::snapshot::Slot;
use crate::taint::Taint;
use std::fmt;
use std::str::FromStr;

/// The best score of a rule; the worst is 0.
pub const MAX_SCORE: i64 = 100;

/// The rules, in the order in which a node is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Plugin {
    /// Cordoned nodes.
    NodeUnschedulable,
    /// `spec.nodeName`.
    NodeName,
    /// Taints and tolerations.
    TaintToleration,
    /// Node selector and node affinity.
    NodeAffinity,
    /// Host ports.
    NodePorts,
    /// Requested resources.
    NodeResourcesFit,
    /// Evenness of CPU and memory use; scores only.
    NodeResourcesBalancedAllocation,
    /// Claims that one pod may use.
    VolumeRestrictions,
    /// How many volumes a node takes.
    NodeVolumeLimits,
    /// Claims and the nodes from which their volumes are reached.
    VolumeBinding,
    /// Zones of volumes.
    VolumeZone,
    /// Topology spread rules.
    PodTopologySpread,
    /// Affinity and anti-affinity between pods.
    InterPodAffinity,
    /// Images that are there already; scores only.
    ImageLocality,
}

/// Why a node was rejected, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The node is cordoned.
    Unschedulable,
    /// The pod names another node.
    NodeName,
    /// The first taint that the pod doesn't tolerate.
    UntoleratedTaint(Taint),
    /// Labels or name don't match.
    NodeAffinity,
    /// They don't match what the pod's profile requires.
    EnforcedNodeAffinity,
    /// A host port is taken.
    NodePorts,
    /// The node is full of pods.
    TooManyPods,
    /// Too little of a resource is left.
    Insufficient(Box<str>),
    /// The node would make a spread rule uneven.
    TopologySpread,
    /// The node lacks the label of a spread rule.
    TopologySpreadMissingLabel,
    /// Pods that this one must be near aren't there.
    PodAffinity,
    /// Pods that this one must be apart from are there.
    PodAntiAffinity,
    /// Pods that must be apart from this one are there.
    ExistingPodsAntiAffinity,
    /// A claim isn't there or can't be used yet: about the pod, and so the same on every node.
    Claims(Box<str>),
    /// Another pod has a claim that one pod may use.
    ReadWriteOncePod,
    /// The node has as many volumes as it takes.
    TooManyVolumes,
    /// A claim is bound to a volume that doesn't exist.
    VolumeGone,
    /// A bound volume can't be reached from the node.
    VolumeNodeAffinity,
    /// An unbound claim could get no volume there.
    NoVolumes,
    /// A bound volume is in another zone.
    VolumeZone,
}

impl Reason {
    /// Whether pods that leave the node can make it acceptable (upstream's Unschedulable, as opposed to
    /// UnschedulableAndUnresolvable).
    pub fn is_resolvable(&self) -> bool {
        match self {
            Reason::NodePorts
            | Reason::TooManyPods
            | Reason::Insufficient(_)
            | Reason::TopologySpread
            | Reason::PodAntiAffinity
            | Reason::ExistingPodsAntiAffinity
            | Reason::ReadWriteOncePod
            | Reason::TooManyVolumes => true,
            Reason::Unschedulable
            | Reason::NodeName
            | Reason::UntoleratedTaint(_)
            | Reason::NodeAffinity
            | Reason::EnforcedNodeAffinity
            | Reason::TopologySpreadMissingLabel
            | Reason::PodAffinity
            | Reason::Claims(_)
            | Reason::VolumeGone
            | Reason::VolumeNodeAffinity
            | Reason::NoVolumes
            | Reason::VolumeZone => false,
        }
    }

    /// Whether it is about the pod alone; then it is told without counting nodes.
    pub fn is_about_pod(&self) -> bool {
        matches!(self, Reason::Claims(_))
    }
}

/// A rule that rejects nodes.
pub trait Filter {
    /// Which rule this is.
    fn plugin(&self) -> Plugin;
    /// Whether the node at `slot` is acceptable.
    fn passes(&self, slot: Slot) -> bool;
    /// Why it isn't; empty if it is.
    fn reasons(&self, slot: Slot) -> Vec<Reason>;
}

/// A rule that compares nodes.
pub trait Score {
    /// Which rule this is.
    fn plugin(&self) -> Plugin;
    /// Scores of `slots`, which passed all filters, from 0 to [`MAX_SCORE`], in their order.
    fn scores(&self, slots: &[Slot]) -> Vec<i64>;
}

/// No rule is called so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPlugin;

impl FromStr for Plugin {
    type Err = UnknownPlugin;

    fn from_str(name: &str) -> Result<Self, UnknownPlugin> {
        let scores = SCORES.iter().map(|(plugin, _)| *plugin);
        FILTERS.into_iter().chain(scores).find(|plugin| plugin.to_string() == name).ok_or(UnknownPlugin)
    }
}

impl fmt::Display for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SPREAD: &str = "node(s) didn't match pod topology spread constraints";
        match self {
            Reason::Unschedulable => write!(f, "node(s) were unschedulable"),
            Reason::NodeName => write!(f, "node(s) didn't match the requested node name"),
            Reason::UntoleratedTaint(taint) => write!(f, "node(s) had untolerated taint {taint}"),
            Reason::NodeAffinity => write!(f, "node(s) didn't match Pod's node affinity/selector"),
            Reason::EnforcedNodeAffinity => {
                write!(f, "node(s) didn't match scheduler-enforced node affinity")
            }
            Reason::NodePorts => write!(f, "node(s) didn't have free ports for the requested pod ports"),
            Reason::TooManyPods => write!(f, "Too many pods"),
            Reason::Insufficient(resource) => write!(f, "Insufficient {resource}"),
            Reason::TopologySpread => write!(f, "{SPREAD}"),
            Reason::TopologySpreadMissingLabel => write!(f, "{SPREAD} (missing required label)"),
            Reason::PodAffinity => write!(f, "node(s) didn't match pod affinity rules"),
            Reason::PodAntiAffinity => write!(f, "node(s) didn't match pod anti-affinity rules"),
            Reason::ExistingPodsAntiAffinity => {
                write!(f, "node(s) didn't satisfy existing pods anti-affinity rules")
            }
            Reason::Claims(problem) => f.write_str(problem),
            Reason::ReadWriteOncePod => f.write_str(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            ),
            Reason::TooManyVolumes => write!(f, "node(s) exceed max volume count"),
            Reason::VolumeGone => {
                write!(f, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)")
            }
            Reason::VolumeNodeAffinity => write!(f, "node(s) didn't match PersistentVolume's node affinity"),
            Reason::NoVolumes => write!(f, "node(s) didn't find available persistent volumes to bind"),
            Reason::VolumeZone => write!(f, "node(s) had no available volume zone"),
        }
    }
}

/// Scales scores so that the largest becomes [`MAX_SCORE`]; all zero stays all zero.
pub fn normalize(mut scores: Vec<i64>) -> Vec<i64> {
    let largest = scores.iter().copied().max().unwrap_or(0);
    if largest > 0 {
        scores.iter_mut().for_each(|score| *score = *score * MAX_SCORE / largest);
    }
    scores
}

/// Like [`normalize`] where less is better: zero becomes [`MAX_SCORE`].
pub fn normalize_reversed(scores: Vec<i64>) -> Vec<i64> {
    normalize(scores).into_iter().map(|score| MAX_SCORE - score).collect()
}
