//! StatefulSet: pods with names that last, started and stopped in order, each with claims of its own.
//!
//! What always holds: a pod of an identity is created only when the API server has none of that name, so there are
//! never two; in order means that a pod is touched only when all before it are ready (all after it gone); claims
//! outlive pods unless the retention policy says otherwise. Upstream's `pkg/controller/statefulset` gives the rules
//! and the words. Beyond upstream: a pod that isn't ready and whose revision nobody wants any more is replaced, so
//! a broken rollout that was rolled back heals without hand work.

mod claims;
mod identity;
mod status;
mod update;

use crate::{
    expectations::Pending,
    history::{History, POD_REVISION, Revision},
    owner,
    plan::{Action, Part, Plan, Severity, Target},
    pod::{self, Pod},
    template::{self, Named},
};
use api::selector::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec},
    core::v1::PersistentVolumeClaim,
};
use kube::{Resource, ResourceExt, core::ApiResource};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

const REVISION_HASH: &str = "controller.kubernetes.io/hash";

/// What a reconcile sees beside its object.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The set's pods, and those that nobody controls.
    pub pods: Vec<Arc<Pod>>,
    /// The same of revisions.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// All claims of the namespace.
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
    /// A failure to create that hasn't been overcome.
    pub pending: Pending,
}

/// What to do for `set` now.
pub fn reconcile(set: &StatefulSet, view: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Ok(selector) = LabelSelector::from_object(&set.spec.selector) else { return plan };
    let members: Vec<Arc<Pod>> = view
        .pods
        .iter()
        .filter(|pod| identity::ordinal_of(set, &pod.name_any()).is_some())
        .cloned()
        .collect();
    let pods = owner::claim(set, &selector, &members, &mut plan);
    let old = set.status.clone().unwrap_or_default();
    let mut history =
        History::new(set, &selector, &view.revisions, REVISION_HASH, old.collision_count, &mut plan);
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let update = history.sync(&set.spec.template, &mut plan);
    let current = old.current_revision.as_deref().and_then(|name| history.named(name));
    let current = current.unwrap_or_else(|| update.clone());
    let mut look = Look::new(set, view, pods, (current, update), now);
    look.decide();
    look.finish(plan, &history)
}

/// One look at one StatefulSet.
struct Look<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    view: &'a Snapshot,
    now: Timestamp,
    current: Revision,
    update: Revision,
    /// By ordinal.
    pods: BTreeMap<i32, Arc<Pod>>,
    plan: Plan,
}

/// Whether what comes later in the order may be touched in this look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Go,
    Wait,
}

