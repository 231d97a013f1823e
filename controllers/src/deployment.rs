//! Deployment: rolls pods of one template over to the next by scaling ReplicaSets.
//!
//! What always holds: during a rolling update there are never more than `replicas + maxSurge` pods nor fewer
//! than `replicas - maxUnavailable` available ones by this controller's doing; a ReplicaSet is named by the
//! hash of its template, so a second look (or a second controller) can't create it twice; old ReplicaSets
//! keep their templates, which is what `kubectl rollout undo` goes back to. Upstream's
//! `pkg/controller/deployment` gives the rules and the words.

mod history;
mod revision;
mod rollback;
mod rolling;
mod scale;
mod status;

use crate::{
    expectations::Pending,
    owner,
    plan::{Action, Part, Plan, Severity, Target},
    pod::Pod,
};
use api::selector::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use kube::{Resource, ResourceExt};
use scale::Limits;
use serde_json::json;
use std::sync::Arc;

/// What a reconcile sees beside its object.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// All ReplicaSets of the namespace.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// All pods of the namespace; only the Recreate strategy looks at them.
    pub pods: Vec<Arc<Pod>>,
    /// A failure to create a ReplicaSet that hasn't been overcome.
    pub pending: Pending,
}

/// What to do for `deployment` now.
pub fn reconcile(deployment: &Deployment, view: &Snapshot, now: Timestamp) -> Plan {
    let spec = deployment.spec.clone();
    let Ok(selector) = LabelSelector::from_object(&spec.selector) else {
        // The API server refuses such a selector; there is nothing to retry.
        return Plan::nothing();
    };
    if selector.is_empty() {
        return selecting_all(deployment);
    }
    let mut plan = Plan::nothing();
    let claimed = owner::claim(deployment, &selector, &view.sets, &mut plan);
    let mut rollout = Rollout::new(deployment, &spec, claimed, view, now, plan);
    rollout.decide();
    rollout.finish()
}

/// One look at one Deployment.
struct Rollout<'a> {
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    view: &'a Snapshot,
    limits: Limits,
    now: Timestamp,
    /// The ReplicaSet of the current template.
    new: Option<Sized>,
    /// All others, by age.
    old: Vec<Sized>,
    conditions: status::Conditions,
    /// True if the status should judge progress, which a scaling or paused Deployment's doesn't.
    judges_progress: bool,
    plan: Plan,
}

/// A ReplicaSet with the size that this look wants for it.
#[derive(Debug, Clone)]
struct Sized {
    set: Arc<ReplicaSet>,
    size: i32,
    /// Its notes of the Deployment's size are brought up to date, too.
    noted: bool,
}

impl Sized {
    fn new(set: Arc<ReplicaSet>) -> Sized {
        let size = set.spec.replicas.unwrap_or(1);
        Sized { set, size, noted: false }
    }

    /// The size it has now.
    fn current(&self) -> i32 {
        Sized::new(self.set.clone()).size
    }

    fn available(&self) -> i32 {
        self.set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
    }

    fn created(&self) -> (Option<Timestamp>, String) {
        (self.set.creation_timestamp().map(|time| time.0), self.set.name_any())
    }
}

impl<'a> Rollout<'a> {
    fn new(
        deployment: &'a Deployment,
        spec: &'a DeploymentSpec,
        claimed: Vec<Arc<ReplicaSet>>,
        view: &'a Snapshot,
        now: Timestamp,
        plan: Plan,
    ) -> Rollout<'a> {
        let mut sets: Vec<Sized> = claimed.into_iter().map(Sized::new).collect();
        sets.sort_by_key(Sized::created);
        let newest = sets.iter().position(|set| revision::has_template(&set.set, &spec.template));
        let new = newest.map(|index| sets.remove(index));
        Rollout {
            deployment,
            spec,
            view,
            limits: Limits::of(spec),
            now,
            new,
            old: sets,
            conditions: status::Conditions::of(deployment, now),
            judges_progress: true,
            plan,
        }
    }

    fn decide(&mut self) {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            self.judges_progress = false;
            return;
        }
        self.conditions.note_pause(self.spec);
        let paused = self.spec.paused == Some(true);
        if paused || self.is_scaling() {
            self.judges_progress = false;
            if self.new.is_some() && !self.sync_revision() {
                return;
            }
            self.scale_proportionally();
            if paused {
                self.clean_up_history();
            }
            return;
        }
        match self.limits.recreate {
            true => self.roll_by_recreating(),
            false => self.roll_gradually(),
        }
    }

    /// True if the Deployment's size changed since its ReplicaSets were last scaled.
    fn is_scaling(&self) -> bool {
        let noted = |set: &Sized| revision::desired_replicas(&set.set);
        self.sets()
            .filter(|set| set.size > 0)
            .any(|set| noted(set).is_some_and(|size| size != self.limits.replicas))
    }

    fn sets(&self) -> impl Iterator<Item = &Sized> {
        self.old.iter().chain(&self.new)
    }

    fn sets_mut(&mut self) -> impl Iterator<Item = &mut Sized> {
        self.old.iter_mut().chain(&mut self.new)
    }

    fn total_size(&self) -> i32 {
        self.sets().map(|set| set.size).sum()
    }

    /// The actions: scaling first, then the status.
    fn finish(mut self) -> Plan {
        let changed: Vec<Sized> =
            self.sets().filter(|set| set.size != set.current() || self.has_old_notes(set)).cloned().collect();
        for set in changed {
            self.resize(&set);
        }
        let status = status::calculate(&self);
        let old = self.deployment.status.clone().unwrap_or_default();
        self.plan.status(Target::of(self.deployment), &old, &status, "status");
        self.roll_back_if_failed(&status);
        if let Some(when) = status::next_deadline(&self, &status) {
            self.plan.look_again(when);
        }
        self.plan
    }

    /// True if this look shared the size anew and `set` still notes another one.
    fn has_old_notes(&self, set: &Sized) -> bool {
        let known = set.set.annotations();
        set.noted
            && revision::size_notes(&self.limits).iter().any(|(name, size)| known.get(name) != Some(size))
    }

    fn resize(&mut self, set: &Sized) {
        let (from, to) = (set.current(), set.size);
        let name = set.set.name_any();
        let reason = format!("{from} -> {to} of {}", self.limits.replicas);
        let patch = json!({
            "metadata": {"annotations": revision::size_notes(&self.limits)},
            "spec": {"replicas": to},
        });
        self.plan.patch(Target::of(&*set.set), Part::Whole, patch, reason);
        if from != to {
            let direction = if from < to { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
            self.plan.event(self.deployment.object_ref(&()), Severity::Normal, "ScalingReplicaSet", message);
        }
    }
}

/// A Deployment that selects everything would take over every pod: it does nothing but say so.
fn selecting_all(deployment: &Deployment) -> Plan {
    let mut plan = Plan::nothing();
    let message = "This deployment is selecting all pods. A non-empty selector is required.";
    plan.event(deployment.object_ref(&()), Severity::Warning, "SelectingAll", message);
    let old = deployment.status.clone().unwrap_or_default();
    let mut status = old.clone();
    status.observed_generation = deployment.metadata.generation;
    plan.status(Target::of(deployment), &old, &status, "observed");
    // Said once for each generation.
    if old == status { Plan::nothing() } else { plan }
}

/// Creates the ReplicaSet `object`, which starts with `size` pods.
fn create(object: ReplicaSet, reason: String) -> Action {
    Action::Create {
        kind: kube::core::ApiResource::erase::<ReplicaSet>(&()),
        object: crate::plan::to_value(&object),
        announce: None,
        reason,
    }
}
