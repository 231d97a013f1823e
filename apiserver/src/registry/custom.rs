//! Rows of custom resources: what a CustomResourceDefinition says, as the registry has it.

use std::cmp::Reverse;
use std::sync::Arc;

use api::crd::{Structural, typed};
use api::jsonpath::Template;
use api::schema::Schema;
use serde_json::{Value, json};

use crate::crd::conversion::Converter;
use crate::registry::resource::{
    Resource, SelectableField, Subresource, SubresourceAction, Verbs, group_version,
};
use crate::request::Verb;
use crate::strategies::Custom as CustomStrategy;
use crate::table::{Cell, Column};
use crate::webhook::Webhooks;

/// What a row of a custom resource holds besides the ordinary.
#[derive(Debug)]
pub struct Custom {
    /// What its objects must look like.
    pub structural: Structural,
    /// The same as ownership of fields sees it.
    pub schema: Schema,
    /// The definition that OpenAPI publishes, without what all kinds have.
    pub openapi: Value,
    /// Where its objects keep the numbers of a Scale.
    pub scale: Option<ScalePaths>,
    /// Who converts objects between versions; nobody if only the version's name differs.
    pub converter: Option<Converter>,
    /// The `apiVersion` of stored objects.
    pub stored_as: String,
    /// No new objects: the definition is being deleted.
    pub terminating: bool,
    /// What a client of this version is warned of.
    pub warning: Option<String>,
    /// Tells compiled definitions apart: another state of the definition has another number.
    pub state: String,
}

/// Where the objects of a kind keep the numbers of a Scale, as JSON pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// The wanted number.
    pub spec: String,
    /// The present number.
    pub status: String,
    /// The selector of the replicas, as a text, if it is kept.
    pub selector: Option<String>,
}

/// The rows of a definition's served versions; none until its names are accepted.
pub fn rows(crd: &Value, webhooks: &Webhooks) -> Vec<Resource> {
    if condition(crd, "Established") != Some("True") {
        return Vec::new();
    }
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    versions.filter(|version| version["served"] == true).map(|version| row(crd, version, webhooks)).collect()
}

/// Orders rows as discovery lists them: by group, the best version first, then by name.
pub fn order(resource: &Resource) -> impl Ord + use<> {
    (resource.group.clone(), Reverse(version_priority(&resource.version)), resource.plural.clone())
}

/// `v2` before `v1` before `v1beta2` before `v1alpha1` before anything else, which goes by name.
fn version_priority(version: &str) -> (u8, u64, u64, Reverse<String>) {
    let other = (0, 0, 0, Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse::<u64>() else { return other };
    let stage = |name: &str, rank: u8| {
        let minor = rest[digits..].strip_prefix(name)?.parse::<u64>().ok()?;
        Some((rank, major, minor, Reverse(String::new())))
    };
    match &rest[digits..] {
        "" => (3, major, 0, Reverse(String::new())),
        _ => stage("beta", 2).or_else(|| stage("alpha", 1)).unwrap_or(other),
    }
}

/// The status of a definition's condition.
pub fn condition<'a>(crd: &'a Value, kind: &str) -> Option<&'a str> {
    let mut all = crd["status"]["conditions"].as_array()?.iter();
    all.find(|condition| condition["type"] == kind)?["status"].as_str()
}

fn row(crd: &Value, version: &Value, webhooks: &Webhooks) -> Resource {
    let names = &crd["status"]["acceptedNames"];
    let (group, name) = (text(&crd["spec"], "group"), text(version, "name"));
    let terminating = api::object::is_deleting(crd);
    let custom = custom(crd, version, terminating, webhooks);
    let has_status = version["subresources"].get("status").is_some();
    Resource {
        group: group.to_owned(),
        version: name.to_owned(),
        kind: text(names, "kind").to_owned(),
        list_kind: text(names, "listKind").to_owned(),
        plural: text(names, "plural").to_owned(),
        singular: text(names, "singular").to_owned(),
        short_names: texts(names, "shortNames"),
        categories: texts(names, "categories"),
        namespaced: crd["spec"]["scope"] == "Namespaced",
        verbs: if terminating { Verbs::ALL.without(Verb::Create) } else { Verbs::ALL },
        subresources: subresources(group, name, text(names, "kind"), version),
        selectable_fields: selectable_fields(version),
        columns: columns(version),
        definition: definition_name(group, name, text(names, "kind")),
        stored_as: None,
        strategy: Arc::new(CustomStrategy { has_status }),
        custom: Some(Arc::new(custom)),
    }
}

fn custom(crd: &Value, version: &Value, terminating: bool, webhooks: &Webhooks) -> Custom {
    let schema = &version["schema"]["openAPIV3Schema"];
    let (group, name) = (text(&crd["spec"], "group"), text(version, "name"));
    let kind = text(&crd["spec"]["names"], "kind");
    let compiled = typed(kind, name, schema).or_else(|_| typed(kind, name, &json!({"type": "object"})));
    let stored = crd["spec"]["versions"].as_array().into_iter().flatten().find(|v| v["storage"] == true);
    Custom {
        structural: Structural::root(schema),
        schema: compiled.expect("an object without fields is a schema"),
        openapi: schema.clone(),
        converter: Converter::of(crd, webhooks),
        scale: scale_paths(&version["subresources"]["scale"]),
        stored_as: group_version(group, stored.map_or(name, |stored| text(stored, "name"))),
        terminating,
        warning: warning(version, group, kind),
        state: format!("{}/{name}@{}", api::object::uid(crd), api::object::generation(crd)),
    }
}

