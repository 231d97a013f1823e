//! The part of a custom object that is the same for every kind: `apiVersion`, `kind` and `metadata`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::schema::{CompileError, Field, Link, Object, PatchStrategy, Schema, Shape};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// A type that has metadata and otherwise takes anything: a custom object before its own schema judges it.
pub fn envelope() -> &'static Schema {
    static ENVELOPE: OnceLock<Schema> = OnceLock::new();
    ENVELOPE.get_or_init(|| Schema {
        go_type: "unstructured.Unstructured".into(),
        shape: Shape::Object(Object {
            fields: envelope_fields(),
            required: Vec::new(),
            zeroed: Vec::new(),
            preserve_unknown: true,
        }),
        atomic: false,
    })
}

fn envelope_fields() -> BTreeMap<String, Field> {
    let text = || Link::inline(Schema { go_type: "string".into(), shape: Shape::String, atomic: false });
    let field = |schema| Field { schema, patch: PatchStrategy::default() };
    BTreeMap::from([
        ("apiVersion".to_owned(), field(text())),
        ("kind".to_owned(), field(text())),
        ("metadata".to_owned(), field(Link::builtin(OBJECT_META))),
    ])
}

/// The type of a custom kind, as ownership of fields sees it. Errors: [`CompileError`].
pub fn typed(kind: &str, version: &str, json: &Value) -> Result<Schema, CompileError> {
    let mut schema = Schema::compile(&format!("{version}.{kind}"), json)?;
    match &mut schema.shape {
        Shape::Object(object) => object.fields.extend(envelope_fields()),
        _ => return Schema::compile(&format!("{version}.{kind}"), &json!({"type": "object"})),
    }
    Ok(schema)
}
