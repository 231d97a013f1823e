//! Controller references: whose an object is, and how it is adopted or released.
//!
//! What always holds: an object has at most one controlling owner; nothing is adopted by an owner that is
//! being deleted, nor while the object itself is; an adoption is preceded by a look at the server that
//! confirms the owner, because a stale owner of the same name must not take objects over.

use crate::plan::{Action, Part, Plan, Presence, Target};
use api::selector::LabelSelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use serde_json::json;
use std::sync::Arc;

/// Both bounds of what an owner and the objects it claims are.
pub trait Owned: Resource<DynamicType = ()> {}
impl<K: Resource<DynamicType = ()>> Owned for K {}

/// The reference that makes `owner` the controller; deleting it in the foreground waits for the object.
pub fn controller_reference<K: Owned>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The controlling owner of `object`.
pub fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    let references = object.meta().owner_references.iter().flatten();
    references.into_iter().find(|reference| reference.controller == Some(true))
}

/// True if `owner` controls `object`.
pub fn controls<O: Owned, K: Resource>(owner: &O, object: &K) -> bool {
    controller_of(object).is_some_and(|reference| Some(reference.uid.as_str()) == owner.meta().uid.as_deref())
}

/// The objects of `owner`: those it controls and its selector matches, and orphans that it adopts by the
/// same plan. Objects that it controls but no longer matches are released.
pub fn claim<O: Owned, K: Owned>(
    owner: &O,
    selector: &LabelSelector,
    candidates: &[Arc<K>],
    plan: &mut Plan,
) -> Vec<Arc<K>> {
    claim_holding(owner, selector, candidates, None, plan)
}

/// The same, where the owner holds its objects with a finalizer: adopted ones get it, released ones lose it.
pub fn claim_holding<O: Owned, K: Owned>(
    owner: &O,
    selector: &LabelSelector,
    candidates: &[Arc<K>],
    finalizer: Option<&str>,
    plan: &mut Plan,
) -> Vec<Arc<K>> {
    let owner_lives = owner.meta().deletion_timestamp.is_none();
    let mut claimed = Vec::new();
    let mut adoptions = Vec::new();
    for object in candidates {
        let matches = selector.matches(object.labels());
        match controller_of(&**object) {
            Some(_) if controls(owner, &**object) && matches => claimed.push(object.clone()),
            Some(_) if controls(owner, &**object) && owner_lives => {
                release(owner, &**object, finalizer, plan);
            }
            None if matches && owner_lives && object.meta().deletion_timestamp.is_none() => {
                adoptions.push(adoption(owner, &**object, finalizer));
                claimed.push(object.clone());
            }
            _ => {}
        }
    }
    if !adoptions.is_empty() {
        plan.push(Action::Confirm {
            target: Target::of(owner).in_any_state(),
            expected: Presence::Alive,
            reason: "an owner of an old view must not adopt".to_owned(),
        });
        plan.actions.extend(adoptions);
    }
    claimed
}

fn adoption<O: Owned, K: Owned>(owner: &O, object: &K, finalizer: Option<&str>) -> Action {
    let mut references = object.owner_references().to_vec();
    references.push(controller_reference(owner));
    let mut patch = json!({"metadata": {"ownerReferences": references}});
    if let Some(finalizer) = finalizer.filter(|finalizer| !holds(object, finalizer)) {
        let held: Vec<&str> = object.finalizers().iter().map(String::as_str).chain([finalizer]).collect();
        patch["metadata"]["finalizers"] = json!(held);
    }
    Action::Patch {
        target: Target::of(object),
        part: Part::Whole,
        patch,
        reason: format!("adopt: it matches the selector of {} and has no controller", owner.name_any()),
    }
}

fn holds<K: Owned>(object: &K, finalizer: &str) -> bool {
    object.finalizers().iter().any(|name| name == finalizer)
}

fn release<O: Owned, K: Owned>(owner: &O, object: &K, finalizer: Option<&str>, plan: &mut Plan) {
    if object.meta().deletion_timestamp.is_some() {
        return;
    }
    let uid = owner.meta().uid.as_deref();
    let left: Vec<&OwnerReference> =
        object.owner_references().iter().filter(|reference| Some(reference.uid.as_str()) != uid).collect();
    let reason = format!("release: it no longer matches the selector of {}", owner.name_any());
    let mut patch = json!({"metadata": {"ownerReferences": left}});
    if let Some(finalizer) = finalizer.filter(|finalizer| holds(object, finalizer)) {
        let held: Vec<&String> = object.finalizers().iter().filter(|name| *name != finalizer).collect();
        patch["metadata"]["finalizers"] = json!(held);
    }
    plan.patch(Target::of(object), Part::Whole, patch, reason);
}
