//! What holds for the metadata of every kind.

use serde_json::Value;

use super::field::{Errors, Field, labels, same};
use crate::name::{self, Checked};
use crate::status::FieldError;

/// Most bytes in all annotations of an object.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// The rule for the names of a kind.
pub(super) fn name_rule(group: &str, kind: &str) -> fn(&str) -> Checked {
    match (group, kind) {
        ("", "Namespace") => name::dns1123_label,
        ("", "Service") => name::dns1035_label,
        ("rbac.authorization.k8s.io", _)
        | ("networking.k8s.io", "IPAddress")
        | ("apiregistration.k8s.io", "APIService")
        | ("certificates.k8s.io", "ClusterTrustBundle") => name::path_segment,
        _ => name::dns1123_subdomain,
    }
}

/// Metadata of a new or changed object.
pub(super) fn object_meta(root: &Field<'_>, rule: fn(&str) -> Checked) -> Errors {
    let meta = root.get("metadata");
    let mut errors = names(&meta, rule);
    errors.extend(meta.get("generation").nonnegative());
    errors.extend(labels(&meta.get("labels")));
    errors.extend(annotations(&meta.get("annotations")));
    errors.extend(owners(&meta.get("ownerReferences")));
    errors.extend(finalizers(&meta.get("finalizers")));
    errors
}

fn names(meta: &Field<'_>, rule: fn(&str) -> Checked) -> Errors {
    let (name, prefix) = (meta.get("name"), meta.get("generateName"));
    let mut errors = Errors::new();
    if name.is_empty() && prefix.is_empty() {
        errors.push(name.required("name or generateName is required"));
    }
    // A dash at the end of the prefix is fine: characters follow.
    if let Err(why) = rule(&format!("{}a", prefix.text().trim_end_matches('-'))) {
        errors.push(prefix.invalid(why));
    }
    errors.extend(name.checked(rule));
    errors.extend(meta.get("namespace").checked(name::dns1123_label));
    errors
}

fn annotations(annotations: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    let mut bytes = 0;
    for (key, value) in annotations.entries() {
        bytes += key.len() + value.text().len();
        if let Err(why) = name::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid(&annotations.path, key.as_str(), why));
        }
    }
    if bytes > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(&annotations.path, ANNOTATIONS_MAX));
    }
    errors
}

fn owners(owners: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    let mut controller: Option<String> = None;
    for owner in owners.items() {
        for key in ["apiVersion", "kind", "name", "uid"] {
            let field = owner.get(key);
            if field.is_empty() {
                errors.push(FieldError::invalid(&field.path, "", "must not be empty"));
            }
        }
        if owner.get("controller").flag() {
            let name = owner.get("name").text().to_string();
            if let Some(first) = controller.replace(name.clone()) {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                     and {name}"
                );
                errors.push(owners.invalid(why));
            }
        }
    }
    errors
}

fn finalizers(finalizers: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    let has = |name: &str| finalizers.items().any(|finalizer| finalizer.text() == name);
    for finalizer in finalizers.items() {
        let text = finalizer.text();
        match name::qualified_name(text) {
            Err(why) => errors.push(FieldError::invalid(&finalizers.path, text, why)),
            Ok(())
                if text.contains('/') || matches!(text, "kubernetes" | "orphan" | "foregroundDeletion") => {}
            Ok(()) => {
                let why = "name is neither a standard finalizer name nor is it fully qualified";
                errors.push(finalizer.invalid(why));
            }
        }
    }
    if has("orphan") && has("foregroundDeletion") {
        errors.push(finalizers.invalid("finalizer foregroundDeletion and orphan cannot be both set"));
    }
    errors
}

/// What may not change in metadata.
pub(super) fn object_meta_update(root: &Field<'_>, old: &Field<'_>) -> Errors {
    let (meta, old) = (root.get("metadata"), old.get("metadata"));
    let mut errors = Errors::new();
    let fixed =
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];
    for key in fixed {
        errors.extend(same(&meta.get(key), &old.get(key)));
    }
    let generation = meta.get("generation");
    if generation.int() < old.get("generation").int() {
        errors.push(generation.invalid("must not be decremented"));
    }
    errors.extend(new_finalizers(&meta, &old));
    errors
}

/// Nobody may hold up a deletion that has begun.
fn new_finalizers(meta: &Field<'_>, old: &Field<'_>) -> Errors {
    let (new, old_list) = (meta.get("finalizers"), old.get("finalizers"));
    if !old.get("deletionTimestamp").exists() {
        return Errors::new();
    }
    let known: Vec<&Value> = old_list.items().map(|finalizer| finalizer.value).collect();
    let added: Vec<String> = new
        .items()
        .filter(|finalizer| !known.contains(&finalizer.value))
        .map(|f| format!("{:?}", f.text()))
        .collect();
    match added.is_empty() {
        true => Errors::new(),
        false => {
            let list = added.join(", ");
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
            );
            vec![new.forbidden(&why)]
        }
    }
}
