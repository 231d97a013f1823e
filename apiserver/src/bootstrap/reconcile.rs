//! Gives roles and bindings back what they have lost since the server made them, as upstream does at each start.
//!
//! What an administrator added stays; who sets the annotation to `false` is left alone.

use serde_json::{Value, json};

use crate::auth::Rule;

/// The annotation by which a role or binding is kept up to date, or not.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// The object as it must be, if it isn't: `there` with what `wanted` has more. `None` if nothing is missing.
pub fn reconciled(there: &Value, wanted: &Value) -> Option<Value> {
    if there["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let mut next = there.clone();
    for map in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][map].as_object().into_iter().flatten() {
            if there["metadata"][map].get(key).is_none() {
                next["metadata"][map][key] = value.clone();
            }
        }
    }
    add_missing(&mut next, "subjects", items(&wanted["subjects"]).filter(|one| !has_subject(there, one)));
    let own = Rule::list_of(there);
    let missing = |rule: &&Value| {
        let wanted = Rule::list_of(&json!({"rules": [rule]}));
        !wanted.iter().flat_map(Rule::parts).all(|part| own.iter().any(|own| own.covers(&part)))
    };
    // The rules of an aggregated role are those of the roles that it selects.
    if there["aggregationRule"].is_null() {
        add_missing(&mut next, "rules", items(&wanted["rules"]).filter(missing));
    }
    if let Some(wanted) = wanted.get("aggregationRule").filter(|_| there["aggregationRule"].is_null()) {
        next["aggregationRule"] = wanted.clone();
    }
    (next != *there).then_some(next)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn add_missing<'a>(object: &mut Value, list: &str, missing: impl Iterator<Item = &'a Value>) {
    let missing: Vec<Value> = missing.cloned().collect();
    if missing.is_empty() {
        return;
    }
    let kept = object[list].as_array().cloned().unwrap_or_default();
    object[list] = Value::Array([kept, missing].concat());
}

fn has_subject(binding: &Value, wanted: &Value) -> bool {
    let same = |one: &Value| ["kind", "name", "namespace"].iter().all(|key| one[key] == wanted[key]);
    items(&binding["subjects"]).any(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(verbs: &[&str]) -> Value {
        json!({"metadata": {"annotations": {AUTOUPDATE: "true"}},
               "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]})
    }

    #[test]
    fn what_was_lost_comes_back_and_what_was_added_stays() {
        let wanted = role(&["get", "list"]);
        assert_eq!(reconciled(&role(&["*"]), &wanted), None, "more than is wanted");
        let next = reconciled(&role(&["get", "delete"]), &wanted).expect("a right is missing");
        assert_eq!(next["rules"], json!([role(&["get", "delete"])["rules"][0], wanted["rules"][0]]));
        let mut left_alone = role(&[]);
        left_alone["metadata"]["annotations"][AUTOUPDATE] = json!("false");
        assert_eq!(reconciled(&left_alone, &wanted), None);
        let bare = json!({"metadata": {}, "rules": wanted["rules"]});
        let next = reconciled(&bare, &wanted).expect("the annotation is missing");
        assert_eq!(next["metadata"]["annotations"][AUTOUPDATE], "true");
    }

    #[test]
    fn subjects_come_back() {
        let group =
            |name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name});
        let bound = |names: &[&str]| json!({"metadata": {}, "subjects": names.iter().map(|n| group(n)).collect::<Vec<_>>()});
        let next = reconciled(&bound(&["mine"]), &bound(&["system:masters"])).expect("one is missing");
        assert_eq!(next["subjects"], json!([group("mine"), group("system:masters")]));
        assert_eq!(reconciled(&next, &bound(&["system:masters"])), None);
    }
}
