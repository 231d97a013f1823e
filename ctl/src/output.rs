//! `-o`: in which form objects are shown.

use std::str::FromStr;

use api::jsonpath::Template;
use serde_json::{Value, json};

use crate::cluster::kinds::Kind;
use crate::print::table::simple;

/// The forms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The server's Table.
    #[default]
    Table,
    /// The server's Table with all columns.
    Wide,
    /// As a manifest.
    Yaml,
    /// Indented by four, as kubectl does.
    Json,
    /// `pod/web`
    Name,
    /// kubectl's template language.
    JsonPath(String),
    /// Column names and their JSONPath expressions.
    Columns(Vec<(String, String)>),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, argument) = text.split_once('=').unwrap_or((text, ""));
        match (name, argument) {
            ("wide", "") => Ok(Self::Wide),
            ("yaml", "") => Ok(Self::Yaml),
            ("json", "") => Ok(Self::Json),
            ("name", "") => Ok(Self::Name),
            ("jsonpath" | "custom-columns", "") => Err(format!("{name} needs a value: {name}=…")),
            ("jsonpath", template) => Ok(Self::JsonPath(template.to_owned())),
            ("custom-columns", spec) => columns(spec).map(Self::Columns),
            _ => {
                Err("allowed are wide, yaml, json, name, jsonpath=TEMPLATE, custom-columns=NAME:PATH,…"
                    .into())
            }
        }
    }
}

fn columns(spec: &str) -> Result<Vec<(String, String)>, String> {
    let column = |part: &str| match part.split_once(':') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), relaxed(path))),
        _ => Err(format!("custom-columns: expected NAME:PATH, but found \"{part}\"")),
    };
    spec.split(',').map(column).collect()
}

/// `.a.b`, `a.b` and `{.a.b}` all mean the same.
fn relaxed(path: &str) -> String {
    let inner = path.trim_start_matches('{').trim_end_matches('}');
    format!("{{.{}}}", inner.trim_start_matches('.'))
}

impl Format {
    /// Whether the server's Table is what is shown.
    pub fn is_table(&self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }

    /// One object, with a line end, in any form but the server's Table.
    pub fn object(&self, kind: &Kind, object: &Value) -> Result<String, String> {
        match self {
            Self::Table | Self::Wide | Self::Name => Ok(format!("{}\n", name(kind, object))),
            Self::Yaml => Ok(api::yaml::to_yaml(object)),
            Self::Json => Ok(json(object)),
            Self::JsonPath(template) => jsonpath(template, object),
            Self::Columns(columns) => table(columns, std::slice::from_ref(object)),
        }
    }

    /// Several objects as one `List`, or one after the other where the form has no lists.
    pub fn list(&self, objects: &[(Kind, Value)]) -> Result<String, String> {
        let items: Vec<Value> = objects.iter().map(|(_, object)| object.clone()).collect();
        match self {
            Self::Table | Self::Wide | Self::Name => {
                Ok(objects.iter().map(|(kind, object)| format!("{}\n", name(kind, object))).collect())
            }
            Self::Yaml => Ok(api::yaml::to_yaml(&list_of(items))),
            Self::Json => Ok(json(&list_of(items))),
            Self::JsonPath(template) => jsonpath(template, &list_of(items)),
            Self::Columns(columns) => table(columns, &items),
        }
    }
}

fn list_of(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

/// `pod/web`, `deployment.apps/web`
pub fn name(kind: &Kind, object: &Value) -> String {
    format!("{}/{}", kind.printed(), api::object::name(object))
}

fn json(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(value, &mut serializer)
        .expect("a Value with text keys always has a JSON form");
    bytes.push(b'\n');
    String::from_utf8(bytes).expect("serde_json writes UTF-8")
}

fn jsonpath(template: &str, value: &Value) -> Result<String, String> {
    let parsed =
        Template::parse_relaxed(template).map_err(|error| format!("jsonpath: {error}"))?.allow_missing_keys();
    parsed.render(value).map_err(|error| format!("jsonpath: {error}"))
}

fn table(columns: &[(String, String)], objects: &[Value]) -> Result<String, String> {
    let header: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let row =
        |object: &Value| columns.iter().map(|(_, path)| column(path, object)).collect::<Result<Vec<_>, _>>();
    let rows = objects.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    Ok(simple(&header, rows).join("\n") + "\n")
}

/// A field that an object doesn't have is `<none>`: with custom columns that is normal.
fn column(path: &str, object: &Value) -> Result<String, String> {
    let parsed =
        Template::parse(path).map_err(|error| format!("custom-columns: {error}"))?.allow_missing_keys();
    let text = parsed.render(object).unwrap_or_default();
    Ok(if text.is_empty() { "<none>".to_owned() } else { text })
}

/// Removes what only other programs read.
pub fn without_managed_fields(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::kinds::testing::kind;

    fn object() -> Value {
        json!({"kind": "Pod", "metadata": {"name": "web", "labels": {"a": "b"}}})
    }

    #[test]
    fn forms_are_parsed_with_their_arguments() {
        assert_eq!("wide".parse(), Ok(Format::Wide));
        assert_eq!("jsonpath={.a}".parse(), Ok(Format::JsonPath("{.a}".into())));
        let columns = Format::Columns(vec![("N".into(), "{.a.b}".into()), ("M".into(), "{.c}".into())]);
        assert_eq!("custom-columns=N:.a.b,M:{.c}".parse(), Ok(columns));
        assert!("jsonpath".parse::<Format>().is_err());
        assert!("xml".parse::<Format>().is_err());
    }

    #[test]
    fn an_object_in_each_form() {
        let shown = |format: &str| {
            let format: Format = format.parse().expect("a known form");
            format.object(&kind("pods"), &object()).expect("shown")
        };
        assert_eq!(shown("name"), "pod/web\n");
        assert_eq!(shown("jsonpath={.metadata.name}"), "web");
        assert!(shown("json").starts_with("{\n    \"kind\": \"Pod\""));
        assert!(shown("yaml").contains("name: web"));
        assert_eq!(shown("custom-columns=NAME:.metadata.name,X:.spec.x"), "NAME   X\nweb    <none>\n");
    }

    #[test]
    fn several_objects_are_a_list() {
        let objects = [(kind("pods"), object()), (kind("deploy"), object())];
        let text = Format::Json.list(&objects).expect("shown");
        let list: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((list["kind"].as_str(), list["items"].as_array().map(Vec::len)), (Some("List"), Some(2)));
        assert_eq!(Format::Name.list(&objects).expect("shown"), "pod/web\ndeployment.apps/web\n");
    }
}
