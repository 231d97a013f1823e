//! OpenAPI: what kubectl validates with before it sends, and what `kubectl explain` prints.
//!
//! `/openapi/v3` lists a document per group and version under a URL with the document's hash, so clients
//! keep documents for ever. A document is made when it is asked for, from the registry's rows and the
//! embedded definitions, and let go again: most servers are asked for a handful in their life. The hash is
//! therefore one of what the document is made *from*. `/openapi/v2` is all of it in one document, as JSON and as
//! protobuf, for clients that know no other version; its tag, too, is one of what it is made from.

mod custom;
mod gnostic;
mod paths;
mod v2;

use api::schema::Definitions;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, HeaderValue, LOCATION};
use http::{HeaderMap, Response, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::aggregation::{External, Swagger};
use crate::body::Body;
use crate::etag;
use crate::query::Query;
use crate::registry::Registry;
use crate::registry::resource::{Resource, Verbs, group_version};
use crate::request::Verb;
use crate::response;
use crate::version::KUBERNETES_VERSION;

const JSON: &str = "application/json";
/// What kubectl asks for, and what the answer is called: Go can't parse the first as a media type.
const PROTOBUF_V2: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const PROTOBUF_V2_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers a GET below `/openapi`; `None` if nothing is there. `external` is what is served elsewhere.
pub fn respond(
    registry: &Registry,
    external: &[External],
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Option<Response<Body>> {
    let path = path.trim_matches('/');
    match path.strip_prefix("openapi/")? {
        "v2" => Some(version_2(registry, external, headers)),
        "v3" => Some(etag::document(headers, JSON, Bytes::from(index(registry, external).to_string()))),
        below => document_at(registry, below.strip_prefix("v3/")?, query, headers),
    }
}

/// The list of documents; those of versions that are served elsewhere are there, too.
pub fn index(registry: &Registry, external: &[External]) -> Value {
    let mut paths = Map::new();
    for (group, versions) in registry.groups() {
        for version in versions {
            let resources = resources_of(registry, &group, &version);
            paths.insert(
                root(&group, &version),
                json!({ "serverRelativeURL": url(&group, &version, &resources) }),
            );
        }
    }
    for External { group, version, learned, .. } in external {
        let root = root(group, version);
        match &learned.openapi {
            Some(url) => drop(paths.insert(root, json!({ "serverRelativeURL": url }))),
            None => drop(paths.remove(&root)),
        }
    }
    json!({ "paths": paths })
}

/// The document of a group and version as JSON; `None` if there are no resources in it.
pub fn document(registry: &Registry, group: &str, version: &str) -> Option<String> {
    let resources = resources_of(registry, group, version);
    if resources.is_empty() {
        return None;
    }
    let names = definitions_of(&resources);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let paths: Map<String, Value> = resources.iter().flat_map(paths::of_resource).collect();
    let mut schemas = Definitions::builtin().openapi_v3(&names);
    schemas.extend(resources.iter().flat_map(|resource| custom::definitions(resource)));
    Some(assemble(&Value::Object(paths), &schemas))
}

/// The schemas are JSON text already; they are joined, not decoded.
fn assemble(paths: &Value, schemas: &std::collections::BTreeMap<String, Box<RawValue>>) -> String {
    let schemas: Vec<String> =
        schemas.iter().map(|(name, schema)| format!("{}:{}", json!(name), schema.get())).collect();
    format!(
        "{{\"openapi\":\"3.0.0\",\"info\":{{\"title\":\"Kubernetes\",\"version\":\"{KUBERNETES_VERSION}\"}},\
         \"paths\":{paths},\"components\":{{\"schemas\":{{{}}}}}}}",
        schemas.join(",")
    )
}

fn document_at(
    registry: &Registry,
    below: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Option<Response<Body>> {
    let (group, version) = match below.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return None,
    };
    let resources = resources_of(registry, group, version);
    let current = hash(&resources);
    match query.get("hash") {
        Some(given) if given != current => {
            (!resources.is_empty()).then(|| moved(&url(group, version, &resources)))
        }
        given => {
            let content = document(registry, group, version)?;
            let mut response = etag::document(headers, JSON, Bytes::from(content));
            if given.is_some() {
                let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
                response.headers_mut().insert(CACHE_CONTROL, forever);
            }
            Some(response)
        }
    }
}

/// The document has changed since the client saw its URL.
fn moved(url: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(url) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// The one document of version 2, in the first form that is accepted.
fn version_2(registry: &Registry, external: &[External], headers: &HeaderMap) -> Response<Body> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or(JSON);
    let accepted = accept.split(',').filter_map(|clause| clause.split(';').next()).map(str::trim);
    let resources = registry.resources();
    let elsewhere: Vec<&Swagger> =
        external.iter().filter_map(|external| external.learned.swagger.as_deref()).collect();
    let document = || {
        let mut document = v2::document(&resources);
        elsewhere.iter().for_each(|part| part.merge_into(&mut document));
        document
    };
    for media_type in accepted {
        let tag = || {
            let others = elsewhere.iter().map(|part| part.tag.as_str());
            etag::hash(
                std::iter::once(hash(&resources).as_str()).chain(others).collect::<String>().as_bytes(),
            )
        };
        match media_type {
            JSON | "application/*" | "*/*" => {
                let make = || Bytes::from(document().to_string());
                return etag::tagged(headers, JSON, &tag(), make);
            }
            PROTOBUF_V2 | PROTOBUF_V2_ANSWER => {
                let make = || Bytes::from(gnostic::encode(&document()));
                return etag::tagged(headers, PROTOBUF_V2_ANSWER, &format!("{}P", tag()), make);
            }
            _ => {}
        }
    }
    response::status(&api::status::Status::not_acceptable(&[JSON, PROTOBUF_V2]))
}

fn url(group: &str, version: &str, resources: &[Row]) -> String {
    format!("/openapi/v3/{}?hash={}", root(group, version), hash(resources))
}

fn root(group: &str, version: &str) -> String {
    let prefix = if group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", group_version(group, version))
}

/// Changes when the rows change or another version of this program, with other definitions, serves them.
fn hash(resources: &[Row]) -> String {
    let mut made_from = format!("{KUBERNETES_VERSION} {}\n", env!("CARGO_PKG_VERSION"));
    for resource in resources {
        let paths = Value::Object(paths::of_resource(resource).into_iter().collect());
        made_from.push_str(&format!("{} {paths}\n", resource.definition));
        if let Some(custom) = &resource.custom {
            made_from.push_str(&custom.openapi.to_string());
        }
    }
    etag::hash(made_from.as_bytes())
}

type Row = std::sync::Arc<Resource>;

fn resources_of(registry: &Registry, group: &str, version: &str) -> Vec<Row> {
    let mut resources = registry.resources();
    resources.retain(|resource| resource.group == group && resource.version == version);
    resources
}

fn definitions_of(resources: &[Row]) -> Vec<String> {
    let mut names: Vec<String> =
        [paths::DELETE_OPTIONS, paths::STATUS, paths::PATCH].map(str::to_owned).to_vec();
    if resources.iter().any(|resource| custom::is_defined_here(resource)) {
        names.extend([custom::OBJECT_META, custom::LIST_META].map(str::to_owned));
    }
    for resource in resources {
        names.push(resource.definition.clone());
        if resource.verbs.contains(Verb::List) {
            names.push(format!("{}List", resource.definition));
        }
        names.extend(resource.subresources.iter().filter_map(paths::subresource_definition));
    }
    names
}

/// Whether a set of verbs has any of these.
fn any(verbs: Verbs, of: &[Verb]) -> bool {
    of.iter().any(|verb| verbs.contains(*verb))
}

#[cfg(test)]
mod tests;
