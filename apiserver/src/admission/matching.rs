//! Whether a question is one for a webhook, a policy or a binding: rules and selectors.

use std::sync::Arc;

use api::object;
use api::selector::LabelSelector;
use serde_json::Value;

use super::lookup;
use super::question::Question;
use crate::registry::resource::Resource;

/// As what the question is one for a webhook; `None` if it is none.
///
/// # Errors
/// If the namespace can't be looked up.
pub(super) async fn webhook(question: Question<'_>, hook: &Value) -> Result<Option<Arc<Resource>>, String> {
    if !is_selected(question, hook).await? {
        return Ok(None);
    }
    Ok(by_rules(question, items(&hook["rules"]), &hook["matchPolicy"]))
}

/// As what the question is one for the constraints of a policy or a binding; without rules it is as it came.
///
/// # Errors
/// If the namespace can't be looked up.
pub(super) async fn constraints(
    question: Question<'_>,
    constraints: &Value,
) -> Result<Option<Arc<Resource>>, String> {
    let policy = &constraints["matchPolicy"];
    if !is_selected(question, constraints).await?
        || by_rules(question, items(&constraints["excludeResourceRules"]), policy).is_some()
    {
        return Ok(None);
    }
    let rules = items(&constraints["resourceRules"]);
    if rules.is_empty() {
        return Ok(Some(question.call.resource.clone()));
    }
    Ok(by_rules(question, rules, policy))
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

async fn is_selected(question: Question<'_>, criteria: &Value) -> Result<bool, String> {
    let selector = &criteria["objectSelector"];
    let selected = |object: &Value| !object.is_null() && selects(selector, object);
    Ok((selected(question.object) || selected(question.old))
        && in_namespace(question, &criteria["namespaceSelector"]).await?)
}

/// The resource itself if a rule names it, or the first of its other versions that a rule names.
fn by_rules(question: Question<'_>, rules: &[Value], policy: &Value) -> Option<Arc<Resource>> {
    let own = question.call.resource;
    let fits = |resource: &Resource| rules.iter().any(|rule| fits(question, resource, rule));
    if fits(own) {
        return Some(own.clone());
    }
    if rules.is_empty() || policy == "Exact" {
        return None;
    }
    let same = |other: &Arc<Resource>| !Arc::ptr_eq(other, own) && other.storage_name() == own.storage_name();
    question.call.server.registry.resources().into_iter().find(|other| same(other) && fits(other))
}

/// A list that names the text, or a star.
fn lists(list: &Value, text: &str) -> bool {
    items(list).iter().any(|item| item == "*" || item == text)
}

fn fits(question: Question<'_>, resource: &Resource, rule: &Value) -> bool {
    let scope = match rule["scope"].as_str() {
        // A namespace counts as an object of the cluster.
        Some("Namespaced") => resource.namespaced,
        Some("Cluster") => !resource.namespaced,
        _ => true,
    };
    let subresource = question.call.info.subresource.as_deref().unwrap_or_default();
    let mut resources = items(&rule["resources"]).iter().filter_map(Value::as_str);
    let only = items(&rule["resourceNames"]);
    scope
        && lists(&rule["operations"], question.operation.as_str())
        && lists(&rule["apiGroups"], &resource.group)
        && lists(&rule["apiVersions"], &resource.version)
        && resources.any(|pattern| names(pattern, &resource.plural, subresource))
        && (only.is_empty() || only.iter().any(|name| name == question.name()))
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
    if question.is_about_a_namespace() {
        return Ok(selects(selector, question.present()));
    }
    if !call.resource.namespaced {
        return Ok(true);
    }
    let namespace = lookup::one(call, "", "namespaces", "", call.namespace()).await;
    let namespace = namespace.map_err(|failure| failure.into_status().message)?;
    Ok(namespace.is_some_and(|namespace| selects(selector, &namespace)))
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
