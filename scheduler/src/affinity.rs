//! Affinity and anti-affinity between pods, compiled.
//!
//! Namespaces are chosen by name and by their labels. Which ones those are can change while the rule stays, so the
//! labels are asked for with each pod ([`Namespaces`]) instead of being resolved here.

use crate::namespace::Namespaces;
use crate::object::PodSpec;
use crate::selector::{Labels, Requirement, Selector};
use crate::spread::Counted;
use api::k8s::api::core::v1 as core;
use std::sync::Arc;

/// A set of pods by namespace and labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// By name.
    namespaces: Vec<Arc<str>>,
    /// And by their labels; the empty selector is every namespace.
    labelled: Option<Selector>,
    /// `None` matches no pod.
    selector: Option<Selector>,
}

/// Nearness to, or distance from, a group within a topology.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    /// Label whose values are the domains.
    pub topology_key: Box<str>,
    /// Whom it is about.
    pub group: Group,
}

/// What a pod says about other pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodAffinity {
    /// A pod that matches all of these groups must be in the domain of each term.
    pub near: Vec<Term>,
    /// No pod of these groups may be in the domain.
    pub apart: Vec<Term>,
    /// Wishes; a negative weight wishes for distance.
    pub preferred: Vec<(i64, Term)>,
}

/// What a placed pod says about others, that makes nodes around it better or worse for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pull {
    /// Whom it is about, and around where.
    pub term: Term,
    /// Its weight, negative for distance; `None` for what the pod requires, of which the profile says what it is worth.
    pub weight: Option<i64>,
}

impl Group {
    /// Whether a pod of `namespace` with these labels belongs to the group.
    pub fn contains(&self, namespace: &Arc<str>, labels: &Labels, all: &Namespaces) -> bool {
        let chosen = |selector: &Selector| selector.is_empty() || selector.matches(all.labels(namespace));
        let here = self.namespaces.contains(namespace) || self.labelled.as_ref().is_some_and(chosen);
        here && self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    /// Whether the labels of namespaces decide who belongs to it.
    pub fn asks_namespaces(&self) -> bool {
        self.labelled.as_ref().is_some_and(|selector| !selector.is_empty())
    }
}

impl Term {
    fn of(term: &core::PodAffinityTerm, namespace: &Arc<str>, labels: &Labels) -> Self {
        let own = |key: &String| Some((key.clone(), labels.get(key)?.clone()));
        let same = term.match_label_keys.iter().flatten().filter_map(own);
        let other = term.mismatch_label_keys.iter().flatten().filter_map(own);
        let more = same
            .map(|(key, value)| Requirement::is_in(&key, &[&value]))
            .chain(other.map(|(key, value)| Requirement::not_in(&key, &[&value])));
        let names = term.namespaces.as_deref().unwrap_or_default();
        let labelled = Selector::of(term.namespace_selector.as_ref());
        let namespaces = match labelled {
            None if names.is_empty() => vec![namespace.clone()],
            _ => names.iter().map(|name| name.as_str().into()).collect(),
        };
        let selector = Selector::of(term.label_selector.as_ref()).map(|selector| selector.and(more));
        let group = Group { namespaces, labelled, selector };
        Term { topology_key: term.topology_key.as_str().into(), group }
    }

    /// The pods that the term is about.
    pub fn counted(&self) -> Counted {
        Counted::Grouped(vec![self.group.clone()])
    }
}

impl PodAffinity {
    /// What `spec` says, for a pod of `namespace` with these labels.
    pub fn of(spec: &PodSpec, namespace: &Arc<str>, labels: &Labels) -> Self {
        let term = |term: &core::PodAffinityTerm| Term::of(term, namespace, labels);
        let wish = |sign: i64| {
            move |one: &core::WeightedPodAffinityTerm| {
                (sign * i64::from(one.weight), Term::of(&one.pod_affinity_term, namespace, labels))
            }
        };
        let affinity = spec.affinity.as_ref();
        let near = affinity.and_then(|all| all.pod_affinity.as_ref());
        let apart = affinity.and_then(|all| all.pod_anti_affinity.as_ref());
        let near_wishes =
            near.and_then(|all| all.preferred_during_scheduling_ignored_during_execution.as_deref());
        let apart_wishes =
            apart.and_then(|all| all.preferred_during_scheduling_ignored_during_execution.as_deref());
        let near = near.and_then(|all| all.required_during_scheduling_ignored_during_execution.as_deref());
        let apart = apart.and_then(|all| all.required_during_scheduling_ignored_during_execution.as_deref());
        PodAffinity {
            near: near.unwrap_or_default().iter().map(term).collect(),
            apart: apart.unwrap_or_default().iter().map(term).collect(),
            preferred: near_wishes
                .unwrap_or_default()
                .iter()
                .map(wish(1))
                .chain(apart_wishes.unwrap_or_default().iter().map(wish(-1)))
                .collect(),
        }
    }

    /// The pods that match every `near` term; `None` if there is no such term.
    pub fn companions(&self) -> Option<Counted> {
        let groups: Vec<Group> = self.near.iter().map(|term| term.group.clone()).collect();
        (!groups.is_empty()).then_some(Counted::Grouped(groups))
    }

    /// What it says that draws others to it, or away.
    pub fn pulls(&self) -> impl Iterator<Item = Pull> {
        let required = self.near.iter().map(|term| Pull { term: term.clone(), weight: None });
        let wished = self.preferred.iter();
        required.chain(wished.map(|(weight, term)| Pull { term: term.clone(), weight: Some(*weight) }))
    }

    /// Every set of pods that must be counted to judge the terms.
    pub fn counted(&self) -> impl Iterator<Item = Counted> {
        let apart = self.apart.iter().chain(self.preferred.iter().map(|(_, term)| term));
        self.companions().into_iter().chain(apart.map(Term::counted))
    }
}
