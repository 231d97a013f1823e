//! Golden tables: objects in YAML, what `kubectl get` shows of them as text.

use api::time;
use serde::Deserialize;

use super::*;

/// All objects are seen at this time.
const NOW: &str = "2026-05-01T12:00:00Z";

fn now() -> Timestamp {
    time::parse(NOW).expect("a time")
}

fn objects() -> Vec<Value> {
    let text = include_str!("../../testdata/table/objects.yaml");
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).expect("YAML"))
        .collect()
}

fn group_kind(object: &Value) -> (String, String) {
    let (group, _) = api::object::group_version(api::object::api_version(object));
    (group.to_owned(), api::object::kind(object).to_owned())
}

/// One block per kind: headings (wide ones in parentheses), then a row per object, cells as JSON.
fn render(group: &str, kind: &str, objects: &[&Value]) -> String {
    let columns = columns(group, kind);
    let heading = columns.iter().map(|column| match column.priority {
        0 => column.name.clone(),
        _ => format!("({})", column.name),
    });
    let mut text = format!("# {group} {kind}\n{}\n", heading.collect::<Vec<_>>().join(" | "));
    let table = to_table(&columns, objects.iter().copied(), IncludeObject::None, json!({}), true, now());
    for row in table["rows"].as_array().expect("rows") {
        let cells = row["cells"].as_array().expect("cells").iter().map(ToString::to_string);
        text.push_str(&cells.collect::<Vec<_>>().join(" | "));
        text.push('\n');
    }
    text + "\n"
}

#[test]
fn tables_are_as_they_were() {
    let objects = objects();
    let mut kinds: Vec<(String, String)> = objects.iter().map(group_kind).collect();
    kinds.dedup();
    let blocks = kinds.iter().map(|(group, kind)| {
        let of_kind: Vec<&Value> =
            objects.iter().filter(|object| group_kind(object) == (group.clone(), kind.clone())).collect();
        render(group, kind, &of_kind)
    });
    crate::golden::check("table/tables.txt", &blocks.collect::<String>());
}

#[test]
fn a_table_is_shaped_as_upstream() {
    let pod = objects().into_iter().find(|object| object["status"]["phase"] == "Succeeded").expect("a pod");
    let columns = columns("", "Pod");
    let meta = json!({ "resourceVersion": "7" });
    let table = to_table(&columns, [&pod], IncludeObject::Metadata, meta, true, now());
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["metadata"]["resourceVersion"], "7");
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
    let row = &table["rows"][0];
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(row["object"]["metadata"], pod["metadata"]);
    assert_eq!(row["conditions"][0]["type"], "Completed");

    let later = to_table(&columns, [&pod], IncludeObject::Object, json!({}), false, now());
    assert_eq!(later["columnDefinitions"], json!([]));
    assert_eq!(later["rows"][0]["object"], pod);
    let bare = to_table(&columns, [&pod], IncludeObject::None, json!({}), true, now());
    assert!(bare["rows"][0].get("object").is_none());
}

#[test]
fn include_object_takes_three_values() {
    let parse = IncludeObject::parse;
    assert_eq!(parse(None), Some(IncludeObject::Metadata));
    assert_eq!(parse(Some("Metadata")), Some(IncludeObject::Metadata));
    assert_eq!(parse(Some("Object")), Some(IncludeObject::Object));
    assert_eq!(parse(Some("None")), Some(IncludeObject::None));
    assert_eq!(parse(Some("All")), None);
}

#[test]
fn every_built_in_resource_shows_its_name_somewhere() {
    for resource in crate::registry::Registry::builtin().resources() {
        let names = resource.columns.iter().filter(|column| column.format == "name").count();
        assert_eq!(names, 1, "{resource:?}");
    }
}