impl<'a> Look<'a> {
    fn new(
        set: &'a StatefulSet,
        view: &'a Snapshot,
        pods: Vec<Arc<Pod>>,
        (current, update): (Revision, Revision),
        now: Timestamp,
    ) -> Look<'a> {
        let ordinal = |pod: &Pod| identity::ordinal_of(set, &pod.name_any());
        let pods = pods.into_iter().filter_map(|pod| Some((ordinal(&pod)?, pod))).collect();
        Look { set, spec: &set.spec, view, now, current, update, pods, plan: Plan::nothing() }
    }

    /// The ordinals that there should be.
    fn wanted(&self) -> Range<i32> {
        let start = self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        start..start.saturating_add(self.spec.replicas.unwrap_or(1))
    }

    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn decide(&mut self) {
        self.keep_claims();
        for ordinal in self.wanted() {
            if self.keep(ordinal) == Step::Wait && self.is_ordered() {
                return;
            }
        }
        let wanted = self.wanted();
        let condemned: Vec<i32> = self.pods.keys().rev().filter(|it| !wanted.contains(it)).copied().collect();
        for ordinal in condemned {
            if self.condemn(ordinal) == Step::Wait && self.is_ordered() {
                return;
            }
        }
        self.roll();
    }

    /// Sees to the pod of a wanted ordinal.
    fn keep(&mut self, ordinal: i32) -> Step {
        let Some(pod) = self.pods.get(&ordinal).cloned() else {
            self.create(ordinal);
            return Step::Wait;
        };
        if pod::is_terminal(&pod) {
            if !pod::is_terminating(&pod) {
                self.replace_ended(&pod);
            }
            return Step::Wait;
        }
        if pod::is_terminating(&pod) {
            return Step::Wait;
        }
        self.repair_identity(ordinal, &pod);
        if !is_running_and_ready(&pod) {
            if self.is_unwanted(&pod) {
                self.delete(&pod, "it isn't ready, and its revision is neither the current nor the new one");
            }
            return Step::Wait;
        }
        if self.is_available(&pod) { Step::Go } else { Step::Wait }
    }

    /// A pod of a broken revision that was rolled back or replaced; upstream waits for it to become ready.
    fn is_unwanted(&self, pod: &Pod) -> bool {
        let revision = revision_of(pod);
        revision != self.current.name && revision != self.update.name
    }

    fn replace_ended(&mut self, pod: &Pod) {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let set = self.set.name_any();
        let message = format!(
            "StatefulSet {namespace}/{set} is recreating {} Pod {name}",
            pod::phase(pod).to_lowercase()
        );
        let event =
            if pod::phase(pod) == "Failed" { "RecreatingFailedPod" } else { "RecreatingTerminatedPod" };
        self.event(Severity::Warning, event, message);
        self.delete(pod, "it has ended");
    }

    /// Sees to the end of a pod beyond the wanted ordinals, the highest first.
    fn condemn(&mut self, ordinal: i32) -> Step {
        let Some(pod) = self.pods.get(&ordinal).cloned() else { return Step::Go };
        if pod::is_terminating(&pod) {
            return Step::Wait;
        }
        let stands = is_running_and_ready(&pod) && self.is_available(&pod);
        if self.is_ordered() && !stands && self.first_unhealthy() != Some(ordinal) {
            return Step::Wait;
        }
        self.hand_over_claims(ordinal, &pod);
        self.delete(&pod, "scaled down");
        Step::Wait
    }

    fn first_unhealthy(&self) -> Option<i32> {
        self.pods.iter().find(|(_, pod)| !is_healthy(pod)).map(|(ordinal, _)| *ordinal)
    }

    fn is_available(&mut self, pod: &Pod) -> bool {
        let available = pod::available_at(pod, self.spec.min_ready_seconds.unwrap_or(0));
        match available {
            Some(when) if when <= self.now => true,
            Some(when) => {
                self.plan.look_again(when);
                false
            }
            None => false,
        }
    }

    fn create(&mut self, ordinal: i32) {
        if !self.create_claims(ordinal) {
            return;
        }
        let (set, name) = (self.set.name_any(), identity::name_of(self.set, ordinal));
        if let Some(failure) = self.view.pending.failure.clone() {
            let message = format!("create Pod {name} in StatefulSet {set} failed error: {failure}");
            self.event(Severity::Warning, "FailedCreate", message);
        }
        let revision = self.revision_for(ordinal).clone();
        let template = identity::template_of(self.set, &revision, ordinal);
        self.plan.push(Action::Create {
            kind: ApiResource::erase::<Pod>(&()),
            object: template::pod_of(self.set, &template, Named::As(name.clone())),
            announce: None,
            reason: format!("ordinal {ordinal} has no pod"),
        });
        self.event(
            Severity::Normal,
            "SuccessfulCreate",
            format!("create Pod {name} in StatefulSet {set} successful"),
        );
    }

    fn delete(&mut self, pod: &Pod, reason: &str) {
        let (set, name) = (self.set.name_any(), pod.name_any());
        self.plan.delete(Target::of(pod).in_any_state(), reason.to_owned());
        self.event(
            Severity::Normal,
            "SuccessfulDelete",
            format!("delete Pod {name} in StatefulSet {set} successful"),
        );
    }

    fn event(&mut self, severity: Severity, event: &'static str, message: String) {
        self.plan.event(self.set.object_ref(&()), severity, event, message);
    }

    fn repair_identity(&mut self, ordinal: i32, pod: &Pod) {
        let missing: BTreeMap<String, String> = identity::labels_of(self.set, ordinal)
            .into_iter()
            .filter(|(name, value)| pod.labels().get(name) != Some(value))
            .collect();
        if !missing.is_empty() {
            let patch = serde_json::json!({"metadata": {"labels": missing}});
            self.plan.patch(Target::of(pod), Part::Whole, patch, "labels of its identity");
        }
    }

    fn finish(self, mut plan: Plan, history: &History<'_, StatefulSet>) -> Plan {
        let old = self.set.status.clone().unwrap_or_default();
        let new = status::of(&self, history.collisions);
        let mut status = Plan::nothing();
        status.status(Target::of(self.set), &old, &new, "status");
        // A refused create drops the rest, so a known refusal doesn't keep the status from being told.
        let refused = self.view.pending.failure.is_some();
        let (first, second) =
            if refused { (status.actions, self.plan.actions) } else { (self.plan.actions, status.actions) };
        plan.actions.extend(first.into_iter().chain(second));
        let needed = self.pods.values().map(|pod| revision_of(pod).to_owned());
        let needed: BTreeSet<String> = needed
            .chain([self.current.name.clone(), self.update.name.clone()])
            .chain(new.current_revision)
            .collect();
        history.truncate(&needed, self.spec.revision_history_limit.unwrap_or(10), &mut plan);
        self.plan.again.into_iter().for_each(|when| plan.look_again(when));
        plan
    }
}

fn revision_of(pod: &Pod) -> &str {
    pod.labels().get(POD_REVISION).map_or("", String::as_str)
}

fn is_running_and_ready(pod: &Pod) -> bool {
    pod::phase(pod) == "Running" && pod::is_ready(pod)
}

fn is_healthy(pod: &Pod) -> bool {
    is_running_and_ready(pod) && !pod::is_terminating(pod)
}
