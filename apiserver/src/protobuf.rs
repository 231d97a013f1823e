//! Protobuf bodies: what kubectl's generators and typed clients send for built-in kinds.
//!
//! One decoder for all kinds, led by a table of field numbers, turns a body into the JSON that Go would have
//! made of the same object; everything behind sees only JSON. Nothing is encoded: every client that sends
//! protobuf accepts JSON. Unknown fields are skipped, as protobuf wants it.
//!
//! `data/protobuf_fields.txt` has a line per message; `data/derive.py` makes it of upstream's sources at the
//! level of Kubernetes 1.37, and says what it means.

mod message;
mod wire;

use api::schema::Definitions;
use serde_json::Value;

pub use message::ProtobufError;

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What stands before every body.
const MAGIC: &[u8] = b"k8s\0";
const TYPE_META: &str = "io.k8s.apimachinery.pkg.runtime.TypeMeta";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// The object in a protobuf body, as JSON with its kind and version.
///
/// # Errors
/// The body isn't in Kubernetes' envelope, names a kind without protobuf form, or breaks off.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?;
    let raw = wire::bytes_of(envelope, 2)?.unwrap_or_default();
    let head = message::decode(TYPE_META, wire::bytes_of(envelope, 1)?.unwrap_or_default())?;
    let text = |field: &str| head[field].as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let definition = definition(&api_version, &kind)
        .ok_or_else(|| ProtobufError::UnknownKind { api_version: api_version.clone(), kind: kind.clone() })?;
    let mut object = message::decode(definition, raw)?;
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    Ok(object)
}

fn definition(api_version: &str, kind: &str) -> Option<&'static str> {
    if kind == "DeleteOptions" {
        return Some(DELETE_OPTIONS); // one message in every group
    }
    let (group, version) = api::object::group_version(api_version);
    Definitions::builtin().definition_of(group, version, kind)
}

#[cfg(test)]
mod tests;
