//! Which ReplicaSet belongs to the current template, and which revision it is.
//!
//! The annotations are upstream's, so `kubectl rollout history` and `undo` read them: the revision on each
//! ReplicaSet and on the Deployment, and on a ReplicaSet the Deployment's size when it was last scaled.

use super::{Rollout, Sized, create, scale::Limits};
use crate::{
    owner,
    plan::{Part, Severity, Target},
};
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Annotations of a Deployment that its ReplicaSets don't inherit.
const NOT_INHERITED: [&str; 8] = [
    super::rollback::ASKED,
    super::rollback::DONE,
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// True if `set` was made from `template`; the hash label that was added to it is ignored.
pub fn has_template(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let own = set.spec.template.clone().unwrap_or_default();
    without_hash(own) == without_hash(template.clone())
}

/// The template as its Deployment has it.
pub fn without_hash(mut template: PodTemplateSpec) -> PodTemplateSpec {
    let metadata = template.metadata.get_or_insert_default();
    let labels = metadata.labels.get_or_insert_default();
    labels.remove(TEMPLATE_HASH);
    // Absent and empty mean the same.
    metadata.annotations = metadata.annotations.take().filter(|annotations| !annotations.is_empty());
    template
}

/// The revision of `set`; zero if it has none.
pub fn of(set: &ReplicaSet) -> i64 {
    number(set, REVISION).unwrap_or(0)
}

/// The Deployment's size when `set` was last scaled.
pub fn desired_replicas(set: &ReplicaSet) -> Option<i32> {
    number(set, DESIRED_REPLICAS)
}

/// The most pods the Deployment could have when `set` was last scaled.
pub fn max_replicas(set: &ReplicaSet) -> Option<i32> {
    number(set, MAX_REPLICAS)
}

fn number<N: std::str::FromStr>(set: &ReplicaSet, annotation: &str) -> Option<N> {
    set.annotations().get(annotation)?.parse().ok()
}

/// The annotations that note the Deployment's size.
pub fn size_notes(limits: &Limits) -> BTreeMap<String, String> {
    let notes = [(DESIRED_REPLICAS, limits.replicas), (MAX_REPLICAS, limits.most())];
    notes.map(|(name, size)| (name.to_owned(), size.to_string())).into()
}

impl Rollout<'_> {
    /// Brings the revision of an existing new ReplicaSet up to date; true if it is and nothing was done.
    pub(super) fn sync_revision(&mut self) -> bool {
        let Some(new) = self.new.clone() else { return false };
        let revision = self.next_revision().max(of(&new.set));
        let patch = self.inherited(&new.set, revision);
        if !patch.is_null() {
            let reason = format!("revision {revision}, as the Deployment has it");
            self.plan.patch(Target::of(&*new.set), Part::Whole, patch, reason);
            return false;
        }
        self.note_revision(revision);
        self.conditions.found_new(self.spec, &new.set.name_any());
        true
    }

    /// True if the new ReplicaSet exists and is up to date; otherwise this look sees to that only.
    pub(super) fn ensure_new(&mut self) -> bool {
        if self.new.is_some() {
            return self.sync_revision();
        }
        let collisions = self.deployment.status.as_ref().and_then(|status| status.collision_count);
        let hash = api::hash::typed_template_hash(&self.spec.template, collisions.map(i64::from));
        let name = format!("{}-{hash}", self.deployment.name_any());
        if self.view.sets.iter().any(|set| set.name_any() == name) {
            self.conditions.collisions = Some(collisions.unwrap_or(0) + 1);
            return false;
        }
        self.create_new(name, hash);
        false
    }

    fn create_new(&mut self, name: String, hash: String) {
        let size = self.allowed_size(0);
        let revision = self.next_revision();
        if let Some(failure) = self.view.pending.failure.clone() {
            self.conditions.create_failed(self.spec, &name, &failure);
            let message = format!("Failed to create new replica set {name:?}: {failure}");
            self.plan.event(
                self.deployment.object_ref(&()),
                Severity::Warning,
                "ReplicaSetCreateError",
                message,
            );
            let status = super::status::calculate(self);
            let old = self.deployment.status.clone().unwrap_or_default();
            // Before the next attempt, since a failure drops the rest of the plan.
            self.plan.status(Target::of(self.deployment), &old, &status, "status");
        }
        let object = self.new_set(&name, &hash, size, revision);
        self.plan.push(create(object, format!("no ReplicaSet has the template; revision {revision}")));
        if size > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {size}");
            self.plan.event(self.deployment.object_ref(&()), Severity::Normal, "ScalingReplicaSet", message);
        }
        self.note_revision(revision);
        if self.view.pending.failure.is_none() {
            self.conditions.created_new(self.spec, &name);
        }
    }

    fn new_set(&self, name: &str, hash: &str, size: i32, revision: i64) -> ReplicaSet {
        let mut template = self.spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(TEMPLATE_HASH.to_owned(), hash.to_owned());
        let labels = labels.clone();
        let mut selector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.to_owned());
        let mut annotations: BTreeMap<String, String> = self.inherited_annotations();
        annotations.extend(size_notes(&self.limits));
        annotations.insert(REVISION.to_owned(), revision.to_string());
        ReplicaSet {
            metadata: ObjectMeta {
                namespace: self.deployment.namespace(),
                name: Some(name.to_owned()),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: Some(vec![owner::controller_reference(self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: ReplicaSetSpec {
                replicas: Some(size),
                min_ready_seconds: self.spec.min_ready_seconds,
                selector,
                template: Some(template),
            },
            status: None,
        }
    }

    /// One more than any other ReplicaSet has.
    fn next_revision(&self) -> i64 {
        self.old.iter().map(|set: &Sized| of(&set.set)).max().unwrap_or(0) + 1
    }

    fn note_revision(&mut self, revision: i64) {
        let revision = revision.to_string();
        if self.deployment.annotations().get(REVISION) != Some(&revision) {
            let patch = json!({"metadata": {"annotations": {REVISION: revision}}});
            self.plan.patch(
                Target::of(self.deployment).in_any_state(),
                Part::Whole,
                patch,
                "the revision of its template",
            );
        }
    }

    fn inherited_annotations(&self) -> BTreeMap<String, String> {
        let inherited = |name: &&String| !NOT_INHERITED.contains(&name.as_str());
        self.deployment
            .annotations()
            .iter()
            .filter(|(name, _)| inherited(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// What `set` lacks of the Deployment's annotations, revision and minReadySeconds; null if nothing.
    fn inherited(&self, set: &Arc<ReplicaSet>, revision: i64) -> Value {
        let mut annotations = self.inherited_annotations();
        annotations.retain(|name, value| set.annotations().get(name) != Some(value));
        if of(set) < revision {
            annotations.insert(REVISION.to_owned(), revision.to_string());
            annotations.extend(revision_history(set));
        }
        let min_ready = self.spec.min_ready_seconds;
        let mut patch = json!({});
        if !annotations.is_empty() {
            patch["metadata"] = json!({"annotations": annotations});
        }
        if set.spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0) {
            patch["spec"] = json!({"minReadySeconds": min_ready.unwrap_or(0)});
        }
        if patch.as_object().is_some_and(|fields| fields.is_empty()) { Value::Null } else { patch }
    }
}

/// The earlier revisions of `set`, with the one that it is about to leave.
fn revision_history(set: &ReplicaSet) -> Option<(String, String)> {
    let left = set.annotations().get(REVISION)?;
    let history = match set.annotations().get(REVISION_HISTORY) {
        Some(earlier) if !earlier.is_empty() => format!("{earlier},{left}"),
        _ => left.clone(),
    };
    Some((REVISION_HISTORY.to_owned(), history))
}
