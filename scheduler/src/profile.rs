//! Profiles: by which rules the pods of a `schedulerName` are placed, and how much each rule counts.
//!
//! A pod's [`crate::pod::Needs`] hold its profile, so that whatever is remembered for equal pods is remembered apart
//! for those of different profiles, and a rule finds what it is to do where it finds what the pod asks for.

use crate::plugins::Plugin;
use crate::resources::{CPU, MEMORY};
use crate::selector::NodeTerm;
use crate::spread::SpreadRule;
use api::k8s::api::core::v1::TopologySpreadConstraint;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// One profile. The default is upstream's.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Rules that may reject nodes.
    pub filters: BTreeSet<Plugin>,
    /// Weights of the rules that compare nodes; absent ones don't.
    pub weights: BTreeMap<Plugin, i64>,
    /// What few or many resources left mean.
    pub scoring: Scoring,
    /// Resources that needn't fit: names, and what names begin with before the slash.
    pub ignored: (BTreeSet<String>, BTreeSet<String>),
    /// Rules of pods without any of their own that belong to a controller; `None` is the two that upstream implies.
    pub spread: Option<Vec<TopologySpreadConstraint>>,
    /// What is required and preferred of nodes beyond what the pod says.
    pub added: AddedAffinity,
    /// What it is worth to be where placed pods require pods like this one.
    pub hard_affinity: i64,
    /// Whether what placed pods prefer counts only for pods that prefer something themselves.
    pub ignore_others_wishes: bool,
    /// Who preempts, if anybody may.
    pub preemption: Option<Candidates>,
    /// How long a pod's claims may take to be bound.
    pub bind_timeout: Duration,
}

/// How the resources that a node has left count.
#[derive(Clone, Debug, PartialEq)]
pub struct Scoring {
    /// What is better.
    pub strategy: Strategy,
    /// Resources and their weights.
    pub resources: Vec<(Box<str>, i64)>,
}

/// What is better of a resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Strategy {
    /// That much is left.
    LeastAllocated,
    /// That little is left.
    MostAllocated,
    /// Points of utilization in percent and score up to 100, the lowest utilization first.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// Node affinity that all pods of a profile have beside their own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AddedAffinity {
    /// Alternatives, of which a node matches one.
    pub required: Option<Vec<NodeTerm>>,
    /// Terms with their weights.
    pub preferred: Vec<(i64, NodeTerm)>,
}

/// When so many nodes are known that could be made room on, no more are looked for: a share of all nodes, and at
/// least so many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidates {
    /// `minCandidateNodesPercentage`
    pub percent: usize,
    /// `minCandidateNodesAbsolute`
    pub least: usize,
}

/// The rules that reject nodes.
pub const FILTERS: [Plugin; 12] = [
    Plugin::NodeUnschedulable,
    Plugin::NodeName,
    Plugin::TaintToleration,
    Plugin::NodeAffinity,
    Plugin::NodePorts,
    Plugin::NodeResourcesFit,
    Plugin::VolumeRestrictions,
    Plugin::NodeVolumeLimits,
    Plugin::VolumeBinding,
    Plugin::VolumeZone,
    Plugin::PodTopologySpread,
    Plugin::InterPodAffinity,
];

/// The rules that compare nodes, with upstream's weights.
pub const SCORES: [(Plugin, i64); 7] = [
    (Plugin::TaintToleration, 3),
    (Plugin::NodeAffinity, 2),
    (Plugin::NodeResourcesFit, 1),
    (Plugin::NodeResourcesBalancedAllocation, 1),
    (Plugin::ImageLocality, 1),
    (Plugin::PodTopologySpread, 2),
    (Plugin::InterPodAffinity, 2),
];

impl Default for Profile {
    fn default() -> Self {
        Profile {
            filters: FILTERS.into(),
            weights: SCORES.into(),
            scoring: Scoring::default(),
            ignored: Default::default(),
            spread: None,
            added: AddedAffinity::default(),
            hard_affinity: 1,
            ignore_others_wishes: false,
            preemption: Some(Candidates::default()),
            bind_timeout: Duration::from_secs(600),
        }
    }
}

impl Default for Scoring {
    fn default() -> Self {
        Scoring { strategy: Strategy::LeastAllocated, resources: vec![(CPU.into(), 1), (MEMORY.into(), 1)] }
    }
}

