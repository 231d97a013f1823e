//! Namespace: empties a namespace that is being deleted, then lets it go.
//!
//! What always holds: pods go first and everything else only after the last pod is gone, so that a pod never
//! outlives what it needs; the finalizer `kubernetes` is removed only after the server itself listed nothing
//! of any kind. What holds the deletion up is told in upstream's conditions.

use crate::plan::{Action, Plan, Target};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::core::ApiResource;
use std::collections::BTreeMap;

/// The finalizer in `spec.finalizers` that this controller owns.
pub const FINALIZER: &str = "kubernetes";

/// How soon to look again while the content of a namespace goes away; changes of watched kinds are
/// noticed earlier.
const PAUSE: SignedDuration = SignedDuration::from_secs(1);

/// What the server listed in a namespace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Content {
    /// Kinds with at least one object.
    pub remaining: Vec<Remaining>,
    /// Why some kinds could not be found out.
    pub discovery_failure: Option<String>,
    /// Why some kinds could not be listed or deleted.
    pub content_failure: Option<String>,
}

/// The objects of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Remaining {
    /// The kind.
    pub kind: ApiResource,
    /// How many objects there are.
    pub count: usize,
    /// How many of them aren't being deleted yet.
    pub undeleted: usize,
    /// Finalizers that hold them, and how many each.
    pub finalizers: BTreeMap<String, usize>,
}

impl Remaining {
    fn is_pods(&self) -> bool {
        self.kind.group.is_empty() && self.kind.plural == "pods"
    }

    fn describe(&self) -> String {
        format!("{}.{} has {} resource instances", self.kind.plural, self.kind.group, self.count)
    }
}

/// True if the namespace is being deleted and waits for us: only then its content must be listed.
pub fn wants_content(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
        && finalizers(namespace).iter().any(|name| name == FINALIZER)
}

/// What to do for `namespace`, whose content the server listed just now.
pub fn reconcile(namespace: &Namespace, content: &Content, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    if !wants_content(namespace) {
        return plan;
    }
    let name = namespace.metadata.name.clone().unwrap_or_default();
    for remaining in next_to_go(content) {
        plan.push(Action::DeleteCollection {
            kind: remaining.kind.clone(),
            namespace: name.clone(),
            reason: format!("{} of {} are not being deleted", remaining.undeleted, remaining.count),
        });
    }
    let old = namespace.status.clone().unwrap_or_default();
    plan.status(Target::of(namespace), &old, &status(&old, content, now), "what remains of it");
    let failed = content.discovery_failure.is_some() || content.content_failure.is_some();
    if content.remaining.is_empty() && !failed {
        let left = finalizers(namespace).into_iter().filter(|name| name != FINALIZER).collect();
        plan.push(Action::Finalize {
            target: Target::of(namespace),
            finalizers: left,
            reason: "the server lists nothing in it".to_owned(),
        });
    } else {
        plan.look_again(now + PAUSE);
    }
    plan
}

fn finalizers(namespace: &Namespace) -> Vec<String> {
    namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default()
}

/// The kinds to delete now: pods alone as long as there are any.
fn next_to_go(content: &Content) -> impl Iterator<Item = &Remaining> {
    let has_pods = content.remaining.iter().any(Remaining::is_pods);
    content
        .remaining
        .iter()
        .filter(move |remaining| remaining.undeleted > 0 && (!has_pods || remaining.is_pods()))
}

fn status(old: &NamespaceStatus, content: &Content, now: Timestamp) -> NamespaceStatus {
    let mut conditions = old.conditions.clone().unwrap_or_default();
    for condition in judge(content, now) {
        set(&mut conditions, condition);
    }
    NamespaceStatus { phase: Some("Terminating".to_owned()), conditions: Some(conditions) }
}

/// Keeps the transition time unless the status changes, and everything if nothing does.
fn set(conditions: &mut Vec<NamespaceCondition>, mut condition: NamespaceCondition) {
    let Some(old) = conditions.iter_mut().find(|old| old.type_ == condition.type_) else {
        conditions.push(condition);
        return;
    };
    if old.status == condition.status {
        condition.last_transition_time = old.last_transition_time.clone();
    }
    *old = condition;
}

fn judge(content: &Content, now: Timestamp) -> [NamespaceCondition; 5] {
    let condition = |type_: &str, bad: Option<(&str, String)>, good: (&str, &str)| {
        let status = if bad.is_some() { "True" } else { "False" };
        let (reason, message) = bad.unwrap_or((good.0, good.1.to_owned()));
        NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }
    };
    let discovery = content.discovery_failure.clone().map(|failure| ("DiscoveryFailed", failure));
    let failure = content.content_failure.clone().map(|failure| ("ContentDeletionFailed", failure));
    [
        condition(
            "NamespaceDeletionDiscoveryFailure",
            discovery,
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        condition(
            "NamespaceDeletionContentFailure",
            failure,
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        condition(
            "NamespaceContentRemaining",
            remaining(content).map(|message| ("SomeResourcesRemain", message)),
            ("ContentRemoved", "All content successfully removed"),
        ),
        condition(
            "NamespaceFinalizersRemaining",
            remaining_finalizers(content).map(|message| ("SomeFinalizersRemain", message)),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ]
}

fn remaining(content: &Content) -> Option<String> {
    let kinds: Vec<String> = content.remaining.iter().map(Remaining::describe).collect();
    (!kinds.is_empty()).then(|| format!("Some resources are remaining: {}", kinds.join(", ")))
}

fn remaining_finalizers(content: &Content) -> Option<String> {
    let mut sums: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in content.remaining.iter().flat_map(|remaining| &remaining.finalizers) {
        *sums.entry(finalizer).or_default() += count;
    }
    let sums: Vec<String> =
        sums.iter().map(|(finalizer, count)| format!("{finalizer} in {count} resource instances")).collect();
    (!sums.is_empty())
        .then(|| format!("Some content in the namespace has finalizers remaining: {}", sums.join(", ")))
}
