//! What a Deployment says about its rollout: counts, and the conditions Available, Progressing and
//! ReplicaFailure with upstream's reasons.

use super::{Rollout, Sized};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::apps::v1::{
        Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSetCondition,
        ReplicaSetStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// True if the rollout made no progress within its deadline.
pub fn has_timed_out(status: &DeploymentStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| {
        condition.type_.as_deref() == Some(PROGRESSING)
            && condition.status.as_deref() == Some("False")
            && condition.reason.as_deref() == Some(TIMED_OUT)
    })
}

/// The conditions as this look leaves them.
#[derive(Debug, Clone)]
pub struct Conditions {
    list: Vec<DeploymentCondition>,
    /// `status.collisionCount` as this look leaves it.
    pub collisions: Option<i32>,
    now: Timestamp,
}

impl Conditions {
    /// The conditions that `deployment` has.
    pub fn of(deployment: &Deployment, now: Timestamp) -> Conditions {
        let status = deployment.status.clone().unwrap_or_default();
        Conditions { list: status.conditions.unwrap_or_default(), collisions: status.collision_count, now }
    }

    /// A pause (or its end) is noted once, so that a paused rollout doesn't run into its deadline.
    pub fn note_pause(&mut self, spec: &DeploymentSpec) {
        let reason = self.reason(PROGRESSING);
        if deadline(spec).is_none() || reason == Some(TIMED_OUT) {
            return;
        }
        let was_paused = reason == Some("DeploymentPaused");
        match spec.paused == Some(true) {
            true if !was_paused => {
                self.progressing("Unknown", "DeploymentPaused", "Deployment is paused".to_owned())
            }
            false if was_paused => {
                self.progressing("Unknown", "DeploymentResumed", "Deployment is resumed".to_owned());
            }
            _ => {}
        }
    }

    /// An existing ReplicaSet turned out to be the new one. Where upstream goes on to say that the last rollout was
    /// complete, as after a crash between making the set and saying so, this one would have no deadline.
    pub fn found_new(&mut self, spec: &DeploymentSpec, name: &str) {
        let subject = format!("{name:?}");
        let is_of_another = |known: &DeploymentCondition| {
            known.reason.as_deref() == Some(COMPLETE)
                && known.message.as_ref().is_none_or(|message| !message.contains(&subject))
        };
        if deadline(spec).is_some() && self.find(PROGRESSING).is_none_or(is_of_another) {
            self.progressing("True", "FoundNewReplicaSet", format!("Found new replica set {subject}"));
        }
    }

    /// The new ReplicaSet is being created by this look.
    pub fn created_new(&mut self, spec: &DeploymentSpec, name: &str) {
        if deadline(spec).is_some() {
            self.progressing("True", "NewReplicaSetCreated", format!("Created new replica set {name:?}"));
        }
    }

    /// The new ReplicaSet could not be created at the last attempt.
    pub fn create_failed(&mut self, spec: &DeploymentSpec, name: &str, failure: &str) {
        if deadline(spec).is_some() {
            let message = format!("Failed to create new replica set {name:?}: {failure}");
            self.progressing("False", "ReplicaSetCreateError", message);
        }
    }

    fn find(&self, type_: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_.as_deref() == Some(type_))
    }

    fn reason(&self, type_: &str) -> Option<&str> {
        self.find(type_)?.reason.as_deref()
    }

    fn remove(&mut self, type_: &str) {
        self.list.retain(|condition| condition.type_.as_deref() != Some(type_));
    }

    fn progressing(&mut self, status: &str, reason: &str, message: String) {
        self.set(self.condition(PROGRESSING, status, reason, message));
    }

    fn condition(&self, type_: &str, status: &str, reason: &str, message: String) -> DeploymentCondition {
        DeploymentCondition {
            type_: Some(type_.to_owned()),
            status: Some(status.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        }
    }

    /// Replaces the condition of the same type, unless status and reason are the same; the transition
    /// time only changes with the status.
    fn set(&mut self, mut condition: DeploymentCondition) {
        let type_ = condition.type_.clone().unwrap_or_default();
        if let Some(old) = self.find(&type_) {
            if old.status == condition.status && old.reason == condition.reason {
                return;
            }
            if old.status == condition.status {
                condition.last_transition_time = old.last_transition_time.clone();
            }
        }
        self.remove(&type_);
        self.list.push(condition);
    }

    /// Progress renews the update time, which the deadline counts from, even if nothing else changes.
    fn renew_progress(&mut self, message: String) {
        let old = self.find(PROGRESSING).cloned();
        self.remove(PROGRESSING);
        let mut condition = self.condition(PROGRESSING, "True", "ReplicaSetUpdated", message);
        if let Some(old) = old.filter(|old| old.status.as_deref() == Some("True")) {
            condition.last_transition_time = old.last_transition_time;
        }
        self.list.push(condition);
    }
}

/// The status that the Deployment should have.
pub fn calculate(rollout: &Rollout<'_>) -> DeploymentStatus {
    let mut conditions = rollout.conditions.clone();
    let mut status = counts(rollout);
    note_available(&mut conditions, rollout, &status);
    if rollout.judges_progress {
        note_progress(&mut conditions, rollout, &status);
        note_failures(&mut conditions, rollout);
    }
    status.collision_count = conditions.collisions;
    status.conditions = Some(conditions.list).filter(|conditions| !conditions.is_empty());
    status
}

