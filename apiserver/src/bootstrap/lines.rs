//! Roles and bindings that are written in lines: `controller_roles.txt` and `roles.txt` say how.

use serde_json::{Value, json};

const API_VERSION: &str = "rbac.authorization.k8s.io/v1";
const API_GROUP: &str = "rbac.authorization.k8s.io";

/// A head and the lines that are indented below it.
type Block = (&'static str, Vec<&'static str>);

fn blocks(text: &'static str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match (line.strip_prefix("  "), blocks.last_mut()) {
            (Some(below), Some((_, lines))) => lines.push(below),
            _ => blocks.push((line, Vec::new())),
        }
    }
    blocks
}

/// `system:controller:NAME` for each controller, and its binding.
pub(super) fn controller_roles() -> Vec<Value> {
    let both = |(name, rules): Block| {
        let role = format!("system:controller:{name}");
        [
            json!({"apiVersion": API_VERSION, "kind": "ClusterRole", "metadata": {"name": role},
                   "rules": self::rules(&rules)}),
            json!({"apiVersion": API_VERSION, "kind": "ClusterRoleBinding", "metadata": {"name": role},
                   "roleRef": {"apiGroup": API_GROUP, "kind": "ClusterRole", "name": role},
                   "subjects": [account(name)]}),
        ]
    };
    blocks(include_str!("controller_roles.txt")).into_iter().flat_map(both).collect()
}

/// Roles of the system's namespaces, and their bindings.
pub(super) fn roles() -> Vec<Value> {
    blocks(include_str!("roles.txt")).into_iter().map(of_namespace).collect()
}

fn of_namespace((head, lines): Block) -> Value {
    let words: Vec<&str> = head.split(' ').collect();
    match words.as_slice() {
        ["role", namespace, name] => json!({
            "apiVersion": API_VERSION, "kind": "Role",
            "metadata": {"namespace": namespace, "name": name}, "rules": rules(&lines),
        }),
        ["bind", namespace, name, "to", role] => json!({
            "apiVersion": API_VERSION, "kind": "RoleBinding",
            "metadata": {"namespace": namespace, "name": name},
            "roleRef": {"apiGroup": API_GROUP, "kind": "Role", "name": role},
            "subjects": lines.iter().map(|line| subject(line)).collect::<Vec<_>>(),
        }),
        _ => panic!("embedded roles.txt: {head:?} is neither a role nor a binding"),
    }
}

fn rules(lines: &[&str]) -> Vec<Value> {
    lines.iter().map(|line| rule(line)).collect()
}

fn rule(line: &str) -> Value {
    let list = |text: &str| -> Vec<String> {
        text.split(',').map(|item| if item == "-" { String::new() } else { item.to_owned() }).collect()
    };
    let (what, names) = line.split_once(" = ").map_or((line, None), |(what, names)| (what, Some(names)));
    let words: Vec<&str> = what.split(' ').collect();
    let mut rule = match words.as_slice() {
        ["events"] => return rule("create,patch,update -,events.k8s.io events"),
        [verbs, groups, resources] => {
            json!({"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources)})
        }
        _ => panic!("embedded roles: {line:?} is no rule"),
    };
    if let Some(names) = names {
        rule["resourceNames"] = json!(list(names));
    }
    rule
}

fn subject(line: &str) -> Value {
    match line.split_once(' ') {
        Some(("user", name)) => json!({"apiGroup": API_GROUP, "kind": "User", "name": name}),
        Some(("account", name)) => account(name),
        _ => panic!("embedded roles.txt: {line:?} is no subject"),
    }
}

fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "namespace": "kube-system", "name": name})
}
