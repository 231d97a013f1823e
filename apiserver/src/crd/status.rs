//! What a definition's status should be: which of its names it gets, and whether it is served.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::custom::condition;

/// The definition with the status that it should have among `all`; `None` if it has it.
pub fn plan(crd: &Value, all: &[Value], now: Timestamp) -> Option<Value> {
    if api::object::is_deleting(crd) {
        return None;
    }
    let mut planned = crd.clone();
    let (names, conflict) = accepted_names(crd, all);
    planned["status"]["acceptedNames"] = names;
    let accepted = conflict.is_none();
    let (reason, message) = conflict.unwrap_or(("NoConflicts", "no conflicts found".to_owned()));
    set(&mut planned, "NamesAccepted", accepted, reason, &message, now);
    if condition(crd, "Established") != Some("True") {
        let (reason, message) = match accepted {
            true => ("InitialNamesAccepted", "the initial names have been accepted"),
            false => ("NotAccepted", "not all names are accepted"),
        };
        set(&mut planned, "Established", accepted, reason, message, now);
    }
    approval(&mut planned, now);
    (planned["status"] != crd["status"]).then_some(planned)
}

/// Upstream says of the community's groups whether they were approved.
fn approval(crd: &mut Value, now: Timestamp) {
    let group = crd["spec"]["group"].as_str().unwrap_or_default();
    let protected = |suffix: &str| group == suffix || group.ends_with(&format!(".{suffix}"));
    if !protected("k8s.io") && !protected("kubernetes.io") {
        return;
    }
    let given = api::object::annotation(crd, "api-approved.kubernetes.io").unwrap_or_default().to_owned();
    let kind = "KubernetesAPIApprovalPolicyConformant";
    match given.starts_with("unapproved") {
        true => set(crd, kind, false, "UnapprovedAnnotation", &format!("not approved: {given:?}"), now),
        false => set(crd, kind, true, "ApprovedAnnotation", &format!("approved in {given}"), now),
    }
}

/// The names that it has or gets, and the last of the conflicts.
fn accepted_names(crd: &Value, all: &[Value]) -> (Value, Option<(&'static str, String)>) {
    let (wanted, had) = (&crd["spec"]["names"], &crd["status"]["acceptedNames"]);
    let others = || {
        all.iter().filter(|other| other["spec"]["group"] == crd["spec"]["group"] && name(other) != name(crd))
    };
    let taken = |keys: &[&str]| -> BTreeSet<String> {
        others().flat_map(|other| names_of(&other["status"]["acceptedNames"], keys)).collect()
    };
    let resources = taken(&["plural", "singular", "shortNames"]);
    let kinds = taken(&["kind", "listKind"]);
    let mut names = had.clone();
    let mut conflict = None;
    let mut take = |key: &str, used: &BTreeSet<String>, reason: &'static str| {
        let missing =
            names_of(wanted, &[key]).into_iter().filter(|name| used.contains(name)).collect::<Vec<_>>();
        match missing.first() {
            Some(name) if wanted[key] != had[key] => {
                conflict = Some((reason, format!("{name:?} is already in use")))
            }
            _ => copy(&mut names, wanted, key),
        }
    };
    take("plural", &resources, "PluralConflict");
    take("singular", &resources, "SingularConflict");
    take("shortNames", &resources, "ShortNamesConflict");
    take("kind", &kinds, "KindConflict");
    take("listKind", &kinds, "ListKindConflict");
    copy(&mut names, wanted, "categories");
    (names, conflict)
}

fn copy(to: &mut Value, from: &Value, key: &str) {
    match (to.as_object_mut(), from.get(key)) {
        (Some(map), Some(value)) => drop(map.insert(key.to_owned(), value.clone())),
        (Some(map), None) => drop(map.remove(key)),
        (None, _) => *to = json!({key: from[key]}),
    }
}

fn names_of(names: &Value, keys: &[&str]) -> Vec<String> {
    let values = keys.iter().flat_map(|key| match &names[*key] {
        Value::Array(list) => list.clone(),
        one => vec![one.clone()],
    });
    values.filter_map(|value| value.as_str().filter(|name| !name.is_empty()).map(str::to_owned)).collect()
}

fn name(crd: &Value) -> &str {
    api::object::name(crd)
}

/// The definition once its objects have gone: it says so, and nothing holds it any more.
pub fn cleaned_up(crd: &Value, now: Timestamp) -> Value {
    let mut done = crd.clone();
    set(&mut done, "Terminating", false, "InstanceDeletionCompleted", "removed all instances", now);
    let mut finalizers = api::object::finalizers(crd);
    finalizers.retain(|finalizer| finalizer != crate::strategies::CLEANUP);
    api::object::set_finalizers(&mut done, &finalizers);
    done
}

fn set(crd: &mut Value, kind: &str, holds: bool, reason: &str, message: &str, now: Timestamp) {
    let condition = json!({
        "type": kind,
        "status": if holds { "True" } else { "False" },
        "reason": reason,
        "message": message,
        "lastTransitionTime": api::time::rfc3339(now),
    });
    set_condition(crd, condition);
}

/// Puts a condition into its place; the time of the last transition stays if the status does.
pub fn set_condition(crd: &mut Value, mut condition: Value) {
    if !crd["status"]["conditions"].is_array() {
        crd["status"]["conditions"] = json!([]);
    }
    let Some(all) = crd["status"]["conditions"].as_array_mut() else { return };
    match all.iter_mut().find(|other| other["type"] == condition["type"]) {
        Some(other) => {
            if other["status"] == condition["status"] {
                condition["lastTransitionTime"] = other["lastTransitionTime"].clone();
            }
            *other = condition;
        }
        None => all.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": {
                "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
                "shortNames": short,
            }},
            "status": {"acceptedNames": {"plural": "", "kind": ""}, "conditions": [], "storedVersions": ["v1"]},
        })
    }

    fn now() -> Timestamp {
        "2024-01-01T00:00:00Z".parse().expect("a time")
    }

    #[test]
    fn free_names_are_accepted_and_then_nothing_changes() {
        let crd = crd("as", "A", &["a1"]);
        let planned = plan(&crd, std::slice::from_ref(&crd), now()).expect("a new status");
        assert_eq!(planned["status"]["acceptedNames"], crd["spec"]["names"]);
        assert_eq!(condition(&planned, "Established"), Some("True"));
        assert_eq!(plan(&planned, std::slice::from_ref(&planned), now()), None);
    }

    #[test]
    fn a_taken_name_keeps_the_definition_from_being_served() {
        let first = plan(&crd("as", "A", &["x"]), &[], now()).expect("a status");
        let second = crd("bs", "B", &["x"]);
        let all = [first.clone(), second.clone()];
        let planned = plan(&second, &all, now()).expect("a new status");
        assert_eq!(condition(&planned, "Established"), Some("False"));
        let accepted = &planned["status"]["conditions"][0];
        assert_eq!(
            (&accepted["reason"], &accepted["message"]),
            (&json!("ShortNamesConflict"), &json!("\"x\" is already in use"))
        );
        assert_eq!(planned["status"]["acceptedNames"]["shortNames"], Value::Null);
        assert_eq!(planned["status"]["acceptedNames"]["kind"], "B");
        let alone = plan(&planned, std::slice::from_ref(&planned), now()).expect("the name is free again");
        assert_eq!(condition(&alone, "Established"), Some("True"));
    }
}
