//! A finalizer that holds an object as long as it is used: put on while it lives, taken off once it is being
//! deleted and nobody uses it any more.

use crate::{
    owner::Owned,
    plan::{Part, Plan, Target},
};
use kube::ResourceExt;
use serde_json::json;

/// What to do for `object`; `is_used` is asked only when it matters.
pub fn reconcile<K: Owned>(
    object: &K,
    finalizer: &str,
    used: [&str; 2],
    is_used: impl FnOnce() -> bool,
) -> Plan {
    let mut plan = Plan::nothing();
    let [while_used, once_free] = used;
    let held = object.finalizers().iter().any(|name| name == finalizer);
    let ends = object.meta().deletion_timestamp.is_some();
    let (finalizers, reason): (Vec<&str>, _) = if ends && held && !is_used() {
        let left = object.finalizers().iter().filter(|name| *name != finalizer);
        (left.map(String::as_str).collect(), once_free)
    } else if !ends && !held {
        (object.finalizers().iter().map(String::as_str).chain([finalizer]).collect(), while_used)
    } else {
        return plan;
    };
    plan.patch(Target::of(object), Part::Whole, json!({"metadata": {"finalizers": finalizers}}), reason);
    plan
}
