//! Properties of pruning, defaulting and validation, on random schemas and objects.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::structural::Structural;
use super::{default, prune, validate_object};

/// A schema node whose default, if it has one, is of its type.
fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "string"})),
        Just(json!({"type": "string", "default": "d", "maxLength": 3})),
        Just(json!({"type": "integer", "minimum": 1})),
        Just(json!({"type": "integer", "default": 7, "nullable": true})),
        Just(json!({"type": "boolean", "nullable": true})),
        Just(json!({"x-kubernetes-int-or-string": true})),
        Just(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let fields = prop::collection::btree_map("[a-d]", inner.clone(), 0..4);
        prop_oneof![
            (fields, any::<bool>(), any::<bool>()).prop_map(|(fields, open, filled)| {
                let mut node = json!({"type": "object", "properties": fields});
                if open {
                    node["x-kubernetes-preserve-unknown-fields"] = json!(true);
                }
                if filled {
                    node["default"] = json!({});
                }
                node
            }),
            inner.clone().prop_map(|items| json!({"type": "array", "items": items})),
            inner.prop_map(|values| json!({"type": "object", "additionalProperties": values})),
        ]
    })
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..9).prop_map(Value::from),
        "[a-z]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-e]", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn pruning_and_defaulting_again_change_nothing(node in schema(), value in value()) {
        let schema = Structural::compile(&json!({"type": "object", "properties": {"spec": node}}));
        let mut object = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "x"}, "spec": value});
        prune(&schema, &mut object);
        prop_assert!(prune(&schema, &mut object.clone()).is_empty(), "nothing unknown is left");
        default(&schema, &mut object);
        let once = object.clone();
        prop_assert!(prune(&schema, &mut object).is_empty(), "defaults are known");
        default(&schema, &mut object);
        prop_assert_eq!(once, object);
    }

    #[test]
    fn what_did_not_change_is_tolerated(node in schema(), value in value()) {
        let schema = Structural::compile(&json!({"type": "object", "properties": {"spec": node}}));
        let object = json!({"spec": value});
        let errors = validate_object(&schema, &object, Some(&object));
        prop_assert!(errors.is_empty(), "{errors:?}");
    }
}
