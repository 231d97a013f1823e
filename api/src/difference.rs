//! Which fields differ between two states of an object, for people: `history` and `diff` show it.
//!
//! Items of a list are told apart by their name (or type, or key) where all of them have one, else by their
//! place. What every write changes anyway, the version and the record of owners, is left out.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// One field that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// Such as `spec.containers[name=web].image`.
    pub path: String,
    /// What it was; `None` if it wasn't there.
    pub from: Option<Value>,
    /// What it is; `None` if it is gone.
    pub to: Option<Value>,
}

/// Fields by which the items of a list may be told apart, the first that all items have.
const NAMES: [&str; 4] = ["name", "type", "key", "uid"];
/// Changed by every write.
const SILENT: [&str; 2] = ["metadata.managedFields", "metadata.resourceVersion"];

/// The fields that differ, in the order of their paths. A value that appears or goes whole is one change.
pub fn changes(from: &Value, to: &Value) -> Vec<FieldChange> {
    let mut found = Vec::new();
    compare("", Some(from), Some(to), &mut found);
    found
}

fn compare(path: &str, from: Option<&Value>, to: Option<&Value>, found: &mut Vec<FieldChange>) {
    if from == to || SILENT.contains(&path) {
        return;
    }
    match (from, to) {
        (Some(Value::Object(from)), Some(Value::Object(to))) => compare_maps(path, from, to, found),
        (Some(Value::Array(from)), Some(Value::Array(to))) => compare_lists(path, from, to, found),
        _ => found.push(FieldChange { path: path.to_owned(), from: from.cloned(), to: to.cloned() }),
    }
}

fn compare_maps(
    path: &str,
    from: &Map<String, Value>,
    to: &Map<String, Value>,
    found: &mut Vec<FieldChange>,
) {
    let mut fields: Vec<&String> = from.keys().chain(to.keys()).collect();
    fields.sort();
    fields.dedup();
    for field in fields {
        compare(&below(path, field), from.get(field), to.get(field), found);
    }
}

fn compare_lists(path: &str, from: &[Value], to: &[Value], found: &mut Vec<FieldChange>) {
    let Some(name) = NAMES.into_iter().find(|name| tells_apart(from, name) && tells_apart(to, name)) else {
        let whole = |list: &[Value]| Some(Value::from(list));
        return found.push(FieldChange { path: path.to_owned(), from: whole(from), to: whole(to) });
    };
    let (from, to) = (by_name(from, name), by_name(to, name));
    let mut items: Vec<&&str> = from.keys().chain(to.keys()).collect();
    items.sort();
    items.dedup();
    for item in items {
        let path = format!("{path}[{name}={item}]");
        compare(&path, from.get(*item).copied(), to.get(*item).copied(), found);
    }
}

fn tells_apart(list: &[Value], name: &str) -> bool {
    by_name(list, name).len() == list.len()
}

fn by_name<'a>(list: &'a [Value], name: &str) -> BTreeMap<&'a str, &'a Value> {
    list.iter().filter_map(|item| Some((item.get(name)?.as_str()?, item))).collect()
}

/// A field's path; a name that isn't a plain word is quoted.
fn below(path: &str, field: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    match (path.is_empty(), field.chars().all(plain)) {
        (true, true) => field.to_owned(),
        (false, true) => format!("{path}.{field}"),
        (_, false) => format!("{path}[{field:?}]"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn shown(from: Value, to: Value) -> Vec<String> {
        let text = |value: Option<Value>| value.map_or("-".to_owned(), |value| value.to_string());
        let line =
            |change: FieldChange| format!("{}: {} {}", change.path, text(change.from), text(change.to));
        changes(&from, &to).into_iter().map(line).collect()
    }

    #[test]
    fn fields_are_named_by_their_paths() {
        let from = json!({"metadata": {"resourceVersion": "1", "labels": {"app.io/x": "a"}}, "spec": {
            "replicas": 1, "list": [1, 2], "c": [{"name": "web", "image": "a"}, {"name": "old"}]}});
        let to = json!({"metadata": {"resourceVersion": "2", "labels": {"app.io/x": "b"}}, "spec": {
            "replicas": 3, "list": [2], "c": [{"name": "new"}, {"name": "web", "image": "b"}]}});
        assert_eq!(
            shown(from, to),
            [
                r#"metadata.labels["app.io/x"]: "a" "b""#,
                r#"spec.c[name=new]: - {"name":"new"}"#,
                r#"spec.c[name=old]: {"name":"old"} -"#,
                r#"spec.c[name=web].image: "a" "b""#,
                "spec.list: [1,2] [2]",
                "spec.replicas: 1 3",
            ]
        );
    }

    #[test]
    fn items_without_names_are_compared_as_a_whole() {
        assert_eq!(shown(json!({"a": [{"x": 1}]}), json!({"a": [{"x": 2}]})), [r#"a: [{"x":1}] [{"x":2}]"#]);
        assert_eq!(
            shown(json!({"a": [{"name": "b"}, {"name": "b"}]}), json!({"a": []})),
            [r#"a: [{"name":"b"},{"name":"b"}] []"#]
        );
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<u8>().prop_map(Value::from), "[ab]".prop_map(Value::from)];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("(name|type|x|y)", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Nothing is said exactly if nothing differs but the order of named items, and both directions tell the same.
        #[test]
        fn a_difference_reads_the_same_backwards(from in value(), to in value()) {
            let there = changes(&from, &to);
            let back: Vec<FieldChange> = changes(&to, &from)
                .into_iter()
                .map(|change| FieldChange { path: change.path, from: change.to, to: change.from })
                .collect();
            prop_assert_eq!(&there, &back);
            prop_assert!(changes(&from, &from).is_empty());
            prop_assert!(there.iter().all(|change| change.from != change.to));
        }
    }
}
