//! ControllerRevisions: the templates that a StatefulSet or DaemonSet had, which is what `kubectl rollout undo`
//! goes back to.
//!
//! What always holds: a revision is named by the hash of its data, so it can't be made twice; its data never
//! changes; a template that returns keeps its revision's name and gets a new number, so a rollback replaces no pod
//! that already fits. Upstream's `pkg/controller/history` gives the rules.

use crate::{
    owner::{self, Owned},
    plan::{Action, Part, Plan, Target, to_value},
};
use api::selector::LabelSelector;
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec};
use kube::{ResourceExt, core::ApiResource};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// Label of pods: which revision they were made from.
pub const POD_REVISION: &str = "controller-revision-hash";

/// One revision as its owner uses it.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// The object's name.
    pub name: String,
    /// The hash in it.
    pub hash: String,
    /// What pods are made from.
    pub template: PodTemplateSpec,
}

/// The revisions of one owner.
pub struct History<'a, O> {
    owner: &'a O,
    /// The label of revisions that holds their hash.
    hash_label: &'static str,
    claimed: Vec<Arc<ControllerRevision>>,
    /// How often the hash has met a foreign revision of its name.
    pub collisions: i32,
}

impl<'a, O: Owned> History<'a, O> {
    /// Claims the owner's revisions among `candidates`.
    pub fn new(
        owner: &'a O,
        selector: &LabelSelector,
        candidates: &[Arc<ControllerRevision>],
        hash_label: &'static str,
        collisions: Option<i32>,
        plan: &mut Plan,
    ) -> History<'a, O> {
        let mut claimed = owner::claim(owner, selector, candidates, plan);
        claimed.sort_by_key(|revision| (number(revision), revision.name_any()));
        History { owner, hash_label, claimed, collisions: collisions.unwrap_or(0) }
    }

    /// The revision of `template`, made or renumbered if need be; it is the newest afterwards.
    pub fn sync(&mut self, template: &PodTemplateSpec, plan: &mut Plan) -> Revision {
        let data = data_of(template);
        let newest = self.claimed.iter().map(|revision| number(revision)).max().unwrap_or(0);
        let equal = self.claimed.iter().rev().find(|revision| same_data(revision, &data)).cloned();
        if let Some(found) = equal {
            if number(&found) < newest {
                let patch = json!({"revision": newest + 1});
                plan.patch(Target::of(&*found), Part::Whole, patch, "its template is the current one again");
            }
            return self.revision(&found, template.clone());
        }
        self.create(template, &data, newest + 1, plan)
    }

    fn create(&mut self, template: &PodTemplateSpec, data: &Value, number: i64, plan: &mut Plan) -> Revision {
        let (mut hash, mut name);
        loop {
            let collisions = (self.collisions > 0).then_some(i64::from(self.collisions));
            hash = api::hash::template_hash(data, collisions);
            name = format!("{}-{hash}", self.owner.name_any());
            if !self.claimed.iter().any(|revision| revision.name_any() == name) {
                break;
            }
            self.collisions += 1;
        }
        let mut labels =
            template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
        labels.insert(self.hash_label.to_owned(), hash.clone());
        plan.push(Action::Create {
            kind: ApiResource::erase::<ControllerRevision>(&()),
            object: json!({
                "apiVersion": "apps/v1",
                "kind": "ControllerRevision",
                "metadata": {
                    "namespace": self.owner.namespace(),
                    "name": name,
                    "labels": labels,
                    "annotations": self.owner.annotations(),
                    "ownerReferences": [owner::controller_reference(self.owner)],
                },
                "data": data,
                "revision": number,
            }),
            announce: None,
            reason: format!("revision {number} of the template"),
        });
        Revision { name, hash, template: template.clone() }
    }

    /// The revision of this name, if it exists and can be read.
    pub fn named(&self, name: &str) -> Option<Revision> {
        let found = self.claimed.iter().find(|revision| revision.name_any() == name)?;
        let mut template = found.data.0.pointer("/spec/template")?.clone();
        template.as_object_mut()?.remove("$patch");
        Some(self.revision(found, serde_json::from_value(template).ok()?))
    }

    fn revision(&self, found: &ControllerRevision, template: PodTemplateSpec) -> Revision {
        let prefix = format!("{}-", self.owner.name_any());
        let name = found.name_any();
        let hash = found.labels().get(self.hash_label).cloned();
        let hash = hash.unwrap_or_else(|| name.strip_prefix(&prefix).unwrap_or(&name).to_owned());
        Revision { name, hash, template }
    }

    /// Deletes revisions beyond `limit` that neither a pod nor the owner's status needs, oldest first.
    pub fn truncate(&self, needed: &BTreeSet<String>, limit: i32, plan: &mut Plan) {
        let is_needed = |revision: &ControllerRevision| {
            let hash = revision.labels().get(self.hash_label);
            needed.contains(&revision.name_any()) || hash.is_some_and(|hash| needed.contains(hash))
        };
        let spare: Vec<_> = self.claimed.iter().filter(|revision| !is_needed(revision)).collect();
        let surplus = spare.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for revision in spare.into_iter().take(surplus) {
            plan.delete(Target::of(&**revision), format!("older than the last {limit} that nothing runs"));
        }
    }
}

fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or(0)
}

/// A strategic merge patch that brings the template back, as upstream keeps it and kubectl applies it.
fn data_of(template: &PodTemplateSpec) -> Value {
    let mut template = to_value(template);
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

fn same_data(revision: &ControllerRevision, data: &Value) -> bool {
    revision.data.0 == *data
}
