//! What admission notes about a request for the audit log.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Notes by their keys, such as `pod-security.kubernetes.io/enforce-policy`.
#[derive(Debug, Default)]
pub struct Annotations(Mutex<BTreeMap<String, String>>);

impl Annotations {
    /// Notes something. What was noted first under a key stays.
    pub fn add(&self, key: impl Into<String>, value: impl Into<String>) {
        self.0.lock().entry(key.into()).or_insert_with(|| value.into());
    }

    /// All notes.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.0.lock().clone()
    }
}
