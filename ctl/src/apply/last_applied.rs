//! The annotation that remembers what was applied, in kubectl's form.

use serde_json::{Map, Value};

/// kubectl's annotation.
pub const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// `object` with the annotation that describes it. An older annotation in it is not part of what it
/// describes.
pub fn annotated(object: &Value) -> Value {
    let mut described = object.clone();
    annotations(&mut described).remove(ANNOTATION);
    // kubectl writes one line, ended as its encoder ends every document.
    let text = format!("{described}\n");
    annotations(&mut described).insert(ANNOTATION.to_owned(), Value::String(text));
    described
}

/// What the annotation of a live object describes; `None` without one, or with one that isn't JSON.
pub fn of_live(live: &Value) -> Option<Value> {
    serde_json::from_str(live["metadata"]["annotations"][ANNOTATION].as_str()?).ok()
}

fn annotations(object: &mut Value) -> &mut Map<String, Value> {
    api::object::map_at(child(object, "metadata"), "annotations")
}

fn child<'a>(object: &'a mut Value, name: &str) -> &'a mut Value {
    let value = &mut object[name];
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_annotation_describes_the_object_without_itself() {
        let object =
            json!({"kind": "A", "metadata": {"name": "x", "annotations": {ANNOTATION: "old", "b": "c"}}});
        let annotated = annotated(&object);
        let text = annotated["metadata"]["annotations"][ANNOTATION].as_str().expect("annotated");
        assert_eq!(text, "{\"kind\":\"A\",\"metadata\":{\"annotations\":{\"b\":\"c\"},\"name\":\"x\"}}\n");
        assert_eq!(of_live(&annotated).expect("readable")["metadata"]["annotations"], json!({"b": "c"}));
    }

    #[test]
    fn annotating_twice_changes_nothing() {
        let once = annotated(&json!({"kind": "A", "metadata": {"name": "x"}}));
        assert_eq!(annotated(&once), once);
    }

    #[test]
    fn a_broken_annotation_is_none() {
        assert_eq!(of_live(&json!({"metadata": {"annotations": {ANNOTATION: "{"}}})), None);
        assert_eq!(of_live(&json!({})), None);
    }
}
