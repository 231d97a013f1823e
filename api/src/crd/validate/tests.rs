//! Objects against a structural schema, and what is said of each.

use serde_json::json;

use super::*;

fn texts(schema: Value, value: Value) -> Vec<String> {
    let schema = json!({"type": "object", "properties": {"spec": schema}});
    let errors = validate(&Structural::compile(&schema), &json!({"spec": value}), None);
    errors.iter().map(FieldError::to_string).collect()
}

#[test]
fn texts_are_upstreams() {
    let cases = [
        (
            json!({"type": "integer"}),
            json!("x"),
            r#"spec: Invalid value: "string": spec in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "string"}),
            json!(null),
            r#"spec: Invalid value: "null": spec in body must be of type string: "null""#,
        ),
        (
            json!({"type": "integer", "maximum": 10}),
            json!(15),
            "spec: Invalid value: 15: spec in body should be less than or equal to 10",
        ),
        (
            json!({"type": "number", "minimum": 0.5, "exclusiveMinimum": true}),
            json!(0.5),
            "spec: Invalid value: 0.5: spec in body should be greater than 0.5",
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            r#"spec: Invalid value: "b": spec in body should match '^a+$'"#,
        ),
        (
            json!({"type": "string", "maxLength": 1}),
            json!("bb"),
            "spec: Too long: may not be more than 1 bytes",
        ),
        (
            json!({"type": "string", "format": "date"}),
            json!("bb"),
            r#"spec: Invalid value: "bb": spec in body must be of type date: "bb""#,
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            r#"spec: Unsupported value: "c": supported values: "a", "b""#,
        ),
        (json!({"type": "object", "required": ["a"]}), json!({}), "spec.a: Required value"),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                   "items": {"type": "object"}}),
            json!([{"k": 1}, {"k": 1}]),
            r#"spec[1]: Duplicate value: {"k":1}"#,
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            r#"spec: Invalid value: "boolean": spec in body must be of type integer,string: "boolean""#,
        ),
        (
            json!({"type": "array", "maxItems": 1, "items": {"type": "integer"}}),
            json!([1, 2]),
            "spec: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"type": "integer", "not": {"enum": [1]}}),
            json!(1),
            r#"<nil>: Invalid value: "": "spec" must not validate the schema (not)"#,
        ),
    ];
    for (schema, value, text) in cases {
        assert_eq!(texts(schema, value), [text]);
    }
}

#[test]
fn one_of_tells_what_the_nearest_lacks() {
    let schema = json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    assert_eq!(
        texts(schema.clone(), json!({})),
        [
            r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid"#,
            "spec.a: Required value",
        ]
    );
    assert_eq!(
        texts(schema, json!({"a": 1, "b": 1})),
        [
            r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#
        ]
    );
}

#[test]
fn nullable_values_may_be_null() {
    assert!(texts(json!({"type": "string", "nullable": true}), json!(null)).is_empty());
}
