//! `pods/binding`, and `bindings`: puts a pod on a node, once.

use std::sync::Arc;

use api::object;
use api::status::{FieldError, Status};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::admission;
use crate::error::Outcome;
use crate::response;
use crate::storage::key::Key;
use crate::storage::object::Stored;
use crate::storage::{Commit, Write, decode as decode_stored};
use crate::verbs::decode::{self, KindName};
use crate::verbs::room::Room;
use crate::verbs::{Answer, Call, get, submit};

const BINDING: KindName<'_> = KindName { group: "", version: "v1", kind: "Binding" };

/// Answers a Binding that names its pod, sent to `bindings`.
pub async fn create(call: Call<'_>, body: &[u8]) -> Answer {
    let binding = decode::object_of(&call, BINDING, body)?.object;
    let (Some(pods), name) = (call.server.registry.find("", "v1", "pods"), object::name(&binding)) else {
        return Err(Status::internal("pods aren't served").into());
    };
    if name.is_empty() {
        let error = FieldError::required("metadata.name", "name or generateName is required");
        return Err(Status::invalid("Binding", "", "", vec![error]).into());
    }
    let mut info = call.info.clone();
    info.name = Some(name.to_owned());
    info.subresource = Some("binding".to_owned());
    put(Call { info: &info, resource: &pods, ..call }, binding).await
}

/// Answers with a Status.
pub async fn bind(call: Call<'_>, body: &[u8]) -> Answer {
    put(call, decode::object_of(&call, BINDING, body)?.object).await
}

async fn put(call: Call<'_>, mut binding: Value) -> Answer {
    admission::create_below(&call, &mut binding).await?;
    check_binding(&call, &binding)?;
    let room = Room::of(call.headers)?;
    let (mut current, mut pod) = look(&call, &binding).await?;
    loop {
        match attempt(&call, &binding, room.as_ref(), &current, pod).await? {
            Commit::Done(_) => {
                return Ok(response::status(&Status::success(None).with_code(201)));
            }
            Commit::Lost(Some(newer)) => {
                pod = decode_stored(&newer)?;
                current = Arc::new(newer);
            }
            Commit::Lost(None) => return Err(call.not_found(call.name()).into()),
        }
    }
}

/// The pod as it is now, or was a moment ago: if it may be bound as the cache shows it, the transaction finds out
/// whether that is old. A pod that may not be is looked up in the store.
async fn look(call: &Call<'_>, binding: &Value) -> Outcome<(Arc<Stored>, Value)> {
    let key = Key::Object(call.resource, call.namespace(), call.name()).to_bytes();
    if let Some(cached) = call.storage().cache.get(&key) {
        let pod = decode_stored(&cached)?;
        if check_pod(call, binding, &pod).is_ok() {
            return Ok((cached, pod));
        }
    }
    let stored = get::read(call).await?;
    let pod = decode_stored(&stored)?;
    Ok((Arc::new(stored), pod))
}

async fn attempt(
    call: &Call<'_>,
    binding: &Value,
    room: Option<&Room>,
    stored: &Stored,
    pod: Value,
) -> Outcome<Commit> {
    let pod = bound(call, binding, pod, Timestamp::now())?;
    let value = submit::encoded(call, &pod).await?;
    if submit::is_dry_run(call)? {
        return Ok(Commit::Done(stored.revision));
    }
    let node = binding["target"]["name"].as_str().unwrap_or_default();
    let taken = match room {
        Some(room) => Some(room.take(call, node).await?),
        None => None,
    };
    let write = Write {
        key: stored.key.clone(),
        expected: stored.revision,
        value: Some(value),
        guards: Vec::new(),
        also: taken.into_iter().collect(),
        expires: false,
        origin: call.origin(),
    };
    call.commit(write).await
}

fn check_binding(call: &Call<'_>, binding: &Value) -> Result<(), Status> {
    let target = &binding["target"];
    let kind = target["kind"].as_str().unwrap_or_default();
    let error = match (kind, target["name"].as_str().unwrap_or_default()) {
        ("" | "Node", "") => FieldError::required("target.name", ""),
        ("" | "Node", _) => return Ok(()),
        _ => FieldError::not_supported("target.kind", kind, &["Node", ""]),
    };
    Err(Status::invalid("Binding", "", call.name(), vec![error]))
}

/// The pod on its node. The generation stays: what runs where is no change of what is wanted.
fn bound(call: &Call<'_>, binding: &Value, mut pod: Value, now: Timestamp) -> Result<Value, Status> {
    check_pod(call, binding, &pod)?;
    for (key, value) in object::annotations(binding) {
        object::set_annotation(&mut pod, &key, &value);
    }
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": api::time::rfc3339(now),
    });
    set_condition(&mut pod, condition);
    Ok(pod)
}

fn check_pod(call: &Call<'_>, binding: &Value, pod: &Value) -> Result<(), Status> {
    let name = call.name();
    let conflict = |why: String| Err(Status::conflict("pods/binding", "", name, &why));
    let uid = object::uid(binding);
    if !uid.is_empty() && uid != object::uid(pod) {
        return conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(pod)
        ));
    }
    if object::is_deleting(pod) {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return conflict(format!("pod {name} is already assigned to node {node:?}"));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    Ok(())
}

fn set_condition(pod: &mut Value, condition: Value) {
    let conditions = pod["status"]["conditions"].take();
    let mut conditions = conditions.as_array().cloned().unwrap_or_default();
    conditions.retain(|other| other["type"] != condition["type"]);
    conditions.push(condition);
    pod["status"]["conditions"] = Value::Array(conditions);
}
