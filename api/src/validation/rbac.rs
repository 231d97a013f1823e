//! Rules for roles and bindings.

use super::field::{Errors, Field};
use crate::name;
use crate::status::FieldError;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The rules of a role; only cluster roles may grant paths.
pub(super) fn role(root: &Field<'_>, namespaced: bool) -> Errors {
    root.get("rules").items().flat_map(|rule| self::rule(&rule, namespaced)).collect()
}

fn rule(rule: &Field<'_>, namespaced: bool) -> Errors {
    let [verbs, groups, resources, names, paths] =
        ["verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs"].map(|name| rule.get(name));
    let mut errors = Errors::new();
    if verbs.is_empty() {
        errors.push(verbs.required("verbs must contain at least one value"));
    }
    if !paths.is_empty() {
        if namespaced {
            errors.push(paths.invalid("namespaced rules cannot apply to non-resource URLs"));
        }
        if !(groups.is_empty() && resources.is_empty() && names.is_empty()) {
            errors.push(paths.invalid("rules cannot apply to both regular resources and non-resource URLs"));
        }
        return errors;
    }
    if groups.is_empty() {
        errors.push(groups.required("resource rules must supply at least one api group"));
    }
    if resources.is_empty() {
        errors.push(resources.required("resource rules must supply at least one resource"));
    }
    errors
}

/// A binding: to which role, for whom.
pub(super) fn binding(root: &Field<'_>, kinds: &[&str]) -> Errors {
    let role = root.get("roleRef");
    let mut errors = Errors::new();
    if role.get("apiGroup").text() != GROUP {
        errors.push(FieldError::not_supported("roleRef.apiGroup", role.get("apiGroup").text(), &[GROUP]));
    }
    if !kinds.contains(&role.get("kind").text()) {
        errors.push(FieldError::not_supported("roleRef.kind", role.get("kind").text(), kinds));
    }
    errors.extend(role.get("name").named(name::path_segment));
    let namespaced = kinds.len() > 1;
    errors.extend(root.get("subjects").items().flat_map(|each| subject(&each, namespaced)));
    errors
}

fn subject(subject: &Field<'_>, namespaced: bool) -> Errors {
    let (kind, group, namespace) = (subject.get("kind"), subject.get("apiGroup"), subject.get("namespace"));
    let mut errors = subject.get("name").present();
    match kind.text() {
        "ServiceAccount" => {
            errors.extend(subject.get("name").checked(name::dns1123_subdomain));
            if !group.is_empty() {
                errors.push(FieldError::not_supported(&group.path, group.text(), &[""]));
            }
            if !namespaced && namespace.is_empty() {
                errors.push(namespace.required(""));
            }
        }
        "User" | "Group" if group.text() != GROUP => {
            errors.push(FieldError::not_supported(&group.path, group.text(), &[GROUP]));
        }
        "User" | "Group" => {}
        text => {
            errors.push(FieldError::not_supported(&kind.path, text, &["Group", "ServiceAccount", "User"]))
        }
    }
    errors
}

/// What a binding grants can't change: delete it and make another.
pub(super) fn binding_update(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let role = new.get("roleRef");
    match role.value == old.get("roleRef").value {
        true => Errors::new(),
        false => vec![role.invalid("cannot change roleRef")],
    }
}
