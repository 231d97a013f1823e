//! Rules for ConfigMaps and Secrets.

use super::field::{Errors, Field};
use crate::name;
use crate::status::FieldError;

/// Most bytes in all values together.
const MAX_BYTES: usize = 1024 * 1024;

/// Keys and size of a ConfigMap.
pub(super) fn config_map(root: &Field<'_>) -> Errors {
    let (data, binary) = (root.get("data"), root.get("binaryData"));
    let mut errors = keys(&data);
    errors.extend(keys(&binary));
    for (key, field) in binary.entries() {
        if data.value.get(key).is_some() {
            errors.push(FieldError::invalid(field.path, key.as_str(), "duplicate of key present in data"));
        }
    }
    let bytes: usize = data.entries().map(|(_, value)| value.text().len()).sum();
    // What upstream writes for the object as a whole.
    errors.extend(too_big("[]", bytes + decoded_bytes(&binary)));
    errors
}

/// Keys, size and the keys that a type of Secret needs.
pub(super) fn secret(root: &Field<'_>) -> Errors {
    let data = root.get("data");
    let mut errors = keys(&data);
    errors.extend(too_big("data", decoded_bytes(&data)));
    for key in needed(root.get("type").text()) {
        if data.value.get(key).is_none() {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    }
    let account = root.at("metadata.annotations").value.get("kubernetes.io/service-account.name");
    if root.get("type").text() == "kubernetes.io/service-account-token" && account.is_none() {
        errors.push(FieldError::required("metadata.annotations[kubernetes.io/service-account.name]", ""));
    }
    errors
}

fn needed(kind: &str) -> &'static [&'static str] {
    match kind {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    }
}

fn keys(data: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for (key, field) in data.entries() {
        if let Err(why) = name::config_key(key) {
            errors.push(FieldError::invalid(field.path, key.as_str(), why));
        }
    }
    errors
}

fn decoded_bytes(data: &Field<'_>) -> usize {
    data.entries().map(|(_, value)| value.text().trim_end_matches('=').len() * 3 / 4).sum()
}

fn too_big(path: &str, bytes: usize) -> Option<FieldError> {
    (bytes > MAX_BYTES).then(|| FieldError::too_long(path, MAX_BYTES))
}

/// With `immutable: true` the data is locked, and the lock as well.
pub(super) fn locked(new: &Field<'_>, old: &Field<'_>, fields: &[&str]) -> Errors {
    if !old.get("immutable").flag() {
        return Errors::new();
    }
    let why = "field is immutable when `immutable` is set";
    let mut errors = Errors::new();
    if !new.get("immutable").flag() {
        errors.push(new.get("immutable").forbidden(why));
    }
    for field in fields {
        if new.get(field).value != old.get(field).value {
            errors.push(new.get(field).forbidden(why));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_data_is_named_as_upstream_names_it() {
        let object = serde_json::json!({"data": {"a": "x".repeat(MAX_BYTES), "b": "y"}});
        let errors: Vec<String> =
            config_map(&Field::root(&object)).iter().map(FieldError::to_string).collect();
        assert_eq!(errors, ["[]: Too long: may not be more than 1048576 bytes"]);
    }
}
