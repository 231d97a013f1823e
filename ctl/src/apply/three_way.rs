//! From three states of an object to a strategic merge patch.
//!
//! What the user wants now and the live object has differently is set. What the user wanted last time and no
//! longer wants is removed. Everything else, such as defaults and the work of controllers, is left alone.
//! Lists that have a merge key are treated item by item; others are replaced as a whole. Applying the patch
//! to the live object gives an object from which the same comparison yields an empty patch.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// How a list is merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListMerge {
    /// The new list takes the place of the old one.
    Replace,
    /// A set of plain values.
    Values,
    /// Objects with this key.
    ByKey(String),
}

/// What the patch strategy of a type says about one place in an object.
pub trait Rules: Clone {
    /// The rules of a field of this object.
    fn field(&self, name: &str) -> Self;
    /// The rules of an item of this list.
    fn item(&self) -> Self;
    /// How this list is merged.
    fn list(&self) -> ListMerge;
    /// Whether the patch must name all fields to keep (`$retainKeys`), as unions need.
    fn retains_keys(&self) -> bool;
}

type Object = Map<String, Value>;

/// The patch that brings `live` to `wanted`, given what was applied last. Empty if nothing is to do.
pub fn patch<R: Rules>(last: Option<&Value>, live: &Value, wanted: &Value, rules: &R) -> Value {
    let empty = Object::new();
    let object = |value: Option<&'_ Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let last = object(last);
    let live = live.as_object().unwrap_or(&empty);
    let wanted = wanted.as_object().unwrap_or(&empty);
    Value::Object(objects(&last, live, wanted, rules))
}

fn objects<R: Rules>(last: &Object, live: &Object, wanted: &Object, rules: &R) -> Object {
    let mut patch = Object::new();
    for (name, value) in wanted {
        field(&mut patch, name, last.get(name), live.get(name), value, &rules.field(name));
    }
    for name in last.keys().filter(|name| !wanted.contains_key(*name) && live.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    if rules.retains_keys() && !patch.is_empty() {
        let kept: Vec<&String> =
            wanted.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name).collect();
        patch.insert("$retainKeys".to_owned(), json!(kept));
    }
    patch
}

fn field<R: Rules>(
    patch: &mut Object,
    name: &str,
    last: Option<&Value>,
    live: Option<&Value>,
    wanted: &Value,
    rules: &R,
) {
    match (live, wanted) {
        (None, Value::Null) => {}
        (Some(Value::Object(live)), Value::Object(wanted)) => {
            let empty = Object::new();
            let last = last.and_then(Value::as_object).unwrap_or(&empty);
            let inner = objects(last, live, wanted, rules);
            if !inner.is_empty() {
                patch.insert(name.to_owned(), Value::Object(inner));
            }
        }
        (Some(Value::Array(live)), Value::Array(wanted)) => {
            let last = last.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            list(patch, name, last, live, wanted, rules);
        }
        (Some(live), wanted) if live == wanted => {}
        _ => {
            patch.insert(name.to_owned(), wanted.clone());
        }
    }
}

fn list<R: Rules>(
    patch: &mut Object,
    name: &str,
    last: &[Value],
    live: &[Value],
    wanted: &[Value],
    rules: &R,
) {
    match rules.list() {
        ListMerge::Replace if live == wanted => {}
        ListMerge::Replace => {
            patch.insert(name.to_owned(), Value::from(wanted));
        }
        ListMerge::Values => values(patch, name, last, live, wanted),
        ListMerge::ByKey(key) => keyed(patch, name, last, live, wanted, (&key, &rules.item())),
    }
}

fn values(patch: &mut Object, name: &str, last: &[Value], live: &[Value], wanted: &[Value]) {
    let added: Vec<&Value> = wanted.iter().filter(|value| !live.contains(value)).collect();
    let removed: Vec<&Value> =
        last.iter().filter(|value| !wanted.contains(value) && live.contains(value)).collect();
    if added.is_empty() && removed.is_empty() {
        return;
    }
    patch.insert(format!("$setElementOrder/{name}"), Value::from(wanted));
    if !added.is_empty() {
        patch.insert(name.to_owned(), json!(added));
    }
    if !removed.is_empty() {
        patch.insert(format!("$deleteFromPrimitiveList/{name}"), json!(removed));
    }
}

