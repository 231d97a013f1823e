//! The parameters that a binding gives its policy.

use std::sync::Arc;

use api::selector::LabelSelector;
use serde_json::Value;

use super::super::lookup;
use super::super::question::Question;
use super::Misconfigured;
use crate::error::Outcome;
use crate::registry::resource::Resource;

/// One evaluation each: null for a policy that has no parameters, none if that is how it is bound.
pub(super) async fn of(
    question: Question<'_>,
    kind: &Value,
    reference: &Value,
) -> Outcome<Result<Vec<Value>, Misconfigured>> {
    if !kind.is_object() {
        return Ok(Ok(vec![Value::Null]));
    }
    let Some(resource) = resource(question, kind) else {
        let (group_version, kind) = (text(kind, "apiVersion"), text(kind, "kind"));
        let slash = if group_version.contains('/') { "" } else { "/" };
        let why =
            format!("failed to find resource referenced by paramKind: '{slash}{group_version}, Kind={kind}'");
        return Ok(Err(Misconfigured::Policy(why)));
    };
    if !reference.is_object() {
        return Ok(Ok(vec![Value::Null]));
    }
    let namespace = match namespace(question, &resource, reference) {
        Ok(namespace) => namespace,
        Err(why) => return Ok(Err(Misconfigured::Binding(why.to_owned()))),
    };
    let selected = select(question, &resource, namespace, reference).await?;
    let denied = selected.is_empty() && reference["parameterNotFoundAction"] == "Deny";
    Ok(match denied {
        true => Err(Misconfigured::Binding(
            "no params found for policy binding with `Deny` parameterNotFoundAction".to_owned(),
        )),
        false => Ok(selected),
    })
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn resource(question: Question<'_>, kind: &Value) -> Option<Arc<Resource>> {
    let all = question.call.server.registry.resources();
    let (api_version, kind) = (text(kind, "apiVersion"), text(kind, "kind"));
    all.into_iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
}

/// Where the parameters are: where the reference says, or where the object is.
fn namespace<'a>(
    question: Question<'a>,
    resource: &Resource,
    reference: &'a Value,
) -> Result<&'a str, &'static str> {
    match (resource.namespaced, text(reference, "namespace"), question.call.namespace()) {
        (false, "", _) => Ok(""),
        (false, ..) => Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`"),
        (true, "", "") => {
            Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
        }
        (true, "", own) => Ok(own),
        (true, given, _) => Ok(given),
    }
}

async fn select(
    question: Question<'_>,
    resource: &Arc<Resource>,
    namespace: &str,
    reference: &Value,
) -> Outcome<Vec<Value>> {
    let name = text(reference, "name");
    if !name.is_empty() {
        let found = lookup::object_of(question.call, resource, namespace, name).await?;
        return Ok(found.into_iter().collect());
    }
    let Ok(selector) = LabelSelector::from_value(&reference["selector"]) else { return Ok(Vec::new()) };
    let all = lookup::objects_of(question.call, resource, namespace).await?;
    Ok(all.into_iter().filter(|object| selector.matches_object(object)).collect())
}
