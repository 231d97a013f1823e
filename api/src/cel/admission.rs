//! The names that expressions of admission may use: of webhooks' match conditions and of policies.

use std::sync::Arc;

use super::{CompileError, Environment, FieldType, ObjectType, Program, Type, compile};

/// The type of `authorizer`.
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
/// The type of `authorizer.path(…)`.
pub const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
/// The type of `authorizer.group(…)`.
pub const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
/// The type of `authorizer.group(…).resource(…)`, and of `authorizer.requestResource`.
pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
/// The type of what `check` gives.
pub const DECISION: &str = "kubernetes.authorization.Decision";

/// The most that the conditions of a webhook or a policy may cost together.
pub const CONDITIONS_LIMIT: u64 = 2_500_000;

/// What an expression is for; that decides which names it may use and what it must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// A condition of a webhook: a bool.
    HookCondition,
    /// A condition of a policy: a bool, without variables.
    Condition,
    /// A variable: anything.
    Variable,
    /// A validation: a bool.
    Validation,
    /// The message of one: a text, without the authorizer.
    Message,
    /// The value of an audit annotation: a text or null.
    AuditAnnotation,
    /// A part of an object that is laid over it.
    ApplyConfiguration,
    /// Operations of RFC 6902.
    JsonPatch,
}

/// The types of what a policy is about, as far as they are known.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Of `object` and `oldObject`.
    pub object: Type,
    /// Of `params`; `None` if there are none.
    pub params: Option<Type>,
    /// The policy's variables so far, by their names; `None` if any name will do.
    pub variables: Option<Vec<(String, Type)>>,
}

impl Subject {
    /// Nothing is known but whether there are parameters.
    pub fn dynamic(has_params: bool) -> Self {
        Self { object: Type::Dyn, params: has_params.then_some(Type::Dyn), variables: None }
    }
}

/// The names that an expression may use.
pub fn environment(purpose: Purpose, subject: &Subject) -> Environment {
    use Purpose::{ApplyConfiguration, AuditAnnotation, Condition, HookCondition, JsonPatch, Message};
    let object = [("object", subject.object.clone()), ("oldObject", subject.object.clone())];
    let mut environment = Environment::new(object).with("request", request());
    if !matches!(purpose, Message | AuditAnnotation) {
        environment = environment
            .with("authorizer", Type::Opaque(AUTHORIZER))
            .with("authorizer.requestResource", Type::Opaque(RESOURCE_CHECK));
    }
    if purpose == HookCondition {
        return environment;
    }
    if let Some(params) = &subject.params {
        environment = environment.with("params", params.clone());
    }
    environment = environment.with("namespaceObject", Type::Dyn);
    if purpose != Condition {
        environment = environment.with("variables", variables(subject));
    }
    match purpose {
        ApplyConfiguration => environment.with_structure("Object", &[]),
        JsonPatch => environment
            .with_structure("Object", &[])
            .with_structure("JSONPatch", &["op", "path", "from", "value"]),
        _ => environment,
    }
}

fn variables(subject: &Subject) -> Type {
    match &subject.variables {
        None => Type::Dyn,
        Some(known) => named("kubernetes.variables", known.clone()),
    }
}

/// Upstream's AdmissionRequest, without the objects.
fn request() -> Type {
    let text =
        |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), Type::STRING)).collect::<Vec<_>>();
    let kind = named("kubernetes.GroupVersionKind", text(&["group", "version", "kind"]));
    let resource = named("kubernetes.GroupVersionResource", text(&["group", "version", "resource"]));
    let mut user = text(&["username", "uid"]);
    user.push(("groups".to_owned(), Type::list(Type::STRING)));
    user.push(("extra".to_owned(), Type::map(Type::STRING, Type::list(Type::STRING))));
    let mut fields = text(&["subResource", "requestSubResource", "name", "namespace", "operation", "uid"]);
    fields.extend(["kind", "requestKind"].map(|name| (name.to_owned(), kind.clone())));
    fields.extend(["resource", "requestResource"].map(|name| (name.to_owned(), resource.clone())));
    fields.push(("userInfo".to_owned(), named("kubernetes.UserInfo", user)));
    fields.push(("dryRun".to_owned(), Type::Bool));
    fields.push(("options".to_owned(), Type::Dyn));
    named("kubernetes.AdmissionRequest", fields)
}

