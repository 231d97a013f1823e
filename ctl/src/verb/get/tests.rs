//! Pages are joined, and what a watch tells joins what was shown.

use super::*;
use crate::cluster::kinds::testing::kind;
use serde_json::json;

#[test]
fn pages_are_joined() {
    let mut whole = Value::Null;
    append(&mut whole, json!({"metadata": {"continue": "x"}, "items": [1, 2]}), "items");
    append(&mut whole, json!({"metadata": {}, "items": [3]}), "items");
    assert_eq!(whole["items"], json!([1, 2, 3]));
}

#[test]
fn items_of_a_list_get_their_kind() {
    let one = Selected { kind: kind("deploy"), name: None };
    let found: Vec<Value> = items(&one, json!({"items": [{"metadata": {"name": "a"}}]})).collect();
    assert_eq!(found, [json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}})]);
}

#[test]
fn a_kind_that_comes_again_joins_its_table() {
    let one = |word: &str, name: &str| Selected { kind: kind(word), name: Some(name.to_owned()) };
    let groups = by_kind(&[one("pods", "a"), one("deploy", "b"), one("pods", "c")]);
    assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn later_tables_of_a_watch_get_the_columns_of_the_first() {
    let mut columns = Value::Null;
    remember_columns(&mut columns, &mut json!({"columnDefinitions": [{"name": "A"}]}));
    let mut later = json!({"columnDefinitions": null, "rows": []});
    remember_columns(&mut columns, &mut later);
    assert_eq!(later["columnDefinitions"], json!([{"name": "A"}]));
}

#[test]
fn a_watch_starts_after_what_was_shown() {
    assert_eq!(list_version(&json!({"metadata": {"resourceVersion": "5"}})), "5");
    let table = json!({"metadata": {}, "rows": [{"object": {"metadata": {"resourceVersion": "6"}}}]});
    assert_eq!(list_version(&table), "6");
    assert_eq!(list_version(&Value::Null), "0");
}
