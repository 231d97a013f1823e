//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: expressions that refuse, warn of or change writes.
//!
//! A policy says what, a binding says where and with which parameters. Upstream's
//! `k8s.io/apiserver/pkg/admission/plugin/policy` gives the rules and the messages.

mod mutating;
mod params;
pub mod type_check;
mod validating;

use std::sync::Arc;

use api::cel::Bindings;
use api::cel::admission::Purpose;
use serde_json::Value;

use super::expressions::{Seen, conditions_hold};
use super::question::{Question, Shown};
use super::{lookup, matching};
use crate::error::Outcome;
use crate::registry::resource::Resource;

pub(super) use mutating::mutate;
pub(super) use validating::validate;

const GROUP: &str = "admissionregistration.k8s.io";
const VALIDATING: (&str, &str) = ("validatingadmissionpolicies", "validatingadmissionpolicybindings");
const MUTATING: (&str, &str) = ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings");

/// A policy that is about a question, by one of its bindings.
struct Bound {
    policy: Arc<Value>,
    binding: Arc<Value>,
    /// In which version the policy sees the object.
    seen_as: Arc<Resource>,
    /// One evaluation each; null where the policy has none.
    params: Result<Vec<Value>, Misconfigured>,
}

/// A policy or a binding can't be used as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Misconfigured {
    #[error("failed to configure policy: {0}")]
    Policy(String),
    #[error("failed to configure binding: {0}")]
    Binding(String),
}

impl Bound {
    fn policy_name(&self) -> &str {
        api::object::name(&self.policy)
    }

    /// `None` if it is the policy that can't be used.
    fn binding_name(&self) -> Option<&str> {
        let unusable = matches!(self.params, Err(Misconfigured::Policy(_)));
        (!unusable).then(|| api::object::name(&self.binding))
    }

    fn spec(&self) -> &Value {
        &self.policy["spec"]
    }

    fn ignores_failures(&self) -> bool {
        self.spec()["failurePolicy"] == "Ignore"
    }

    fn conditions_hold(&self, question: Question<'_>, bindings: Bindings<'_>) -> Result<bool, String> {
        let programs = &question.call.server.programs;
        conditions_hold(programs, bindings, Purpose::Condition, &self.spec()["matchConditions"])
    }

    async fn shown<'a>(&self, question: Question<'a>) -> Outcome<Shown<'a>> {
        question.shown_as(self.seen_as.clone()).await
    }
}

/// What the expressions of a policy see of a question.
async fn seen(question: Question<'_>) -> Outcome<Seen<'_>> {
    let call = question.call;
    let namespace = match call.namespace() {
        "" => None,
        name => lookup::one(call, "", "namespaces", "", name).await?,
    };
    let mut namespace = namespace.map(Arc::unwrap_or_clone).unwrap_or_default();
    if let Some(metadata) = namespace["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    Ok(Seen { question, request: question.request(""), namespace })
}

/// The policies of a kind that are about the question, by name, each with its bindings.
async fn bound(question: Question<'_>, (policies, bindings): (&str, &str)) -> Outcome<Vec<Bound>> {
    let call = question.call;
    let bindings = lookup::list(call, GROUP, bindings, "").await?;
    // Policies don't judge what policies are made of: nobody could repair a bad one.
    if bindings.is_empty() || call.resource.group == GROUP && call.resource.plural.contains("admissionpolic")
    {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for policy in lookup::list(call, GROUP, policies, "").await? {
        let of_policy = |binding: &&Arc<Value>| binding["spec"]["policyName"] == policy["metadata"]["name"];
        let own: Vec<&Arc<Value>> = bindings.iter().filter(of_policy).collect();
        if own.is_empty() {
            continue;
        }
        let constraints = &policy["spec"]["matchConstraints"];
        let Ok(Some(seen_as)) = matching::constraints(question, constraints).await else { continue };
        for binding in own {
            if let Ok(Some(_)) = matching::constraints(question, &binding["spec"]["matchResources"]).await {
                let params = params::of(question, &policy["spec"]["paramKind"], &binding["spec"]["paramRef"]);
                let params = params.await?;
                found.push(Bound {
                    policy: policy.clone(),
                    binding: binding.clone(),
                    seen_as: seen_as.clone(),
                    params,
                });
            }
        }
    }
    Ok(found)
}