/// An object whose fields are written as they are called, even `namespace`.
fn named(name: &str, fields: Vec<(String, Type)>) -> Type {
    let field = |(json, kind): (String, Type)| (json.clone(), FieldType { json, kind });
    Type::Object(Arc::new(ObjectType {
        name: name.to_owned(),
        fields: fields.into_iter().map(field).collect(),
    }))
}

/// Compiles an expression; its result must be what the purpose asks for.
///
/// # Errors
/// What is wrong with it, as upstream writes it.
pub fn compiled(source: &str, purpose: Purpose, subject: &Subject) -> Result<Program, String> {
    let program = compile(source, &environment(purpose, subject));
    let program =
        program.map_err(|error: CompileError| format!("compilation failed: {}", error.show(source)))?;
    match wanted(purpose).filter(|(kinds, _)| !kinds.iter().any(|kind| program.result().fits(kind))) {
        Some((_, text)) => Err(format!("must evaluate to {text}")),
        None => Ok(program),
    }
}

fn wanted(purpose: Purpose) -> Option<(Vec<Type>, &'static str)> {
    match purpose {
        Purpose::Variable => None,
        Purpose::HookCondition | Purpose::Condition | Purpose::Validation => Some((vec![Type::Bool], "bool")),
        Purpose::Message => Some((vec![Type::STRING], "string")),
        Purpose::AuditAnnotation => Some((vec![Type::STRING, Type::Null], "one of [string null_type]")),
        Purpose::ApplyConfiguration => Some((vec![Type::object("Object", [])], "Object")),
        Purpose::JsonPatch => Some((vec![Type::list(Type::object("JSONPatch", []))], "list(JSONPatch)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_decides_what_may_be_used_and_given() {
        let subject =
            Subject { variables: Some(vec![("n".to_owned(), Type::Int)]), ..Subject::dynamic(false) };
        let why = |source: &str, purpose| compiled(source, purpose, &subject).err().unwrap_or_default();
        let fine = |source: &str, purpose| assert_eq!(why(source, purpose), "", "{source}");
        let bad = |source: &str, purpose, part: &str| {
            let why = why(source, purpose);
            assert!(why.contains(part), "{source}: {why:?} lacks {part:?}");
        };
        fine("object.a == oldObject.a && request.operation == 'CREATE'", Purpose::HookCondition);
        fine(
            "authorizer.group('').resource('pods').namespace('a').check('get').allowed()",
            Purpose::HookCondition,
        );
        fine("authorizer.requestResource.check('get').reason() != ''", Purpose::Validation);
        fine("authorizer.serviceAccount('a', 'b').path('/x').check('get').errored()", Purpose::Condition);
        fine("variables.n > 1 && namespaceObject.metadata.name == 'a'", Purpose::Validation);
        bad("namespaceObject == null", Purpose::HookCondition, "undeclared reference to 'namespaceObject'");
        bad("variables.n > 1", Purpose::Condition, "undeclared reference to 'variables'");
        bad("variables.m > 1", Purpose::Validation, "undefined field 'm'");
        bad("params.a", Purpose::Validation, "undeclared reference to 'params'");
        bad(
            "authorizer.path('/').check('get').allowed() ? 'a' : 'b'",
            Purpose::Message,
            "undeclared reference",
        );
        bad("request.kind.knd == 'a'", Purpose::Validation, "undefined field 'knd'");
        bad("variables.n", Purpose::Validation, "must evaluate to bool");
        bad("1", Purpose::Message, "must evaluate to string");
        bad("authorizer.resource('pods')", Purpose::Variable, "found no matching overload");
        fine("Object{spec: Object.spec{replicas: 3}}", Purpose::ApplyConfiguration);
        bad("{'spec': 1}", Purpose::ApplyConfiguration, "must evaluate to Object");
        bad("Object{spec: Object.status{a: 3}}", Purpose::ApplyConfiguration, "type mismatch");
        fine(
            "[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('x/y'), value: Object.a{b: 1}}]",
            Purpose::JsonPatch,
        );
        bad("[JSONPatch{opp: 'add'}]", Purpose::JsonPatch, "undefined field 'opp'");
        bad("Object{}", Purpose::Validation, "undeclared reference to 'Object'");
    }
}
