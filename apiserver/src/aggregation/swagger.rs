//! OpenAPI v2 of API servers behind ours, and its place in the one document that ours answers with. No I/O.
//!
//! There, definitions of all servers share one space of names. As upstream does, one that is another's by its name
//! but not by its content gets a name of its own.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

const DEFINITIONS: &str = "#/definitions/";
const PARAMETERS: &str = "#/parameters/";

/// What a server's document says of a group and version.
#[derive(Debug, PartialEq)]
pub struct Swagger {
    /// The tag under which the server knows this state of its document.
    pub tag: String,
    /// Where its resources are: `/apis/GROUP/VERSION`.
    root: String,
    paths: Map<String, Value>,
    /// What the paths need, and what those need.
    definitions: Map<String, Value>,
}

impl Swagger {
    /// The part of a document that is about a group and version.
    pub fn of(tag: &str, document: &Value, group: &str, version: &str) -> Self {
        let root = format!("/apis/{group}/{version}");
        let mut paths: Map<String, Value> = entries(&document["paths"])
            .filter(|(path, _)| is_below(path, &root))
            .map(|(path, item)| (path.clone(), item.clone()))
            .collect();
        paths.values_mut().for_each(|item| inline_parameters(item, &document["parameters"]));
        let definitions = needed(&paths, &document["definitions"]);
        Self { tag: tag.to_owned(), root, paths, definitions }
    }

    /// Puts the part into the whole document: what stands there of the group and version is another's.
    pub fn merge_into(&self, whole: &mut Value) {
        let mut renamed = BTreeMap::new();
        for (name, definition) in &self.definitions {
            let free = free_name(&whole["definitions"], name, definition);
            if free != *name {
                renamed.insert(format!("{DEFINITIONS}{name}"), format!("{DEFINITIONS}{free}"));
            }
        }
        let own = |name: &String| {
            renamed
                .get(&format!("{DEFINITIONS}{name}"))
                .map_or(name.clone(), |new| new[DEFINITIONS.len()..].into())
        };
        if let Some(all) = whole["paths"].as_object_mut() {
            all.retain(|path, _| !is_below(path, &self.root));
            all.extend(self.paths.iter().map(|(path, item)| (path.clone(), with_names(item, &renamed))));
        }
        if let Some(all) = whole["definitions"].as_object_mut() {
            let definitions = self.definitions.iter();
            all.extend(definitions.map(|(name, given)| (own(name), with_names(given, &renamed))));
        }
    }
}

fn entries(map: &Value) -> impl Iterator<Item = (&String, &Value)> {
    map.as_object().into_iter().flatten()
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Parameters that operations share stand beside the paths; they are put into their places.
fn inline_parameters(value: &mut Value, shared: &Value) {
    let name = value["$ref"].as_str().and_then(|name| name.strip_prefix(PARAMETERS));
    if let Some(parameter) = name.and_then(|name| shared.get(name)) {
        *value = parameter.clone();
        return;
    }
    each_child(value, &mut |child| inline_parameters(child, shared));
}

fn each_child(value: &mut Value, act: &mut dyn FnMut(&mut Value)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(act),
        Value::Object(map) => map.values_mut().for_each(act),
        _ => {}
    }
}

/// The definitions that paths refer to, directly or through others.
fn needed(paths: &Map<String, Value>, all: &Value) -> Map<String, Value> {
    let mut names = BTreeSet::new();
    paths.values().for_each(|item| references(item, &mut names));
    let mut found = Map::new();
    while let Some(name) = names.pop_first() {
        if found.contains_key(&name) {
            continue;
        }
        if let Some(definition) = all.get(&name) {
            references(definition, &mut names);
            found.insert(name, definition.clone());
        }
    }
    found
}

fn references(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, names)),
        Value::Object(map) => {
            let name =
                map.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix(DEFINITIONS));
            names.extend(name.map(str::to_owned));
            map.values().for_each(|child| references(child, names));
        }
        _ => {}
    }
}

/// The name itself if it is free or the same is meant by it, else the first that is with a number.
fn free_name(taken: &Value, name: &str, definition: &Value) -> String {
    let is_free = |name: &String| taken.get(name).is_none_or(|other| other == definition);
    let numbered = (2..).map(|number: u32| format!("{name}_v{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(is_free).expect("there are more numbers than definitions")
}

/// The value with its references by their new names.
fn with_names(value: &Value, renamed: &BTreeMap<String, String>) -> Value {
    let mut value = value.clone();
    if !renamed.is_empty() {
        rename(&mut value, renamed);
    }
    value
}

fn rename(value: &mut Value, renamed: &BTreeMap<String, String>) {
    if let Some(new) = value["$ref"].as_str().and_then(|name| renamed.get(name)) {
        value["$ref"] = Value::from(new.clone());
    }
    each_child(value, &mut |child| rename(child, renamed));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn theirs() -> Value {
        let refers = |name: &str| json!({"$ref": format!("#/definitions/{name}")});
        let get = json!({"responses": {"200": {"schema": refers("w.Flunder")}}, "parameters": [{"$ref": "#/parameters/limit"}]});
        json!({
            "paths": {
                "/apis/w.example/v1/flunders": {"get": get},
                "/apis/w.example/v10/flunders": {},
                "/version/": {"get": {"schema": refers("Version")}},
            },
            "definitions": {
                "Version": {},
                "w.Flunder": {"properties": {"metadata": refers("ObjectMeta"), "next": refers("w.Flunder")}},
                "ObjectMeta": {"description": "newer"},
            },
            "parameters": {"limit": {"name": "limit", "in": "query", "type": "integer"}},
        })
    }

    #[test]
    fn a_part_is_what_a_version_needs() {
        let part = Swagger::of("t", &theirs(), "w.example", "v1");
        let names = |map: &Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&part.paths), ["/apis/w.example/v1/flunders"]);
        assert_eq!(names(&part.definitions), ["ObjectMeta", "w.Flunder"]);
        let parameter = &part.paths["/apis/w.example/v1/flunders"]["get"]["parameters"][0];
        assert_eq!(parameter["name"], "limit");
    }

    #[test]
    fn definitions_of_one_name_are_told_apart() {
        let part = Swagger::of("t", &theirs(), "w.example", "v1");
        let mut whole = json!({
            "paths": {"/api/v1/pods": {}, "/apis/w.example/v1/old": {}},
            "definitions": {"ObjectMeta": {"description": "ours"}, "Pod": {}},
        });
        part.merge_into(&mut whole);
        let paths: Vec<&String> = entries(&whole["paths"]).map(|(path, _)| path).collect();
        assert_eq!(paths, ["/api/v1/pods", "/apis/w.example/v1/flunders"]);
        assert_eq!(whole["definitions"]["ObjectMeta"]["description"], "ours");
        assert_eq!(whole["definitions"]["ObjectMeta_v2"]["description"], "newer");
        let fields = &whole["definitions"]["w.Flunder"]["properties"];
        assert_eq!(fields["metadata"]["$ref"], "#/definitions/ObjectMeta_v2");
        assert_eq!(fields["next"]["$ref"], "#/definitions/w.Flunder");

        let once = whole.clone();
        Swagger::of("t", &once, "w.example", "v1").merge_into(&mut whole);
        assert_eq!(whole, once, "what is meant is there already");
    }
}
