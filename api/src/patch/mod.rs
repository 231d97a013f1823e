//! Patches: JSON patch (RFC 6902), merge patch (RFC 7386) and Kubernetes' strategic merge patch.

mod order;
mod strategic;

use serde_json::Value;

use crate::status::{FieldError, Status};

pub use strategic::strategic_merge;

/// Most operations in one JSON patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// Most bytes that the copies of one JSON patch may add, as in upstream.
pub const MAX_COPIED_BYTES: usize = 3 << 20;
/// Deepest nesting of what a JSON patch makes: an object that is deeper than a parser goes could never be read again.
const MAX_DEPTH: usize = 100;

/// Why a patch can't be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed.
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// The patch has too many operations.
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooLarge(usize),
    /// An operation doesn't fit the object.
    #[error("the server rejected our request due to an error in our request: {0}")]
    Rejected(String),
    /// A `test` of the patch failed.
    #[error("the server rejected our request due to an error in our request: {0}")]
    TestFailed(String),
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
            PatchError::Rejected(why) | PatchError::TestFailed(why) => {
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
    let (mut result, mut copied) = (current.clone(), 0);
    for (index, operation) in patch.0.iter().enumerate() {
        copied += copied_bytes(&result, operation);
        if copied > MAX_COPIED_BYTES {
            return Err(PatchError::Rejected(format!(
                "unable to complete the copy at operation {index}: the patch copies {copied} bytes, exceeding the \
                 limit {MAX_COPIED_BYTES}"
            )));
        }
        if expects_absence(&result, operation) {
            continue;
        }
        // Without the undoing of `json_patch::patch`, which can panic: on an error the half-patched clone is dropped.
        json_patch::patch_unsafe(&mut result, std::slice::from_ref(operation)).map_err(|mut error| {
            error.operation = index;
            match error.kind {
                json_patch::PatchErrorKind::TestFailed => PatchError::TestFailed(error.to_string()),
                _ => PatchError::Rejected(error.to_string()),
            }
        })?;
    }
    if is_deeper(&result, MAX_DEPTH) {
        return Err(PatchError::Rejected(format!("the result is nested more than {MAX_DEPTH} deep")));
    }
    Ok(result)
}

/// A test for null holds where there is nothing, as upstream's library has it: clients that add a first
/// finalizer ask so.
fn expects_absence(object: &Value, operation: &json_patch::PatchOperation) -> bool {
    match operation {
        json_patch::PatchOperation::Test(test) => {
            let path = test.path.as_str();
            let is_there = |path| object.pointer(path).is_some();
            let parent = path.rsplit_once('/').map(|(parent, _)| parent);
            test.value.is_null() && !is_there(path) && parent.is_some_and(is_there)
        }
        _ => false,
    }
}

/// What a copy adds; copies of copies could double an object with each operation.
fn copied_bytes(object: &Value, operation: &json_patch::PatchOperation) -> usize {
    match operation {
        json_patch::PatchOperation::Copy(copy) => {
            object.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len())
        }
        _ => 0,
    }
}

fn is_deeper(value: &Value, limit: usize) -> bool {
    let Some(limit) = limit.checked_sub(1) else { return true };
    match value {
        Value::Array(items) => items.iter().any(|item| is_deeper(item, limit)),
        Value::Object(fields) => fields.values().any(|field| is_deeper(field, limit)),
        _ => false,
    }
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
    fn a_test_for_null_holds_where_there_is_nothing() {
        let object = json!({"metadata": {"name": "a"}});
        let first = json!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["a.dev/f"]},
        ]);
        let patched = json_patch(&object, &first).expect("there was none");
        assert_eq!(patched["metadata"]["finalizers"], json!(["a.dev/f"]));
        assert!(matches!(json_patch(&patched, &first), Err(PatchError::TestFailed(_))), "there is one now");
        let elsewhere = json!([{"op": "test", "path": "/none/finalizers", "value": null}]);
        assert!(json_patch(&object, &elsewhere).is_err(), "nor is there anything above it");
    }

    #[test]
    fn a_patch_that_fails_half_way_is_only_refused() {
        let object = json!({"data": {"k": "v"}});
        let patch = json!([
            {"op": "add", "path": "/data/x", "value": "y"},
            {"op": "move", "from": "/data", "path": "/z"},
            {"op": "test", "path": "/data/k", "value": "v"},
        ]);
        assert!(
            matches!(json_patch(&object, &patch), Err(PatchError::Rejected(why)) if why.contains("'/2'"))
        );
    }

    #[test]
    fn copies_of_copies_have_a_limit_and_so_has_depth() {
        let double = json!({"op": "copy", "from": "/a", "path": "/a/-"});
        let patch = Value::Array(vec![double; 60]);
        let refused = json_patch(&json!({"a": ["x".repeat(1000)]}), &patch).expect_err("2^60 kilobytes");
        assert!(refused.to_string().contains("exceeding the limit"), "{refused}");
        let mut patch = vec![json!({"op": "add", "path": "/a", "value": {"a": {}}})];
        patch.extend((1..90).map(|depth| {
            let path = "/a".repeat(depth + 1);
            json!({"op": "add", "path": path, "value": {"a": {"a": {}}}})
        }));
        patch.push(json!({"op": "copy", "from": "/a", "path": "/a".repeat(60)}));
        let refused = json_patch(&json!({}), &Value::Array(patch)).expect_err("too deep");
        assert!(refused.to_string().contains("nested more than"), "{refused}");
    }

    proptest::proptest! {
        /// Whatever the operations are, the answer is a value or a refusal, and never a panic.
        #[test]
        fn any_operations_are_applied_or_refused(steps in proptest::collection::vec(
            (0usize..6, "(/|/a|/b|/a/0|/a/-|/a/b|/b/c|/a/1/b|)", "(/|/a|/b|/a/0|/a/-|/a/b|/b/c|)"), 0..12)) {
            let operation = |(what, path, from): (usize, String, String)| {
                let op = ["add", "remove", "replace", "move", "copy", "test"][what];
                json!({"op": op, "path": path, "from": from, "value": {"b": [1]}})
            };
            let patch = Value::Array(steps.into_iter().map(operation).collect());
            let _ = json_patch(&json!({"a": [1, {"b": 2}], "b": {"c": 3}}), &patch);
        }
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
