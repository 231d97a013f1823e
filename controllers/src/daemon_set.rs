//! DaemonSet: one pod on each node that it is for.
//!
//! What always holds: a pod is bound to its node by affinity and scheduled as any other; a node's pods are never
//! judged while one that we created isn't seen yet; an update makes no more nodes unavailable (or no more second
//! pods) than the strategy allows. Upstream's `pkg/controller/daemon` gives the rules and the words.

mod placement;
mod status;
mod update;

use crate::{
    expectations::Pending,
    history::{History, POD_REVISION, Revision},
    node_match, owner,
    plan::{Action, Plan, Severity, Target},
    pod::{self, Pod},
    template::{self, Named},
};
use api::selector::LabelSelector;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec},
    core::v1::Node,
};
use kube::{Resource, ResourceExt};
use placement::{Demands, Placement};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// At most this many creates or deletes in one look; upstream's `BurstReplicas`.
const BURST: usize = 250;
/// How long a failed pod is left before it is replaced. Upstream's pause grows from 1 s to 15 min with each
/// failure that the process remembers; ours needs no memory.
const FAILED_PAUSE: SignedDuration = SignedDuration::from_secs(5);

/// What a reconcile sees beside its object.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The set's pods, and those that nobody controls.
    pub pods: Vec<Arc<Pod>>,
    /// The same of revisions.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// All nodes.
    pub nodes: Vec<Arc<Node>>,
    /// Our own writes that `pods` doesn't show yet.
    pub pending: Pending,
}

/// What to do for `set` now.
pub fn reconcile(set: &DaemonSet, view: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Ok(selector) = LabelSelector::from_object(&set.spec.selector) else { return plan };
    if selector.is_empty() {
        let message = "This daemon set is selecting all pods. A non-empty selector is required.";
        plan.event(set.object_ref(&()), Severity::Warning, "SelectingAll", message);
        return plan;
    }
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let pods = owner::claim(set, &selector, &view.pods, &mut plan);
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let mut history = History::new(set, &selector, &view.revisions, POD_REVISION, collisions, &mut plan);
    let update = history.sync(&set.spec.template, &mut plan);
    let mut look = Look::new(set, view, pods, update, now);
    look.decide();
    look.finish(plan, &history)
}

/// One look at one DaemonSet.
struct Look<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    view: &'a Snapshot,
    now: Timestamp,
    update: Revision,
    /// What each node is to this set.
    places: BTreeMap<String, Placement>,
    /// The set's pods by node, the oldest first.
    pods: BTreeMap<String, Vec<Arc<Pod>>>,
    deletes: Vec<Action>,
    creates: Vec<Action>,
    plan: Plan,
}