/// True if the Deployment's own status says that its rollout is complete.
pub fn is_complete(rollout: &Rollout<'_>) -> bool {
    let status = rollout.deployment.status.clone().unwrap_or_default();
    completes(rollout, &status)
}

/// When a rollout that makes no progress will have exceeded its deadline.
pub fn next_deadline(rollout: &Rollout<'_>, status: &DeploymentStatus) -> Option<Timestamp> {
    let seconds = deadline(rollout.spec)?;
    if !rollout.judges_progress || completes(rollout, status) {
        return None;
    }
    let progressing = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_.as_deref() == Some(PROGRESSING))?;
    if matches!(progressing.reason.as_deref(), Some(TIMED_OUT | COMPLETE)) {
        return None;
    }
    // One second later, so that a look at that time is surely beyond it.
    let updated = progressing.last_update_time.as_ref()?.0;
    Some(updated + SignedDuration::from_secs(i64::from(seconds) + 1))
}

fn deadline(spec: &DeploymentSpec) -> Option<i32> {
    spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)
}

fn counts(rollout: &Rollout<'_>) -> DeploymentStatus {
    let reported = |set: &Sized| set.set.status.clone().unwrap_or_default();
    let sum = |field: &dyn Fn(&ReplicaSetStatus) -> i32| -> i32 {
        rollout.sets().map(|set| field(&reported(set))).sum()
    };
    let available = sum(&|status| status.available_replicas.unwrap_or(0));
    let updated = rollout.new.as_ref().map_or(0, |new| reported(new).replicas);
    DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: nonzero(sum(&|status| status.replicas)),
        updated_replicas: nonzero(updated),
        ready_replicas: nonzero(sum(&|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((rollout.total_size() - available).max(0)),
        terminating_replicas: Some(sum(&|status| status.terminating_replicas.unwrap_or(0))),
        collision_count: None,
        conditions: None,
    }
}

/// Zero isn't written, as upstream's `omitempty` has it.
fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

fn note_available(conditions: &mut Conditions, rollout: &Rollout<'_>, status: &DeploymentStatus) {
    let condition = if status.available_replicas.unwrap_or(0) >= rollout.limits.least() {
        let message = "Deployment has minimum availability.".to_owned();
        conditions.condition(AVAILABLE, "True", "MinimumReplicasAvailable", message)
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        conditions.condition(AVAILABLE, "False", "MinimumReplicasUnavailable", message)
    };
    conditions.set(condition);
}

fn note_progress(conditions: &mut Conditions, rollout: &Rollout<'_>, status: &DeploymentStatus) {
    let Some(seconds) = deadline(rollout.spec) else {
        conditions.remove(PROGRESSING);
        return;
    };
    let was_complete =
        status.replicas == status.updated_replicas && conditions.reason(PROGRESSING) == Some(COMPLETE);
    if was_complete {
        return;
    }
    let subject = match &rollout.new {
        Some(new) => format!("ReplicaSet {:?}", new.set.name_any()),
        None => format!("Deployment {:?}", rollout.deployment.name_any()),
    };
    if completes(rollout, status) {
        conditions.progressing("True", COMPLETE, format!("{subject} has successfully progressed."));
    } else if progresses(&rollout.deployment.status.clone().unwrap_or_default(), status) {
        conditions.renew_progress(format!("{subject} is progressing."));
    } else if is_late(conditions, seconds, rollout.now) {
        conditions.progressing("False", TIMED_OUT, format!("{subject} has timed out progressing."));
    }
}

/// All pods are new, available and wanted, and the status is about the current spec.
fn completes(rollout: &Rollout<'_>, status: &DeploymentStatus) -> bool {
    let replicas = nonzero(rollout.limits.replicas);
    status.updated_replicas == replicas
        && status.replicas == replicas
        && status.available_replicas == replicas
        && status.observed_generation.unwrap_or(0) >= rollout.deployment.metadata.generation.unwrap_or(0)
}

fn progresses(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let grew =
        |field: fn(&DeploymentStatus) -> Option<i32>| field(new).unwrap_or(0) > field(old).unwrap_or(0);
    let outdated =
        |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    grew(|status| status.updated_replicas)
        || grew(|status| status.ready_replicas)
        || grew(|status| status.available_replicas)
        || outdated(new) < outdated(old)
}

fn is_late(conditions: &Conditions, seconds: i32, now: Timestamp) -> bool {
    let Some(progressing) = conditions.find(PROGRESSING) else { return false };
    match progressing.reason.as_deref() {
        Some(COMPLETE) => false,
        Some(TIMED_OUT) => true,
        _ => progressing
            .last_update_time
            .as_ref()
            .is_some_and(|updated| updated.0 + SignedDuration::from_secs(seconds.into()) < now),
    }
}

/// The failure of the new ReplicaSet, or without one any other's.
fn note_failures(conditions: &mut Conditions, rollout: &Rollout<'_>) {
    let failure = rollout.new.iter().chain(&rollout.old).find_map(failure_of);
    match failure {
        Some(failure) => conditions.set(DeploymentCondition {
            type_: failure.type_,
            status: failure.status,
            reason: failure.reason,
            message: failure.message,
            last_update_time: failure.last_transition_time.clone(),
            last_transition_time: failure.last_transition_time,
        }),
        None => conditions.remove(REPLICA_FAILURE),
    }
}

fn failure_of(set: &Sized) -> Option<ReplicaSetCondition> {
    let conditions = set.set.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE)).cloned()
}
