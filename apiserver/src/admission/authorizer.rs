//! `authorizer` in expressions: may the caller do this?
//!
//! ```text
//! authorizer.group('apps').resource('deployments').namespace('x').check('delete').allowed()
//! authorizer.path('/healthz').check('get').allowed()
//! authorizer.serviceAccount('ns', 'name').group('').resource('pods').check('list').allowed()
//! authorizer.requestResource.check('update').allowed()
//! ```
//!
//! Which method is known of which of these is the type checker's business (`api::cel::admission`).

use std::sync::Arc;

use api::cel::admission::{AUTHORIZER, DECISION};
use api::cel::{Extension, Value};

use crate::auth::{Attributes, Authorizer, Identity};

/// A question in the making.
#[derive(Clone, Debug)]
pub(super) struct Check {
    authorizer: Arc<Authorizer>,
    who: Identity,
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    path: Option<String>,
}

/// The answer to one.
#[derive(Clone, Debug)]
struct Answer {
    allowed: bool,
    reason: String,
}

impl Check {
    /// About what `who` may do.
    pub(super) fn of(authorizer: &Arc<Authorizer>, who: &Identity) -> Self {
        Self {
            authorizer: authorizer.clone(),
            who: who.clone(),
            group: String::new(),
            resource: String::new(),
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
            path: None,
        }
    }

    /// About the resource of the request itself.
    pub(super) fn about(mut self, act: &Attributes<'_>) -> Self {
        self.group = act.group.to_owned();
        self.resource = act.resource.to_owned();
        self.subresource = act.subresource.to_owned();
        self.namespace = act.namespace.to_owned();
        self.name = act.name.to_owned();
        self
    }

    /// As a value of expressions.
    pub(super) fn value<'v>(self) -> Value<'v> {
        Value::Extension(Arc::new(self))
    }

    fn check(&self, verb: &str) -> Answer {
        let act = Attributes {
            verb,
            group: &self.group,
            version: "*",
            resource: &self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            path: self.path.as_deref().unwrap_or_default(),
            is_resource: self.path.is_none(),
        };
        let decision = self.authorizer.authorize(&self.who, &act);
        Answer { allowed: decision.allowed, reason: decision.reason }
    }
}

impl Extension for Check {
    fn type_name(&self) -> &'static str {
        AUTHORIZER
    }

    fn call<'v>(&self, method: &str, args: &[Value<'v>]) -> Result<Value<'v>, String> {
        let mut next = self.clone();
        match (method, args) {
            ("check", [Value::String(verb)]) => return Ok(Value::Extension(Arc::new(self.check(verb)))),
            ("group", [Value::String(group)]) => next.group = group.to_string(),
            ("resource", [Value::String(resource)]) => next.resource = resource.to_string(),
            ("subresource", [Value::String(subresource)]) => next.subresource = subresource.to_string(),
            ("namespace", [Value::String(namespace)]) => next.namespace = namespace.to_string(),
            ("name", [Value::String(name)]) => next.name = name.to_string(),
            ("path", [Value::String(path)]) => next.path = Some(path.to_string()),
            // No rule looks at what of a list is asked for: who may see all of it may see a part.
            ("fieldSelector" | "labelSelector", [Value::String(_)]) => {}
            ("serviceAccount", [Value::String(namespace), Value::String(name)]) => {
                next.who = service_account(namespace, name);
            }
            _ => return Err("no such overload".to_owned()),
        }
        Ok(next.value())
    }
}

fn service_account(namespace: &str, name: &str) -> Identity {
    let own = format!("system:serviceaccounts:{namespace}");
    let groups = ["system:serviceaccounts", &own, "system:authenticated"];
    Identity::new(format!("system:serviceaccount:{namespace}:{name}"), &groups)
}

impl Extension for Answer {
    fn type_name(&self) -> &'static str {
        DECISION
    }

    fn call<'v>(&self, method: &str, args: &[Value<'v>]) -> Result<Value<'v>, String> {
        match (method, args) {
            ("allowed", []) => Ok(Value::Bool(self.allowed)),
            ("errored", []) => Ok(Value::Bool(false)),
            ("reason", []) => Ok(Value::text(self.reason.clone())),
            ("error", []) => Ok(Value::text("")),
            _ => Err("no such overload".to_owned()),
        }
    }
}
