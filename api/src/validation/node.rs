//! Rules for what nodes write: Nodes, Leases, Events.

use super::field::{Errors, Field};
use crate::name;
use crate::status::FieldError;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Taints and addresses of a node.
pub(super) fn node(root: &Field<'_>) -> Errors {
    let taints = root.at("spec.taints");
    let mut errors = Errors::new();
    let mut seen = Vec::new();
    for taint in taints.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        errors.extend(key.named(name::qualified_name));
        errors.extend(value.checked(name::label_value));
        match effect.is_empty() {
            true => errors.push(effect.required("")),
            false => errors.extend(effect.one_of(&EFFECTS)),
        }
        let pair = (key.text(), effect.text());
        if seen.contains(&pair) {
            errors.push(taint.duplicate());
        }
        seen.push(pair);
    }
    errors.extend(root.at("status.addresses").items().flat_map(|address| address.get("address").present()));
    errors
}

/// A node belongs to one provider and keeps its address range.
pub(super) fn update(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for key in ["providerID", "podCIDR"] {
        let (field, before) = (new.get(key), old.get(key));
        if !before.is_empty() && field.value != before.value {
            errors.push(
                field.forbidden(&format!("node updates may not change {key} except from \"\" to valid")),
            );
        }
    }
    errors
}

/// An event lives beside what it is about.
pub(super) fn event(root: &Field<'_>) -> Errors {
    let about = match root.get("involvedObject").exists() {
        true => root.at("involvedObject.namespace"),
        false => root.at("regarding.namespace"),
    };
    let namespace = root.at("metadata.namespace").text();
    // Events about objects of the cluster live in `default`.
    match about.text() == namespace || about.is_empty() && matches!(namespace, "" | "default" | "kube-system")
    {
        true => Errors::new(),
        false => vec![FieldError::invalid(&about.path, about.text(), "does not match event.namespace")],
    }
}

/// A lease lasts for some time.
pub(super) fn lease(spec: &Field<'_>) -> Errors {
    let mut errors = spec.get("leaseDurationSeconds").positive();
    errors.extend(spec.get("leaseTransitions").nonnegative());
    let holder = spec.get("holderIdentity");
    if holder.exists() && holder.is_empty() && spec.get("preferredHolder").exists() {
        errors.push(holder.invalid("must not be empty when preferredHolder is defined"));
    }
    errors
}
