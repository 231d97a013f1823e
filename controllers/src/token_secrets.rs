//! Secrets with a service-account token end with their account: once it is gone, or another one has its name, the
//! token is good for nothing. Upstream's `pkg/controller/serviceaccount/tokens_controller.go` does the same.

use crate::plan::{Action, Plan, Presence, Target};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{ResourceExt, core::ApiResource};
use std::sync::Arc;

/// The type of Secrets that hold a token.
pub const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// The name of the account that a Secret is for, if it is for one.
pub fn account_of(secret: &Secret) -> Option<&str> {
    (secret.type_.as_deref() == Some(TYPE)).then(|| secret.annotations().get(ACCOUNT).map(String::as_str))?
}

/// The uid of that account; empty if any account of the name will do.
fn account_uid(secret: &Secret) -> &str {
    secret.annotations().get(ACCOUNT_UID).map(String::as_str).unwrap_or_default()
}

/// True if the Secret is for this account of the name that it says.
pub fn is_of(secret: &Secret, account: &ServiceAccount) -> bool {
    let uid = account_uid(secret);
    uid.is_empty() || account.uid().as_deref() == Some(uid)
}

/// What to do for `secret`, given the account of the name that it says.
pub fn reconcile(secret: &Secret, account: Option<&Arc<ServiceAccount>>) -> Plan {
    let mut plan = Plan::nothing();
    let Some(name) = account_of(secret) else { return plan };
    if secret.metadata.deletion_timestamp.is_some() || account.is_some_and(|account| is_of(secret, account)) {
        return plan;
    }
    let uid = account_uid(secret);
    let namespace = secret.namespace().unwrap_or_default();
    plan.push(Action::Confirm {
        target: Target::named(ApiResource::erase::<ServiceAccount>(&()), &namespace, name, uid),
        expected: Presence::Gone,
        reason: "a late cache must not cost a token".to_owned(),
    });
    plan.delete(Target::of(secret), format!("its service account {name} is gone"));
    plan
}
