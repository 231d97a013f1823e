//! From a request's body to an object of the expected kind.

use api::schema::{
    Definitions, FieldValidation, Format, Parsed, Schema, decode as decode_value, decode_custom, parse,
};
use api::status::Status;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use crate::error::Outcome;
use crate::protobuf;
use crate::registry::custom::Custom;
use crate::registry::resource::{Resource, group_version};
use crate::verbs::Call;

const ACCEPTED: [&str; 3] = ["application/json", "application/yaml", protobuf::MEDIA_TYPE];

/// A kind with its group and version.
#[derive(Clone, Copy, Debug)]
pub struct KindName<'a> {
    /// API group; empty for core.
    pub group: &'a str,
    /// Version in the group.
    pub version: &'a str,
    /// The kind.
    pub kind: &'a str,
}

impl<'a> KindName<'a> {
    /// The kind of a resource's objects.
    pub fn of(call: &'a Call<'_>) -> Self {
        let resource = call.resource;
        Self { group: &resource.group, version: &resource.version, kind: &resource.kind }
    }
}

/// An object that a client sent, and what it should be warned of.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The object: only known fields, in canonical form.
    pub object: Value,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
}

impl Draft {
    /// The object; the client is warned.
    pub fn warned(self, call: &Call<'_>) -> Value {
        call.info.warnings.extend(self.warnings);
        self.object
    }

    /// The same in the version in which it is stored.
    pub fn at_home(self, home: &Resource) -> Self {
        Self { object: api::convert::to_version(self.object, &home.api_version()), ..self }
    }
}

/// Decodes a body as an object of the call's own kind.
pub fn object(call: &Call<'_>, body: &[u8]) -> Outcome<Draft> {
    object_of(call, KindName::of(call), body)
}

/// Decodes a body as an object of another kind, as subresources need it.
pub fn object_of(call: &Call<'_>, kind: KindName<'_>, body: &[u8]) -> Outcome<Draft> {
    value(call, kind, parse_body(call.headers, body)?)
}

/// Reads a body in the encoding that its Content-Type names. Without one it is JSON: kubectl and the Python
/// client send some without.
///
/// # Errors
/// 415 for another encoding, 400 for what isn't written in it.
pub fn parse_body(headers: &HeaderMap, body: &[u8]) -> Result<Parsed, Status> {
    let parsed = match media_type(headers) {
        "" | "application/json" => parse(body, Format::Json),
        "application/yaml" => parse(body, Format::Yaml),
        protobuf::MEDIA_TYPE => {
            return Ok(protobuf::decode(body)
                .map_err(|error| Status::bad_request(error.to_string()))?
                .into());
        }
        _ => return Err(Status::unsupported_media_type(&ACCEPTED)),
    };
    parsed.map_err(|error| Status::bad_request(error.to_string()))
}

/// Decodes a value as an object of a kind.
pub fn value(call: &Call<'_>, kind: KindName<'_>, parsed: impl Into<Parsed>) -> Outcome<Draft> {
    let mut parsed = parsed.into();
    check_kind(&mut parsed.value, kind)?;
    let validation: FieldValidation =
        call.info.query.get("fieldValidation").unwrap_or_default().parse().map_err(Status::bad_request)?;
    let decoded = match custom_of(call, kind) {
        Some(custom) => decode_custom(&custom.structural, parsed, validation),
        None => decode_value(schema(kind)?, parsed, validation),
    };
    let decoded = decoded.map_err(|error| error.to_status(kind.kind, kind.version))?;
    Ok(Draft { object: decoded.object, warnings: decoded.warnings })
}

/// What the definition says of the call's own kind, if that is a custom one.
fn custom_of<'a>(call: &'a Call<'_>, kind: KindName<'_>) -> Option<&'a Custom> {
    let is_own = kind.group == call.resource.group && kind.kind == call.resource.kind;
    call.resource.custom.as_deref().filter(|_| is_own)
}

/// The schema of the call's own kind, as ownership of fields sees it.
pub fn own_schema<'a>(call: &'a Call<'_>) -> Outcome<&'a Schema> {
    schema_of(call.resource)
}

/// The schema of a resource's objects, as ownership of fields sees it.
pub fn schema_of(resource: &Resource) -> Outcome<&Schema> {
    match &resource.custom {
        Some(custom) => Ok(&custom.schema),
        None => {
            let (group, version) = (&resource.group, &resource.version);
            schema(KindName { group, version, kind: &resource.kind })
        }
    }
}

/// The schema of a built-in kind.
pub fn schema(kind: KindName<'_>) -> Outcome<&'static Schema> {
    let found = Definitions::builtin().of_kind(kind.group, kind.version, kind.kind);
    Ok(found.ok_or_else(|| Status::internal(format!("no schema for kind {}", kind.kind)))?)
}

/// An object that doesn't name its kind is taken for what the path says.
pub fn check_kind(value: &mut Value, expected: KindName<'_>) -> Result<(), Status> {
    let Some(map) = value.as_object_mut() else {
        return Err(Status::bad_request("couldn't get version/kind; the body is no object"));
    };
    let api_version = group_version(expected.group, expected.version);
    let (given_version, given_kind) = (text(map, "apiVersion"), text(map, "kind"));
    if !given_kind.is_empty() && given_kind != expected.kind {
        let version = given_version.rsplit('/').next().unwrap_or_default();
        return Err(Status::bad_request(format!(
            "{given_kind} in version {version:?} cannot be handled as a {}: no kind {given_kind:?} is served at this path",
            expected.kind
        )));
    }
    if !given_version.is_empty() && given_version != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    map.insert("apiVersion".to_owned(), api_version.into());
    map.insert("kind".to_owned(), expected.kind.into());
    Ok(())
}

fn text(map: &serde_json::Map<String, Value>, field: &str) -> String {
    map.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The media type of the body, without parameters.
pub fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}