impl<'a> Look<'a> {
    fn new(
        set: &'a DaemonSet,
        view: &'a Snapshot,
        claimed: Vec<Arc<Pod>>,
        update: Revision,
        now: Timestamp,
    ) -> Look<'a> {
        let demands = Demands::of(set);
        let places = view.nodes.iter().map(|node| (node.name_any(), demands.judge(node))).collect();
        let mut pods: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in claimed {
            pods.entry(placement::node_of(&pod)).or_default().push(pod);
        }
        for on_node in pods.values_mut() {
            on_node.sort_by_key(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any()));
        }
        let (deletes, creates) = (Vec::new(), Vec::new());
        Look {
            set,
            spec: &set.spec,
            view,
            now,
            update,
            places,
            pods,
            deletes,
            creates,
            plan: Plan::nothing(),
        }
    }

    fn decide(&mut self) {
        let known: Vec<Arc<Pod>> = self.pods.values().flatten().cloned().collect();
        // With a write outstanding it isn't known what is missing; its arrival makes us look again.
        if self.view.pending.unseen(&known) > 0 {
            return;
        }
        for node in self.places.keys().cloned().collect::<Vec<String>>() {
            self.manage(&node);
        }
        self.forget_missing_nodes();
        if self.deletes.is_empty() && self.creates.is_empty() {
            self.roll();
        }
    }

    fn on_node(&self, node: &str) -> Vec<Arc<Pod>> {
        self.pods.get(node).cloned().unwrap_or_default()
    }

    /// Gives the node its pod, or takes what it should not have.
    fn manage(&mut self, node: &str) {
        let (place, pods) = (self.places[node], self.on_node(node));
        if !place.may_stay {
            for pod in pods.iter().filter(|pod| !pod::is_terminating(pod)) {
                self.delete(pod, "it may not run on this node");
            }
        } else if pods.is_empty() && place.should_run {
            self.create(node, "the node has none");
        } else {
            self.tidy(node, &pods);
        }
    }

    fn tidy(&mut self, node: &str, pods: &[Arc<Pod>]) {
        let mut running = Vec::new();
        for pod in pods.iter().filter(|pod| !pod::is_terminating(pod)) {
            match pod::phase(pod) {
                "Failed" => self.replace_failed(node, pod),
                "Succeeded" => self.replace_succeeded(node, pod),
                _ => running.push(pod.clone()),
            }
        }
        for pod in self.surplus(running) {
            self.delete(&pod, "the node has another");
        }
    }

    /// Beyond the oldest pod of a node; during an update with surge there may be one of each revision.
    fn surplus(&self, running: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
        if self.limits().surge == 0 {
            return running.into_iter().skip(1).collect();
        }
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| self.is_new(pod));
        new.into_iter().skip(1).chain(old.into_iter().skip(1)).collect()
    }

    fn replace_failed(&mut self, node: &str, pod: &Pod) {
        let end = pod.status.as_ref().and_then(|_| crate::job::ended_at(pod)).unwrap_or(self.now);
        if end + FAILED_PAUSE > self.now {
            return self.plan.look_again(end + FAILED_PAUSE);
        }
        let place = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        let message = format!("Found failed daemon pod {place} on node {node}, will try to kill it");
        self.plan.event(self.set.object_ref(&()), Severity::Warning, "FailedDaemonPod", message);
        self.delete(pod, "it has failed");
    }

    fn replace_succeeded(&mut self, node: &str, pod: &Pod) {
        let place = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        let message = format!("Found succeeded daemon pod {place} on node {node}, will try to delete it");
        self.plan.event(self.set.object_ref(&()), Severity::Normal, "SucceededDaemonPod", message);
        self.delete(pod, "it has ended");
    }

    /// Pods that wait for a node that is gone would wait for ever; bound ones are the pod collector's.
    fn forget_missing_nodes(&mut self) {
        let waiting = |pod: &&Arc<Pod>| pod::node_name(pod).is_empty() && !pod::is_terminating(pod);
        let missing = self.pods.iter().filter(|(node, _)| !self.places.contains_key(*node));
        let lost: Vec<Arc<Pod>> =
            missing.flat_map(|(_, pods)| pods.iter().filter(waiting).cloned()).collect();
        for pod in lost {
            self.delete(&pod, "its node is gone");
        }
    }

    fn delete(&mut self, pod: &Pod, reason: &str) {
        if !pod.uid().is_some_and(|uid| self.view.pending.deleted.contains(&uid)) {
            self.deletes.push(template::delete(self.set, pod, reason));
        }
    }

    fn create(&mut self, node: &str, reason: &str) {
        let template = placement::template_for(self.set, &self.update, node);
        let prefix = Named::From(format!("{}-", self.set.name_any()));
        self.creates.push(template::create(self.set, &template, prefix, format!("{node}: {reason}")));
    }

    fn is_new(&self, pod: &Pod) -> bool {
        pod.labels().get(POD_REVISION) == Some(&self.update.hash)
    }

    /// Ready for long enough; notes when that will be so.
    fn is_available(&mut self, pod: &Pod) -> bool {
        match pod::available_at(pod, self.spec.min_ready_seconds.unwrap_or(0)) {
            Some(when) if when > self.now => {
                self.plan.look_again(when);
                false
            }
            found => found.is_some() && !pod::is_terminating(pod),
        }
    }

    fn finish(mut self, mut plan: Plan, history: &History<'_, DaemonSet>) -> Plan {
        let old = self.set.status.clone().unwrap_or_default();
        let new = status::of(&mut self, history.collisions);
        let mut report = Plan::nothing();
        report.status(Target::of(self.set), &old, &new, "status");
        let mut work = std::mem::take(&mut self.plan.actions);
        work.extend(std::mem::take(&mut self.deletes).into_iter().take(BURST));
        work.extend(std::mem::take(&mut self.creates).into_iter().take(BURST));
        // A refused create drops the rest, so a known refusal doesn't keep the status from being told.
        let refused = self.view.pending.failure.is_some();
        let (first, second) = if refused { (report.actions, work) } else { (work, report.actions) };
        plan.actions.extend(first.into_iter().chain(second));
        let used = self.pods.values().flatten().filter_map(|pod| pod.labels().get(POD_REVISION).cloned());
        let used: BTreeSet<String> = used.chain([self.update.hash.clone()]).collect();
        history.truncate(&used, self.spec.revision_history_limit.unwrap_or(10), &mut plan);
        self.plan.again.into_iter().for_each(|when| plan.look_again(when));
        plan
    }
}
