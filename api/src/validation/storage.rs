//! Rules for volumes, claims and storage classes.

use serde_json::Value;

use super::field::{Errors, Field, label_selector};
use crate::name;
use crate::quantity::Quantity;

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// Fields of a volume's spec that aren't its source.
const NOT_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];
const CLAIM_LOCKED: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

/// The spec of a PersistentVolume.
pub(super) fn volume(spec: &Field<'_>) -> Errors {
    let mut errors = access_modes(&spec.get("accessModes"));
    let capacity = spec.get("capacity");
    match capacity.get("storage") {
        _ if capacity.is_empty() => errors.push(capacity.required("")),
        storage if !storage.exists() => errors.push(crate::status::FieldError::not_supported(
            &capacity.path,
            capacity.value.clone(),
            &["storage"],
        )),
        storage => {
            errors.extend(positive(&Field::new(&format!("{}[storage]", capacity.path), storage.value)))
        }
    }
    let sources = sources(spec.value);
    match sources.len() {
        0 => errors.push(spec.required("must specify a volume type")),
        1 => {}
        _ => errors.push(spec.get(sources[1]).forbidden("may not specify more than 1 volume type")),
    }
    let policy = spec.get("persistentVolumeReclaimPolicy");
    errors.extend(policy.one_of(&["Delete", "Recycle", "Retain"]));
    if spec.at("hostPath.path").text() == "/" && policy.text() == "Recycle" {
        errors.push(policy.forbidden("may not be 'recycle' for a hostPath mount of '/'"));
    }
    let path = spec.at("hostPath.path");
    if spec.get("hostPath").exists() && (path.is_empty() || path.text().split('/').any(|part| part == "..")) {
        errors.push(if path.is_empty() { path.required("") } else { path.invalid("must not contain '..'") });
    }
    errors.extend(spec.get("storageClassName").checked(name::dns1123_subdomain));
    errors.extend(spec.get("volumeMode").one_of(&["Block", "Filesystem"]));
    errors
}

fn sources(spec: &Value) -> Vec<&str> {
    let fields = spec.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    fields.filter(|name| !NOT_SOURCES.contains(name)).collect()
}

/// What a volume is can't change.
pub(super) fn volume_update(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let mut errors = Errors::new();
    let differs = |name: &&str| spec.get(name).value != before.get(name).value;
    if sources(spec.value) != sources(before.value) || sources(spec.value).iter().any(differs) {
        errors.push(spec.forbidden("spec.persistentvolumesource is immutable after creation"));
    }
    errors.extend(super::field::same(&spec.get("volumeMode"), &before.get("volumeMode")));
    if before.get("nodeAffinity").exists() {
        errors.extend(super::field::same(&spec.get("nodeAffinity"), &before.get("nodeAffinity")));
    }
    errors
}

/// The spec of a PersistentVolumeClaim.
pub(super) fn claim(spec: &Field<'_>) -> Errors {
    let mut errors = access_modes(&spec.get("accessModes"));
    errors.extend(label_selector(&spec.get("selector")));
    let storage = spec.at("resources.requests").get("storage");
    let place = Field::new("spec.resources[storage]", storage.value);
    match storage.exists() {
        true => errors.extend(positive(&place)),
        false => errors.push(place.required("")),
    }
    errors.extend(spec.get("storageClassName").checked(name::dns1123_subdomain));
    errors.extend(spec.get("volumeMode").one_of(&["Block", "Filesystem"]));
    let source = spec.get("dataSource");
    if source.exists() {
        errors.extend(source.get("kind").present());
        errors.extend(source.get("name").present());
    }
    errors
}

/// A claim asks once; a bound one may ask for more room.
pub(super) fn claim_update(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let mut allowed = before.value.clone();
    // The binder fills these in, once.
    for field in ["volumeName", "storageClassName"] {
        if !before.get(field).exists() && spec.get(field).exists() {
            allowed[field] = spec.get(field).value.clone();
        }
    }
    let bound = old.at("status.phase").text() == "Bound";
    if bound {
        set(&mut allowed, "volumeAttributesClassName", &spec.get("volumeAttributesClassName"));
        if let (Some(resources), true) =
            (allowed.get_mut("resources"), spec.at("resources.requests").exists())
        {
            set(resources, "requests", &spec.at("resources.requests"));
        }
    }
    let mut errors = Errors::new();
    if allowed != *spec.value {
        errors.push(spec.forbidden(CLAIM_LOCKED));
    }
    let asked = spec.at("resources.requests.storage");
    let had = amount(before.at("resources.requests.storage").value);
    if bound
        && amount(asked.value) < had
        && amount(asked.value) < amount(old.at("status.capacity.storage").value)
    {
        errors.push(asked.forbidden("field can not be less than status.capacity"));
    }
    errors
}

fn set(map: &mut Value, name: &str, field: &Field<'_>) {
    let Some(map) = map.as_object_mut() else { return };
    match field.exists() {
        true => map.insert(name.into(), field.value.clone()),
        false => map.remove(name),
    };
}

/// A StorageClass.
pub(super) fn class(root: &Field<'_>) -> Errors {
    let mut errors = root.get("provisioner").present();
    errors.extend(root.get("reclaimPolicy").one_of(&["Delete", "Retain"]));
    errors.extend(root.get("volumeBindingMode").one_of(&["Immediate", "WaitForFirstConsumer"]));
    errors
}

/// Volumes were made by it: only who may use it and whether they grow may change.
pub(super) fn class_update(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for field in ["parameters", "provisioner"] {
        if new.get(field).value != old.get(field).value {
            errors.push(new.get(field).forbidden(&format!("updates to {field} are forbidden.")));
        }
    }
    errors.extend(super::field::same(&new.get("reclaimPolicy"), &old.get("reclaimPolicy")));
    errors.extend(super::field::same(&new.get("volumeBindingMode"), &old.get("volumeBindingMode")));
    errors
}

fn access_modes(modes: &Field<'_>) -> Errors {
    if modes.is_empty() {
        return vec![modes.required("at least 1 access mode is required")];
    }
    let mut errors: Errors = modes.items().flat_map(|mode| mode.one_of(&ACCESS_MODES)).collect();
    let once = modes.items().any(|mode| mode.text() == "ReadWriteOncePod");
    if once && modes.items().count() > 1 {
        errors.push(modes.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
    errors
}

fn positive(quantity: &Field<'_>) -> Errors {
    match amount(quantity.value) {
        Some(amount) if amount > 0 => Errors::new(),
        _ => vec![quantity.invalid("must be greater than zero")],
    }
}

fn amount(value: &Value) -> Option<i128> {
    Quantity::parse(value.as_str()?).ok().map(|quantity| quantity.as_milli())
}