fn warning(version: &Value, group: &str, kind: &str) -> Option<String> {
    let own = version["deprecationWarning"].as_str().map(str::to_owned);
    let ordinary = || format!("{group}/{} {kind} is deprecated", text(version, "name"));
    (version["deprecated"] == true).then(|| own.unwrap_or_else(ordinary))
}

fn subresources(group: &str, version: &str, kind: &str, of: &Value) -> Vec<Subresource> {
    let make = |name: &str, (group, version, kind): (&str, &str, &str), action| Subresource {
        name: name.to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        verbs: Verbs::GET_PATCH_UPDATE,
        action,
    };
    let given = |name: &str| of["subresources"].get(name).is_some();
    let mut all = Vec::new();
    if given("scale") {
        all.push(make("scale", ("autoscaling", "v1", "Scale"), SubresourceAction::Scale));
    }
    if given("status") {
        all.push(make("status", (group, version, kind), SubresourceAction::Status));
    }
    all
}

fn scale_paths(scale: &Value) -> Option<ScalePaths> {
    let pointer = |key: &str| scale[key].as_str().filter(|path| !path.is_empty()).map(pointer_of);
    Some(ScalePaths {
        spec: pointer("specReplicasPath")?,
        status: pointer("statusReplicasPath")?,
        selector: pointer("labelSelectorPath"),
    })
}

/// `/spec/replicas` for `.spec.replicas`.
fn pointer_of(path: &str) -> String {
    path.replace('.', "/")
}

fn selectable_fields(version: &Value) -> Vec<SelectableField> {
    let paths = version["selectableFields"].as_array().into_iter().flatten();
    paths
        .filter_map(|field| field["jsonPath"].as_str())
        .map(|path| SelectableField {
            label: path.trim_start_matches('.').to_owned(),
            pointer: pointer_of(path),
        })
        .collect()
}

/// The name, and what the version asks for; the age if it asks for nothing.
fn columns(version: &Value) -> Vec<Column> {
    let given: Vec<Column> =
        version["additionalPrinterColumns"].as_array().into_iter().flatten().map(column).collect();
    let own = if given.is_empty() { vec![crate::table::custom_age()] } else { given };
    std::iter::once(crate::table::custom_name()).chain(own).collect()
}

fn column(spec: &Value) -> Column {
    let kind = text(spec, "type").to_owned();
    let description = match text(spec, "description") {
        "" => format!("Custom resource definition column (in JSONPath format): {}", text(spec, "jsonPath")),
        given => given.to_owned(),
    };
    let template = Template::parse_path(text(spec, "jsonPath")).map(Template::allow_missing_keys);
    Column {
        name: text(spec, "name").to_owned(),
        format: text(spec, "format").to_owned(),
        description,
        priority: i32::try_from(spec["priority"].as_i64().unwrap_or(0)).unwrap_or(0),
        cell: template.map_or(Cell::Text(String::new()), |path| Cell::Path {
            path: Arc::new(path),
            kind: kind.clone(),
        }),
        kind,
    }
}

/// `com.example.v1.CronTab` for `example.com/v1, CronTab`.
fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    let list = value[key].as_array().into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::services::Services;

    #[test]
    fn versions_are_ordered_as_kubernetes_does() {
        let mut versions =
            ["foo1", "v1alpha1", "v10", "v2", "v11beta2", "v1", "v3beta1", "foo10", "v11alpha2"];
        versions.sort_by_key(|version| Reverse(version_priority(version)));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v11beta2", "v3beta1", "v11alpha2", "v1alpha1", "foo1", "foo10"]
        );
    }

    #[test]
    fn a_definition_is_served_once_it_is_established() {
        let mut crd = json!({
            "metadata": {"uid": "u", "generation": 1},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"kind": "T"}, "versions": [
                {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
                 "schema": {"openAPIV3Schema": {"type": "object"}}, "deprecated": true},
                {"name": "v0", "served": false, "storage": false},
            ]},
            "status": {"acceptedNames": {"plural": "ts", "singular": "t", "kind": "T", "listKind": "TList"}},
        });
        let webhooks = Webhooks::new(Services::new(Arc::default()));
        assert!(rows(&crd, &webhooks).is_empty());
        crd["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
        let rows = rows(&crd, &webhooks);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].definition, "com.example.v1.T");
        let custom = rows[0].custom.as_ref().expect("a custom resource");
        assert_eq!(custom.warning.as_deref(), Some("example.com/v1 T is deprecated"));
        assert_eq!(custom.scale.as_ref().expect("scales").spec, "/spec/n");
        let headings: Vec<&str> = rows[0].columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(headings, ["Name", "Age"]);
    }
}
