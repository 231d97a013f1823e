//! StorageObjectInUseProtection: a claim is born with a finalizer that holds it as long as a pod uses it. The
//! claim protection controller takes it off.
//!
//! Volumes get none yet: nobody would take it off.

use api::object;
use serde_json::Value;

const FINALIZER: &str = "kubernetes.io/pvc-protection";

/// Keeps a claim while a pod uses it.
pub fn protect_claim(claim: &mut Value) {
    let mut all = object::finalizers(claim);
    if !all.iter().any(|given| given == FINALIZER) {
        all.push(FINALIZER.to_owned());
        object::set_finalizers(claim, &all);
    }
}
