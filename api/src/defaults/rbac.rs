//! Defaults of role bindings.

use serde_json::Value;

use super::fields::{Defaults, text};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn binding(binding: &mut Value) {
    binding.within("roleRef", |role| role.text("apiGroup", GROUP));
    binding.each("subjects", |subject| {
        if matches!(text(subject, "kind"), "User" | "Group") {
            subject.text("apiGroup", GROUP);
        }
    });
}
