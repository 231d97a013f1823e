//! Topology spread rules of a pod, compiled.
//!
//! A rule counts pods per domain (nodes with an equal label). *Which* pods it counts is a [`Counted`]: a
//! hashable value, so that equal rules of many pods share one table of counts kept up to date incrementally.

use crate::affinity::Group;
use crate::name::PodUid;
use crate::namespace::Namespaces;
use crate::object::PodSpec;
use crate::pod::PodInfo;
use crate::selector::{Labels, Requirement, Selector};
use api::k8s::api::core::v1 as core;
use std::sync::Arc;

/// The label that names a node's host; every node is its own domain of it.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// The label that names a node's zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// A set of pods that is counted per node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Pods of a namespace that a selector matches; those being deleted don't count.
    Selected {
        /// Namespace of the pods.
        namespace: Arc<str>,
        /// What their labels must satisfy; `None` matches nothing.
        selector: Option<Selector>,
    },
    /// Pods of one controller, for the spreading that pods without a rule of their own get.
    Owned(PodUid),
    /// Pods that belong to every one of these groups, for affinity between pods.
    Grouped(Vec<Group>),
}

/// What happens when a rule can't be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unsatisfiable {
    /// The node is rejected.
    DoNotSchedule,
    /// The node is merely less attractive.
    ScheduleAnyway,
}

/// One spread rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpreadRule {
    /// Label whose values are the domains.
    pub topology_key: Box<str>,
    /// Largest allowed difference between a domain and the emptiest one.
    pub max_skew: i32,
    /// With fewer eligible domains than this, the emptiest one counts as empty.
    pub min_domains: i32,
    /// Hard or soft.
    pub when: Unsatisfiable,
    /// The pods that are counted.
    pub counted: Counted,
    /// Whether the pod itself will count.
    pub counts_itself: bool,
    /// Only nodes that match the pod's node affinity are domains (`nodeAffinityPolicy: Honor`, the default).
    pub honor_affinity: bool,
    /// Only nodes whose taints the pod tolerates are domains (`nodeTaintsPolicy: Honor`).
    pub honor_taints: bool,
    /// A rule the scheduler added itself: nodes without its label are not disregarded.
    pub implied: bool,
}

impl SpreadRule {
    /// The rule of an API object about these pods.
    pub fn of(one: &core::TopologySpreadConstraint, counted: Counted, counts_itself: bool) -> Self {
        let soft = one.when_unsatisfiable == "ScheduleAnyway";
        SpreadRule {
            topology_key: one.topology_key.as_str().into(),
            max_skew: one.max_skew,
            min_domains: one.min_domains.unwrap_or(1),
            when: if soft { Unsatisfiable::ScheduleAnyway } else { Unsatisfiable::DoNotSchedule },
            counted,
            counts_itself,
            honor_affinity: one.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: one.node_taints_policy.as_deref() == Some("Honor"),
            implied: false,
        }
    }

    /// Whether nodes that break it are merely less attractive.
    pub fn is_soft(&self) -> bool {
        self.when == Unsatisfiable::ScheduleAnyway
    }
}

impl Counted {
    /// Whether the labels of namespaces decide who is counted.
    pub fn asks_namespaces(&self) -> bool {
        matches!(self, Counted::Grouped(groups) if groups.iter().any(Group::asks_namespaces))
    }

    /// Whether `pod`, running or assumed somewhere, is counted.
    pub fn counts(&self, pod: &PodInfo, namespaces: &Namespaces) -> bool {
        match self {
            Counted::Selected { namespace, selector } => {
                !pod.terminating
                    && *namespace == pod.key.namespace
                    && selector.as_ref().is_some_and(|selector| selector.matches(&pod.labels))
            }
            Counted::Owned(owner) => !pod.terminating && pod.owner.as_ref() == Some(owner),
            Counted::Grouped(groups) => {
                groups.iter().all(|group| group.contains(&pod.key.namespace, &pod.labels, namespaces))
            }
        }
    }
}

/// The rules of a pod: its own, or else the implied soft ones by which pods of one controller spread over
/// hosts and zones (the skews are upstream's system defaults). `owner` is that controller.
pub fn rules(
    spec: &PodSpec,
    namespace: &Arc<str>,
    labels: &Labels,
    owner: Option<&PodUid>,
) -> Vec<SpreadRule> {
    let own = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    if own.is_empty() {
        let implied = |owner: &PodUid| vec![implied(HOSTNAME, 3, owner), implied(ZONE, 5, owner)];
        return owner.map(implied).unwrap_or_default();
    }
    own.iter().map(|one| explicit(one, namespace, labels)).collect()
}

fn implied(topology_key: &str, max_skew: i32, owner: &PodUid) -> SpreadRule {
    SpreadRule {
        topology_key: topology_key.into(),
        max_skew,
        min_domains: 1,
        when: Unsatisfiable::ScheduleAnyway,
        counted: Counted::Owned(owner.clone()),
        counts_itself: true,
        honor_affinity: true,
        honor_taints: false,
        implied: true,
    }
}

fn explicit(one: &core::TopologySpreadConstraint, namespace: &Arc<str>, labels: &Labels) -> SpreadRule {
    let keys = one.match_label_keys.iter().flatten();
    let same_value = keys.filter_map(|key| Some(Requirement::is_in(key, &[labels.get(key)?.as_str()])));
    let selector = Selector::of(one.label_selector.as_ref()).map(|selector| selector.and(same_value));
    let counts_itself = selector.as_ref().is_some_and(|selector| selector.matches(labels));
    SpreadRule::of(one, Counted::Selected { namespace: namespace.clone(), selector }, counts_itself)
}
