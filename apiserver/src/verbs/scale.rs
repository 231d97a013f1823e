//! The `scale` subresource: the number of replicas of a workload, as an `autoscaling/v1` Scale.

use std::sync::Arc;

use api::object;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::Body;
use crate::error::Outcome;
use crate::registry::custom::ScalePaths;
use crate::registry::resource::Resource;
use crate::request::Verb;
use crate::response;
use crate::storage::decode as decode_stored;
use crate::table;
use crate::verbs::decode::{self, Draft, KindName};
use crate::verbs::patch::Patch;
use crate::verbs::submit::Part;
use crate::verbs::update::change;
use crate::verbs::view::View;
use crate::verbs::{Answer, Call, get, ownership, present, server_side};

const SCALE: KindName<'_> = KindName { group: "autoscaling", version: "v1", kind: "Scale" };

/// Answers with the Scale, after changing it if asked to.
pub async fn scale(call: Call<'_>, body: &[u8]) -> Answer {
    let view = View::of(&call)?;
    match call.info.verb {
        Verb::Get => {
            let stored = present::one(call.resource, Arc::new(get::read(&call).await?)).await?;
            Ok(answer(&call, &view, &decode_stored(&stored)?))
        }
        Verb::Patch if ownership::is_apply(&call) => {
            let config = server_side::parse_config(&call, SCALE, body)?;
            write_object(&call, &view, |old| apply(&call, old, &config)).await
        }
        Verb::Patch => {
            let patch = Patch::parse(&call, body)?;
            write(&call, &view, |old| patch.draft(&call, SCALE, &scale_of(call.resource, old))).await
        }
        _ => {
            let draft = decode::object_of(&call, SCALE, body)?;
            write(&call, &view, |_| Ok(draft.clone())).await
        }
    }
}

/// The Scale of the object in the form that the client accepts.
fn answer(call: &Call<'_>, view: &View, object: &Value) -> Response<Body> {
    let columns = table::columns(SCALE.group, SCALE.kind);
    let scale = scale_of(call.resource, object);
    response::json(StatusCode::OK, &view.in_columns(&columns, &scale, true))
}

async fn write(
    call: &Call<'_>,
    view: &View,
    mut scale: impl FnMut(&Value) -> Outcome<Draft> + Send,
) -> Answer {
    let make = |old: &Value| {
        let scale = scale(old)?;
        Ok(Draft { object: scaled(call.resource, old, &scale.object), warnings: scale.warnings })
    };
    write_object(call, view, make).await
}

/// What a server-side apply of a Scale makes of the object: its manager owns the number of replicas.
fn apply(call: &Call<'_>, old: &Value, scale: &Value) -> Outcome<Draft> {
    let mut config =
        json!({"apiVersion": old["apiVersion"], "kind": old["kind"], "metadata": scale["metadata"]});
    if let Some(replicas) = scale["spec"].get("replicas") {
        set_at(&mut config, &paths(call.resource).spec, replicas.clone());
    }
    server_side::draft(call, Part::Main, old, &config)
}

async fn write_object(
    call: &Call<'_>,
    view: &View,
    make: impl FnMut(&Value) -> Outcome<Draft> + Send,
) -> Answer {
    let written = change(call, Part::Main, make).await?.ok_or_else(|| call.not_found(call.name()))?;
    let object = decode_stored(&*present::one(call.resource, Arc::new(written.stored)).await?)?;
    Ok(answer(call, view, &object))
}

/// The object with the Scale's number of replicas. It is meant for the state and the object that the Scale
/// names, if it names any.
fn scaled(resource: &Resource, old: &Value, scale: &Value) -> Value {
    let mut new = old.clone();
    set_replicas(resource, &mut new, scale);
    let metadata = object::metadata_mut(&mut new);
    for field in ["resourceVersion", "uid", "name", "namespace"] {
        match scale["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    new
}

/// Gives the object the number of replicas that a Scale wants.
pub fn set_replicas(resource: &Resource, object: &mut Value, scale: &Value) {
    let wanted = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    set_at(object, &paths(resource).spec, wanted.into());
}

/// Sets the value at a pointer, making the objects on the way.
fn set_at(object: &mut Value, pointer: &str, value: Value) {
    let (parents, last) = pointer.rsplit_once('/').unwrap_or(("", pointer));
    let parent = parents.split('/').skip(1).fold(object, |node, name| {
        if !node.is_object() {
            *node = json!({});
        }
        &mut node[name]
    });
    if !parent.is_object() {
        *parent = json!({});
    }
    parent[last] = value;
}

/// Where the objects of a resource keep the numbers.
fn paths(resource: &Resource) -> ScalePaths {
    let custom = resource.custom.as_ref().and_then(|custom| custom.scale.clone());
    custom.unwrap_or_else(|| ScalePaths {
        spec: "/spec/replicas".to_owned(),
        status: "/status/replicas".to_owned(),
        selector: None,
    })
}

/// The selector of the replicas as a text: a workload's own, or what a custom object says of it.
fn selector_of(resource: &Resource, object: &Value) -> Option<String> {
    let text = match &resource.custom {
        Some(_) => object.pointer(&paths(resource).selector?)?.as_str()?.to_owned(),
        None => api::selector::LabelSelector::from_value(&object["spec"]["selector"]).ok()?.to_string(),
    };
    (!text.is_empty()).then_some(text)
}

/// The Scale of a workload.
pub fn scale_of(resource: &Resource, object: &Value) -> Value {
    let paths = paths(resource);
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let mut metadata = json!({
        "name": object::name(object),
        "namespace": object::namespace(object),
        "uid": object::uid(object),
        "resourceVersion": object::resource_version(object),
    });
    metadata["creationTimestamp"] = object["metadata"]["creationTimestamp"].clone();
    let mut status = json!({"replicas": number(&paths.status)});
    if let Some(selector) = selector_of(resource, object) {
        status["selector"] = json!(selector);
    }
    let mut spec = json!({});
    if number(&paths.spec) != 0 {
        spec["replicas"] = json!(number(&paths.spec));
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}
