//! What may differ between kinds beyond their row: a few answers and two hooks.
//!
//! Defaults and validation are not here; they belong to the `api` crate, which clients share.

use serde_json::Value;

/// What is special about a kind.
pub trait Strategy: Send + Sync {
    /// The plain answers.
    fn traits(&self) -> Traits;

    /// Sets what the server owns in a new object, before defaults and admission.
    fn prepare_create(&self, _object: &mut Value) {}

    /// Sets what the server derives from a new object once it is complete, before validation.
    fn finish_create(&self, _object: &mut Value) {}

    /// Keeps what an update may not touch, before defaults and admission.
    fn prepare_update(&self, _object: &mut Value, _old: &Value) {}

    /// Seconds between the wish to delete `object` and its end, given what the caller asked for.
    fn grace_seconds(&self, _object: &Value, _asked: Option<i64>) -> i64 {
        0
    }

    /// What to change in an object whose deletion begins and isn't immediate.
    fn begin_delete(&self, _object: &mut Value) {}

    /// Whether a change is one that `metadata.generation` counts, if the kind has one.
    fn is_another_generation(&self, object: &Value, old: &Value) -> bool {
        object["spec"] != old["spec"]
    }

    /// Whether something besides `metadata.finalizers` keeps a deleted object.
    fn holds_deletion(&self, _object: &Value) -> bool {
        false
    }
}

/// Answers that need no code.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// An update of a missing object creates it.
    pub creates_on_update: bool,
    /// An update without resourceVersion overwrites whatever is there; otherwise it is refused.
    pub unconditional_update: bool,
    /// A deletion answers with the object, not with a Status.
    pub delete_returns_object: bool,
    /// `metadata.generation` counts changes of `spec`.
    pub has_generation: bool,
    /// Objects end by themselves after the configured time to live of events.
    pub expires: bool,
    /// What it is served by if nothing is stored.
    pub review: Option<Review>,
}

impl Traits {
    /// What holds for most kinds.
    pub const ORDINARY: Self = Self {
        creates_on_update: false,
        unconditional_update: true,
        delete_returns_object: false,
        has_generation: false,
        expires: false,
        review: None,
    };
    /// An update of a missing object creates it.
    pub const CREATES_ON_UPDATE: Self = Self { creates_on_update: true, ..Self::ORDINARY };
    /// Its generation counts changes of the spec.
    pub const COUNTED: Self = Self { has_generation: true, ..Self::ORDINARY };
    /// A deletion answers with the object.
    pub const RETURNS_OBJECT: Self = Self { delete_returns_object: true, ..Self::ORDINARY };
    /// Both of these.
    pub const COUNTED_OBJECT: Self = Self { has_generation: true, ..Self::RETURNS_OBJECT };
}

/// Kinds that are asked, not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    /// May the caller do this?
    SelfSubjectAccess,
    /// May somebody do this?
    SubjectAccess,
    /// May somebody do this in one namespace?
    LocalSubjectAccess,
    /// What may the caller do?
    SelfSubjectRules,
    /// Who am I?
    SelfSubject,
    /// Whose token is this?
    Token,
}
