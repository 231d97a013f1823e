//! Patches: JSON patch (RFC 6902), merge patch (RFC 7386) and Kubernetes' strategic merge patch.

mod order;
mod strategic;

use serde_json::Value;

use crate::status::{FieldError, Status};

pub use strategic::strategic_merge;

/// Most operations in one JSON patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// Why a patch can't be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed.
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// The patch has too many operations.
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooLarge(usize),
    /// An operation doesn't fit the object, or a `test` failed.
    #[error("the server rejected our request due to an error in our request: {0}")]
    Rejected(String),
    /// A strategic merge patch doesn't fit the schema or contradicts itself.
    #[error("{0}")]
    Strategic(String),
}

impl PatchError {
    /// The answer to the client.
    pub fn to_status(&self) -> Status {
        match self {
            PatchError::Malformed(_) | PatchError::Strategic(_) => Status::bad_request(self.to_string()),
            PatchError::TooLarge(_) => {
                Status::request_too_large(MAX_OPERATIONS).with_message(self.to_string())
            }
            PatchError::Rejected(why) => {
                Status::invalid("", "", "", vec![FieldError::invalid("patch", why.as_str(), "")])
                    .with_message(self.to_string())
            }
        }
    }
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Status {
        error.to_status()
    }
}

/// Applies an RFC 6902 patch. Nothing is changed on error. Errors: [`PatchError`].
pub fn json_patch(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations = patch.as_array().map_or(0, Vec::len);
    if operations > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(operations));
    }
    let patch: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| PatchError::Malformed(error.to_string()))?;
    let mut result = current.clone();
    json_patch::patch(&mut result, &patch).map_err(|error| PatchError::Rejected(error.to_string()))?;
    Ok(result)
}

/// Applies an RFC 7386 patch.
pub fn merge_patch(current: &Value, patch: &Value) -> Value {
    let mut result = current.clone();
    json_patch::merge(&mut result, patch);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_patches_apply_as_a_whole_or_not_at_all() {
        let object = json!({"spec": {"replicas": 1, "paused": true}});
        let patch = json!([
            {"op": "test", "path": "/spec/replicas", "value": 1},
            {"op": "replace", "path": "/spec/replicas", "value": 3},
            {"op": "remove", "path": "/spec/paused"},
        ]);
        assert_eq!(json_patch(&object, &patch), Ok(json!({"spec": {"replicas": 3}})));
        let stale = json!([{"op": "remove", "path": "/spec"}, {"op": "test", "path": "/a", "value": 1}]);
        let status = json_patch(&object, &stale).expect_err("the test fails").to_status();
        assert_eq!((status.code(), status.reason), (422, crate::status::Reason::Invalid));
    }

    #[test]
    fn what_is_no_json_patch_is_a_bad_request() {
        for patch in [json!({}), json!([{"op": "explode", "path": "/a"}]), json!([{"op": "add"}])] {
            let status = json_patch(&json!({}), &patch).expect_err("malformed").to_status();
            assert_eq!(status.code(), 400, "{patch}");
        }
        let endless = Value::Array(vec![json!({}); MAX_OPERATIONS + 1]);
        assert_eq!(json_patch(&json!({}), &endless).expect_err("too large").to_status().code(), 413);
    }

    #[test]
    fn merge_patches_delete_by_null_and_replace_lists() {
        let object = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
        let patch = json!({"a": {"b": null, "c": [3]}, "e": {"f": null}});
        assert_eq!(merge_patch(&object, &patch), json!({"a": {"c": [3]}, "d": 1, "e": {}}));
    }
}
