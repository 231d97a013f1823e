//! Which objects are allowed, per kind.

use serde_json::Value;

use crate::status::FieldError;

/// Validates a defaulted object that is to be created.
pub fn validate_create(group: &str, kind: &str, object: &Value) -> Vec<FieldError> {
    let _ = (group, kind, object);
    Vec::new()
}

/// Validates a defaulted object that replaces `old`.
pub fn validate_update(group: &str, kind: &str, object: &Value, old: &Value) -> Vec<FieldError> {
    let _ = (group, kind, object, old);
    Vec::new()
}

/// Validates an object whose status replaces that of `old`.
pub fn validate_status_update(group: &str, kind: &str, object: &Value, old: &Value) -> Vec<FieldError> {
    let _ = (group, kind, object, old);
    Vec::new()
}
