//! What the API server's answers mean for a plan.

use super::End;
use crate::expectations::Written;
use client::informer::ObjectKey;
use kube::{
    api::DynamicObject,
    core::{ApiResource, Status},
};

/// An object as it is now.
pub(super) fn written_of(kind: &ApiResource, object: &DynamicObject) -> Written {
    let metadata = &object.metadata;
    let version = metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
    Written {
        plural: kind.plural.clone(),
        key: ObjectKey::new(
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        ),
        uid: metadata.uid.clone().unwrap_or_default(),
        // Without a comparable version only the object's own arrival ends the wait.
        version: version.unwrap_or(u64::MAX),
    }
}

/// How a plan ends whose create was refused.
pub(super) fn end_of_create(error: &kube::Error) -> End {
    match error {
        kube::Error::Api(status) if names_cause(status, "NamespaceTerminating") => End::NamespaceEnds,
        // A namespace that isn't there (any more) refuses the object, it doesn't make the view old.
        kube::Error::Api(status) if status.code == 404 => End::Refused(status.message.clone()),
        error => end_of(error),
    }
}

fn names_cause(status: &Status, reason: &str) -> bool {
    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == reason)
}

/// How a plan ends of which another request was refused.
pub(super) fn end_of(error: &kube::Error) -> End {
    match error {
        kube::Error::Api(status) => match status.code {
            404 | 409 | 410 => End::Conflict(status.message.clone()),
            400..=499 if status.code != 429 => End::Refused(status.message.clone()),
            _ => End::Failed(status.message.clone()),
        },
        error => End::Failed(error.to_string()),
    }
}
