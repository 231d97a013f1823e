//! Nobody gives away rights they don't have, or gains some by writing a role or a binding.
//!
//! Upstream's rule: writing a role needs every right in it, or the verb `escalate` on the role; writing a
//! binding needs every right of the bound role, or the verb `bind` on it.

use serde_json::Value;

use super::rbac::{GROUP, RbacView, RoleRef};
use super::rules::Rule;
use super::{Attributes, Identity};

/// Checks the write of one of the four kinds.
///
/// # Errors
/// The reason of the refusal, naming the rights that are missing.
pub(super) fn check(
    view: &RbacView,
    who: &Identity,
    kind: &str,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), String> {
    match kind {
        "Role" | "ClusterRole" => check_role(view, who, kind == "ClusterRole", old, new),
        "RoleBinding" | "ClusterRoleBinding" => check_binding(view, who, old, new),
        _ => Ok(()),
    }
}

fn check_role(
    view: &RbacView,
    who: &Identity,
    cluster: bool,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), String> {
    let unchanged = old
        .is_some_and(|old| old["rules"] == new["rules"] && old["aggregationRule"] == new["aggregationRule"]);
    let (namespace, name) = (text(new, "namespace"), text(new, "name"));
    let resource = if cluster { "clusterroles" } else { "roles" };
    if unchanged || view.authorize(who, &act("escalate", resource, namespace, name)).allowed {
        return Ok(());
    }
    if new["aggregationRule"].is_object() {
        // What an aggregating role grants depends on roles that others write later.
        check_rules(view, who, namespace, vec![everything()])?;
    }
    check_rules(view, who, namespace, Rule::list_of(new))
}

fn check_binding(view: &RbacView, who: &Identity, old: Option<&Value>, new: &Value) -> Result<(), String> {
    if old.is_some_and(|old| old["subjects"] == new["subjects"] && old["roleRef"] == new["roleRef"]) {
        return Ok(());
    }
    let (role, namespace) = (RoleRef::of(new), text(new, "namespace"));
    let resource = if role.cluster { "clusterroles" } else { "roles" };
    if view.authorize(who, &act("bind", resource, namespace, &role.name)).allowed {
        return Ok(());
    }
    let rules = view.rules(&role, namespace);
    let rules = rules.ok_or_else(|| format!("{resource}.{GROUP} \"{}\" not found", role.name))?;
    check_rules(view, who, namespace, rules)
}

fn check_rules(view: &RbacView, who: &Identity, namespace: &str, wanted: Vec<Rule>) -> Result<(), String> {
    let own = view.rules_of(who, namespace);
    let parts = wanted.iter().flat_map(Rule::parts);
    let mut lacking: Vec<Rule> = parts.filter(|part| !own.iter().any(|rule| rule.covers(part))).collect();
    lacking.sort();
    lacking.dedup();
    if lacking.is_empty() {
        return Ok(());
    }
    let lacking: Vec<String> = lacking.iter().map(compact).collect();
    Err(format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        who.user,
        who.groups,
        lacking.join("\n")
    ))
}

/// A rule as upstream prints it in this message.
fn compact(rule: &Rule) -> String {
    let fields = [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.names),
        ("NonResourceURLs", &rule.urls),
        ("Verbs", &rule.verbs),
    ];
    let given = fields.iter().filter(|(_, values)| !values.is_empty());
    let given: Vec<String> = given.map(|(field, values)| format!("{field}:{values:?}")).collect();
    format!("{{{}}}", given.join(", "))
}

fn everything() -> Rule {
    let all = || vec!["*".to_owned()];
    Rule { verbs: all(), groups: all(), resources: all(), names: Vec::new(), urls: all() }
}

fn act<'a>(verb: &'a str, resource: &'a str, namespace: &'a str, name: &'a str) -> Attributes<'a> {
    Attributes {
        verb,
        group: GROUP,
        version: "v1",
        resource,
        namespace,
        name,
        is_resource: true,
        ..Attributes::default()
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}
