//! Kubernetes' strategic merge patch.

use serde_json::Value;

use super::PatchError;
use crate::schema::Schema;

/// Applies a strategic merge patch. Errors: [`PatchError`].
pub fn strategic_merge(current: &Value, patch: &Value, schema: &Schema) -> Result<Value, PatchError> {
    let _ = (current, patch, schema);
    Err(PatchError::Strategic("not written yet".into()))
}