impl Default for Candidates {
    fn default() -> Self {
        Candidates { percent: 10, least: 100 }
    }
}

impl Profile {
    /// Whether this rule may reject nodes.
    pub fn filters(&self, plugin: Plugin) -> bool {
        self.filters.contains(&plugin)
    }

    /// How much the score of this rule counts; 0 if it doesn't.
    pub fn weight(&self, plugin: Plugin) -> i64 {
        self.weights.get(&plugin).copied().unwrap_or(0)
    }

    /// Whether a resource must fit.
    pub fn considers(&self, resource: &str) -> bool {
        let group = || resource.split_once('/').is_some_and(|(group, _)| self.ignored.1.contains(group));
        !self.ignored.0.contains(resource) && !group()
    }

    /// The spread rules of a pod that has these, of its own or implied.
    pub fn spread(&self, rules: &[SpreadRule]) -> Vec<SpreadRule> {
        match (&self.spread, rules.first().filter(|rule| rule.implied)) {
            (Some(list), Some(implied)) => {
                list.iter().map(|one| SpreadRule::of(one, implied.counted.clone(), true)).collect()
            }
            _ => rules.to_vec(),
        }
    }
}

impl fmt::Display for Profile {
    /// What is scored how much, and which rules aren't asked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scores: Vec<String> =
            self.weights.iter().map(|(plugin, weight)| format!("{plugin} {weight}")).collect();
        let strategy = match self.scoring.strategy {
            Strategy::LeastAllocated => "LeastAllocated",
            Strategy::MostAllocated => "MostAllocated",
            Strategy::RequestedToCapacityRatio(_) => "RequestedToCapacityRatio",
        };
        let scores = if scores.is_empty() { "none".to_owned() } else { scores.join(", ") };
        write!(f, "scores {scores}; resources {strategy}")?;
        let missing = FILTERS.iter().filter(|plugin| !self.filters(**plugin)).map(Plugin::to_string);
        let missing: Vec<String> = missing.collect();
        if !missing.is_empty() {
            write!(f, "; not asked {}", missing.join(", "))?;
        }
        if self.preemption.is_none() { write!(f, "; nobody is driven away") } else { Ok(()) }
    }
}

/// A profile as pods have it. Equal are only those that are one.
#[derive(Clone, Debug)]
pub struct ProfileHandle(Arc<Profile>);

impl ProfileHandle {
    /// A profile to be shared.
    pub fn new(profile: Profile) -> Self {
        ProfileHandle(Arc::new(profile))
    }
}

impl Default for ProfileHandle {
    /// Upstream's profile, which is one for all.
    fn default() -> Self {
        static UPSTREAM: LazyLock<Arc<Profile>> = LazyLock::new(Arc::default);
        ProfileHandle(UPSTREAM.clone())
    }
}

impl Deref for ProfileHandle {
    type Target = Profile;

    fn deref(&self) -> &Profile {
        &self.0
    }
}

impl PartialEq for ProfileHandle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ProfileHandle {}

impl Hash for ProfileHandle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// The profiles of a scheduler by `schedulerName`; at least one.
#[derive(Clone, Debug)]
pub struct Profiles(BTreeMap<Arc<str>, ProfileHandle>);

impl Profiles {
    /// Upstream's profile for the pods that name this scheduler.
    pub fn upstream(name: &str) -> Self {
        Profiles([(name.into(), ProfileHandle::default())].into())
    }

    /// These profiles.
    pub fn new(profiles: impl IntoIterator<Item = (Arc<str>, Profile)>) -> Self {
        let handle = |profile: Profile| {
            if profile == Profile::default() { ProfileHandle::default() } else { ProfileHandle::new(profile) }
        };
        Profiles(profiles.into_iter().map(|(name, profile)| (name, handle(profile))).collect())
    }

    /// The profile for pods that name this scheduler; `None` if they are another one's.
    pub fn get(&self, name: &str) -> Option<&ProfileHandle> {
        self.0.get(name)
    }

    /// The same with upstream's profile for those who name another scheduler.
    pub fn or_upstream(mut self, name: &str) -> Self {
        self.0.entry(name.into()).or_default();
        self
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }
}