fn keyed<R: Rules>(
    patch: &mut Object,
    name: &str,
    last: &[Value],
    live: &[Value],
    wanted: &[Value],
    (key, rules): (&str, &R),
) {
    let mut items: Vec<Value> = wanted
        .iter()
        .filter_map(|item| changed(item, find(last, key, item), find(live, key, item), key, rules))
        .collect();
    let removed =
        last.iter().filter(|item| find(wanted, key, item).is_none() && find(live, key, item).is_some());
    items.extend(removed.map(|item| json!({"$patch": "delete", key: item[key]})));
    if items.is_empty() && same_order(live, wanted, key) {
        return;
    }
    let order: Vec<Value> = wanted.iter().map(|item| json!({key: item[key]})).collect();
    patch.insert(format!("$setElementOrder/{name}"), Value::Array(order));
    if !items.is_empty() {
        patch.insert(name.to_owned(), Value::Array(items));
    }
}

/// The patch of one item, with its key; `None` if it is as it should be.
fn changed<R: Rules>(
    wanted: &Value,
    last: Option<&Value>,
    live: Option<&Value>,
    key: &str,
    rules: &R,
) -> Option<Value> {
    let Some(live) = live else { return Some(wanted.clone()) };
    let mut inner = patch(last, live, wanted, rules);
    if inner.as_object().is_some_and(Map::is_empty) {
        return None;
    }
    inner[key] = wanted[key].clone();
    Some(inner)
}

fn find<'a>(items: &'a [Value], key: &str, like: &Value) -> Option<&'a Value> {
    items.iter().find(|item| !item[key].is_null() && item[key] == like[key])
}

/// Whether the items that both lists have stand in the same order.
fn same_order(live: &[Value], wanted: &[Value], key: &str) -> bool {
    let keys = |items: &[Value]| items.iter().map(|item| item[key].to_string()).collect::<Vec<_>>();
    let (live, wanted) = (keys(live), keys(wanted));
    let common: BTreeSet<&String> = live.iter().filter(|key| wanted.contains(key)).collect();
    let of = |keys: &[String]| keys.iter().filter(|key| common.contains(key)).cloned().collect::<Vec<_>>();
    of(&live) == of(&wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::golden;

    /// `containers` merge by name, `finalizers` as values, `strategy` retains keys, the rest is replaced.
    #[derive(Clone)]
    struct ByName(String);

    impl Rules for ByName {
        fn field(&self, name: &str) -> Self {
            Self(name.to_owned())
        }
        fn item(&self) -> Self {
            Self(String::new())
        }
        fn list(&self) -> ListMerge {
            match self.0.as_str() {
                "containers" | "env" => ListMerge::ByKey("name".into()),
                "finalizers" => ListMerge::Values,
                _ => ListMerge::Replace,
            }
        }
        fn retains_keys(&self) -> bool {
            self.0 == "strategy"
        }
    }

    /// Each case is three YAML flow lines: last, live, wanted; the output is the patch.
    #[test]
    fn patches() {
        golden::check("testdata/three_way.txt", |input| {
            let mut states = input.lines().map(|line| {
                let (name, text) = line.split_once(' ').expect("name and state");
                let value: Value = serde_yaml::from_str(text).expect("a YAML flow value");
                (name.to_owned(), value)
            });
            let mut state = |name: &str| {
                let (found, value) = states.next().expect("three states");
                assert_eq!(found, name);
                value
            };
            let (last, live, wanted) = (state("last"), state("live"), state("wanted"));
            format!("{}\n", patch(Some(&last), &live, &wanted, &ByName(String::new())))
        });
    }
}
