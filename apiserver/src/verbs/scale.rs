//! The `scale` subresource: the number of replicas of a workload, as an `autoscaling/v1` Scale.

use api::object;
use http::StatusCode;
use serde_json::{Value, json};

use crate::error::Outcome;
use crate::request::Verb;
use crate::response;
use crate::storage::decode as decode_stored;
use crate::verbs::decode::{self, Draft, KindName};
use crate::verbs::patch::Patch;
use crate::verbs::submit::{self, Part};
use crate::verbs::update::change;
use crate::verbs::{Answer, Call, get};

const SCALE: KindName<'_> = KindName { group: "autoscaling", version: "v1", kind: "Scale" };

/// Answers with the Scale, after changing it if asked to.
pub async fn scale(call: Call<'_>, body: &[u8]) -> Answer {
    match call.info.verb {
        Verb::Get => {
            let object = decode_stored(&get::read(&call).await?)?;
            Ok(response::json(StatusCode::OK, &scale_of(&object)))
        }
        Verb::Patch => {
            let patch = Patch::parse(&call, body)?;
            write(&call, |old| patch.draft(&call, SCALE, &scale_of(old))).await
        }
        _ => {
            let draft = decode::object_of(&call, SCALE, body)?;
            write(&call, |_| Ok(draft.clone())).await
        }
    }
}

async fn write(call: &Call<'_>, mut scale: impl FnMut(&Value) -> Outcome<Draft> + Send) -> Answer {
    let written = change(call, Part::Main, |old| {
        let scale = scale(old)?;
        Ok(Draft { object: scaled(old, &scale.object), warnings: scale.warnings })
    });
    let written = written.await?.ok_or_else(|| call.not_found(call.name()))?;
    let object = decode_stored(&written.stored)?;
    let mut response = response::json(StatusCode::OK, &scale_of(&object));
    submit::warn(&mut response, &written.warnings);
    Ok(response)
}

/// The object with the Scale's number of replicas. It is meant for the state and the object that the Scale
/// names, if it names any.
fn scaled(old: &Value, scale: &Value) -> Value {
    let mut new = old.clone();
    new["spec"]["replicas"] = scale["spec"]["replicas"].as_i64().unwrap_or(0).into();
    let metadata = object::metadata_mut(&mut new);
    for field in ["resourceVersion", "uid", "name", "namespace"] {
        match scale["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    new
}

/// The Scale of a workload.
pub fn scale_of(object: &Value) -> Value {
    let mut metadata = json!({
        "name": object::name(object),
        "namespace": object::namespace(object),
        "uid": object::uid(object),
        "resourceVersion": object::resource_version(object),
    });
    metadata["creationTimestamp"] = object["metadata"]["creationTimestamp"].clone();
    let mut status = json!({"replicas": object["status"]["replicas"].as_i64().unwrap_or(0)});
    let selector = api::selector::LabelSelector::from_value(&object["spec"]["selector"]);
    if let Ok(selector) = selector.map(|selector| selector.to_string())
        && !selector.is_empty()
    {
        status["selector"] = json!(selector);
    }
    let mut spec = json!({});
    if let Some(replicas) = object["spec"]["replicas"].as_i64().filter(|replicas| *replicas != 0) {
        spec["replicas"] = json!(replicas);
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}
