//! The hash of a pod template, which names ReplicaSets and labels their pods.
//!
//! The algorithm is ours (upstream's hashes Go's memory layout); only its alphabet and length are
//! upstream's. It must never change: a changed hash would roll every Deployment.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::name::ALPHABET;

/// The hash of a template: ten characters of the alphabet of generated names.
///
/// `collisions` is the Deployment's `status.collisionCount`: another number gives another hash.
pub fn template_hash(template: &Value, collisions: Option<i64>) -> String {
    let mut hasher = Sha256::new();
    // `Value` keeps its keys sorted, so equal templates have equal bytes.
    hasher.update(template.to_string());
    if let Some(collisions) = collisions {
        hasher.update(collisions.to_be_bytes());
    }
    let digest = hasher.finalize();
    digest.iter().take(10).map(|byte| ALPHABET[usize::from(*byte) % ALPHABET.len()] as char).collect()
}

/// The same over a typed template.
pub fn typed_template_hash(
    template: &crate::k8s::api::core::v1::PodTemplateSpec,
    collisions: Option<i64>,
) -> String {
    let value =
        serde_json::to_value(template).expect("a pod template has string keys and finite numbers only");
    template_hash(&value, collisions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_never_changes() {
        let template = json!({"spec": {"containers": [{"name": "web", "image": "web:1"}]}});
        assert_eq!(template_hash(&template, None), "2s85kjwdhf");
        assert_ne!(template_hash(&template, Some(1)), template_hash(&template, None));
    }
}
