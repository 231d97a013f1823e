//! Whether a question is one for a webhook: rules, selectors, conditions.

use api::cel::{self, Bindings, Budget, Environment, Type};
use api::object;
use api::selector::LabelSelector;
use serde_json::Value;

use super::{Question, lookup, review};

/// # Errors
/// A condition that can't be evaluated.
pub(super) async fn concerns(question: Question<'_>, hook: &Value) -> Result<bool, String> {
    let rules = hook["rules"].as_array().into_iter().flatten();
    if !rules.into_iter().any(|rule| fits(question, rule)) {
        return Ok(false);
    }
    let selected = |object: &Value| !object.is_null() && selects(&hook["objectSelector"], object);
    if !selected(question.object) && !selected(question.old) {
        return Ok(false);
    }
    if !in_namespace(question, &hook["namespaceSelector"]).await? {
        return Ok(false);
    }
    conditions_hold(question, hook)
}

/// A list that names the text, or a star.
fn lists(list: &Value, text: &str) -> bool {
    list.as_array().into_iter().flatten().any(|item| item == "*" || item == text)
}

fn fits(question: Question<'_>, rule: &Value) -> bool {
    let (info, resource) = (question.call.info, question.call.resource);
    let scope = match rule["scope"].as_str() {
        // A namespace counts as an object of the cluster.
        Some("Namespaced") => resource.namespaced,
        Some("Cluster") => !resource.namespaced,
        _ => true,
    };
    let subresource = info.subresource.as_deref().unwrap_or_default();
    let resources = rule["resources"].as_array().into_iter().flatten().filter_map(Value::as_str);
    scope
        && lists(&rule["operations"], question.operation.as_str())
        && lists(&rule["apiGroups"], &resource.group)
        && lists(&rule["apiVersions"], &resource.version)
        && resources.into_iter().any(|pattern| names(pattern, &resource.plural, subresource))
}

/// `pods`, `pods/status`, `pods/*`, `*/status`, `*` (no subresources), `*/*`.
fn names(pattern: &str, plural: &str, subresource: &str) -> bool {
    let (resource, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
    (resource == "*" || resource == plural) && (sub == "*" || sub == subresource)
}

/// An absent selector selects everything here; one that is none selects nothing.
fn selects(selector: &Value, object: &Value) -> bool {
    if selector.is_null() {
        return true;
    }
    LabelSelector::from_value(selector).is_ok_and(|selector| selector.matches(&object::labels(object)))
}

/// What is of no namespace is asked about whatever the selector says.
async fn in_namespace(question: Question<'_>, selector: &Value) -> Result<bool, String> {
    let call = question.call;
    if selector.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(true);
    }
    if call.resource.group.is_empty() && call.resource.kind == "Namespace" {
        let there = if question.object.is_null() { question.old } else { question.object };
        return Ok(selects(selector, there));
    }
    if !call.resource.namespaced {
        return Ok(true);
    }
    let namespace = lookup::one(call, "", "namespaces", "", call.namespace()).await;
    let namespace = namespace.map_err(|failure| failure.into_status().message)?;
    Ok(namespace.is_some_and(|namespace| selects(selector, &namespace)))
}

/// All conditions hold. One that is false decides, even if another can't be evaluated.
fn conditions_hold(question: Question<'_>, hook: &Value) -> Result<bool, String> {
    let conditions = hook["matchConditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if conditions.is_empty() {
        return Ok(true);
    }
    let request = review::request(question, "");
    let mut failure = None;
    for condition in conditions {
        match holds(question, &request, condition["expression"].as_str().unwrap_or_default()) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => {
                let name = condition["name"].as_str().unwrap_or_default();
                failure.get_or_insert(format!(
                    "expression of match condition {name:?} resulted in error: {why}"
                ));
            }
        }
    }
    failure.map_or(Ok(true), Err)
}

fn holds(question: Question<'_>, request: &Value, expression: &str) -> Result<bool, String> {
    let names = ["object", "oldObject", "request"];
    let environment = Environment::new(names.map(|name| (name, Type::Dyn)));
    let program = cel::compile(expression, &environment).map_err(|error| error.show(expression))?;
    let values = [question.object, question.old, request];
    let anything = Type::Dyn;
    let values = values.map(|value| cel::Value::of(value, &anything));
    let bindings = Bindings::new(names.into_iter().zip(values));
    match program.evaluate(&bindings, &mut Budget::new(cel::PER_CALL_LIMIT)) {
        Ok(cel::Value::Bool(holds)) => Ok(holds),
        Ok(_) => Err("the result is no bool".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_resources() {
        let cases = [
            ("pods", "", true),
            ("pods", "status", false),
            ("pods/status", "status", true),
            ("pods/*", "", true),
            ("pods/*", "status", true),
            ("*", "", true),
            ("*", "status", false),
            ("*/*", "status", true),
            ("*/scale", "status", false),
            ("nodes", "", false),
        ];
        for (pattern, subresource, expected) in cases {
            assert_eq!(names(pattern, "pods", subresource), expected, "{pattern} {subresource}");
        }
    }
}
