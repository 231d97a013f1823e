//! The `paths` of an OpenAPI v3 document: an item per URL of a resource, an operation per verb.
//!
//! What clients look for: the kind of each operation (`x-kubernetes-group-version-kind`), the parameters
//! `fieldValidation` and `dryRun` of a patch, and the patch types it takes.

use api::schema::Definitions;
use serde_json::{Map, Value, json};

use super::any;
use crate::registry::resource::{Resource, Subresource, Verbs};
use crate::request::Verb;

pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// The last is for built-in kinds only; kubectl applies to custom ones by a merge patch if it isn't listed.
const PATCH_TYPES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];
const LIST_PARAMETERS: [(&str, &str); 9] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
];
const WRITE_PARAMETERS: [(&str, &str); 3] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const DELETE_PARAMETERS: [(&str, &str); 3] =
    [("dryRun", "string"), ("gracePeriodSeconds", "integer"), ("propagationPolicy", "string")];

/// The kind that an operation is about, and its schema.
struct Target<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    schema: String,
    /// Whether a definition made the resource.
    is_custom: bool,
}

/// All paths of a resource with their items.
pub(super) fn of_resource(resource: &std::sync::Arc<Resource>) -> Vec<(String, Value)> {
    let target = Target {
        group: &resource.group,
        version: &resource.version,
        kind: &resource.kind,
        schema: resource.definition.clone(),
        is_custom: resource.custom.is_some(),
    };
    let root = format!("/{}", super::root(&resource.group, &resource.version));
    let plural = &resource.plural;
    let base = if resource.namespaced {
        format!("{root}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{root}/{plural}")
    };
    let mut paths =
        vec![(base.clone(), item(resource.namespaced, false, collection(resource.verbs, &target)))];
    if resource.namespaced && resource.verbs.contains(Verb::List) {
        let only_list = collection(Verbs::of(&[Verb::List]), &target);
        paths.push((format!("{root}/{plural}"), item(false, false, only_list)));
    }
    if any(resource.verbs, &[Verb::Get, Verb::Update, Verb::Patch, Verb::Delete]) {
        paths.push((
            format!("{base}/{{name}}"),
            item(resource.namespaced, true, single(resource.verbs, &target)),
        ));
    }
    paths.extend(resource.subresources.iter().filter_map(|sub| subresource(resource, &base, sub)));
    paths
}

fn subresource(resource: &Resource, base: &str, sub: &Subresource) -> Option<(String, Value)> {
    let namespaced = resource.namespaced;
    let is_own = sub.kind == resource.kind && sub.group == resource.group;
    let schema = subresource_definition(sub).or_else(|| is_own.then(|| resource.definition.clone()))?;
    let is_custom = resource.custom.is_some();
    let target = Target { group: &sub.group, version: &sub.version, kind: &sub.kind, schema, is_custom };
    let mut operations = single(sub.verbs, &target);
    operations.extend(
        collection(Verbs::of(&[Verb::Create]), &target)
            .into_iter()
            .filter(|_| sub.verbs.contains(Verb::Create)),
    );
    Some((format!("{base}/{{name}}/{}", sub.name), item(namespaced, true, operations)))
}

/// The schema of what is read and written at a subresource, if the definitions have it.
pub(super) fn subresource_definition(sub: &Subresource) -> Option<String> {
    Definitions::builtin().definition_of(&sub.group, &sub.version, &sub.kind).map(str::to_owned)
}

/// A path item: its operations, and the parameters in the path itself.
fn item(namespaced: bool, named: bool, operations: Map<String, Value>) -> Value {
    let in_path =
        |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
    let mut parameters = Vec::new();
    if named {
        parameters.push(in_path("name"));
    }
    if namespaced {
        parameters.push(in_path("namespace"));
    }
    let mut item = operations;
    if !parameters.is_empty() {
        item.insert("parameters".to_owned(), Value::Array(parameters));
    }
    Value::Object(item)
}

fn collection(verbs: Verbs, target: &Target<'_>) -> Map<String, Value> {
    let list = format!("{}List", target.schema);
    let mut operations = Map::new();
    if verbs.contains(Verb::List) {
        operations.insert("get".to_owned(), operation("list", target, &LIST_PARAMETERS, None, &list));
    }
    if verbs.contains(Verb::Create) {
        let body = body(&[JSON], &target.schema);
        operations.insert(
            "post".to_owned(),
            operation("post", target, &WRITE_PARAMETERS, Some(body), &target.schema),
        );
    }
    if verbs.contains(Verb::DeleteCollection) {
        let body = body(&[JSON], DELETE_OPTIONS);
        let parameters = [&LIST_PARAMETERS[..], &DELETE_PARAMETERS[..]].concat();
        operations.insert(
            "delete".to_owned(),
            operation("deletecollection", target, &parameters, Some(body), STATUS),
        );
    }
    operations
}

fn single(verbs: Verbs, target: &Target<'_>) -> Map<String, Value> {
    let mut operations = Map::new();
    if verbs.contains(Verb::Get) {
        operations.insert("get".to_owned(), operation("get", target, &[], None, &target.schema));
    }
    if verbs.contains(Verb::Update) {
        let body = body(&[JSON], &target.schema);
        operations.insert(
            "put".to_owned(),
            operation("put", target, &WRITE_PARAMETERS, Some(body), &target.schema),
        );
    }
    if verbs.contains(Verb::Patch) {
        let types = if target.is_custom { &PATCH_TYPES[..2] } else { &PATCH_TYPES[..] };
        let body = body(types, PATCH);
        operations.insert(
            "patch".to_owned(),
            operation("patch", target, &WRITE_PARAMETERS, Some(body), &target.schema),
        );
    }
    if verbs.contains(Verb::Delete) {
        let body = body(&[JSON], DELETE_OPTIONS);
        operations
            .insert("delete".to_owned(), operation("delete", target, &DELETE_PARAMETERS, Some(body), STATUS));
    }
    operations
}

const JSON: &str = "application/json";

fn operation(
    action: &str,
    target: &Target<'_>,
    parameters: &[(&str, &str)],
    body: Option<Value>,
    answer: &str,
) -> Value {
    let parameters = parameters.iter().map(|(name, kind)| {
        json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
    });
    let mut operation = json!({
        "parameters": parameters.collect::<Vec<_>>(),
        "responses": { "200": { "description": "OK", "content": content(&[JSON], answer) } },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            { "group": target.group, "version": target.version, "kind": target.kind },
    });
    if let Some(body) = body {
        operation["requestBody"] = body;
    }
    operation
}

fn body(types: &[&str], schema: &str) -> Value {
    json!({ "required": true, "content": content(types, schema) })
}

fn content(types: &[&str], schema: &str) -> Value {
    let schema = json!({ "schema": { "$ref": format!("#/components/schemas/{schema}") } });
    types.iter().map(|media_type| ((*media_type).to_owned(), schema.clone())).collect::<Map<_, _>>().into()
}
