//! `componentstatuses`: whether the parts of the control plane work, made up when it is asked for. Deprecated since
//! long, and still what `kubectl get cs` shows.

use std::sync::Arc;

use api::status::Status;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::Outcome;
use crate::request::Verb;
use crate::storage::decode;
use crate::storage::key::Key;
use crate::storage::object::{Stored, encode};
use crate::verbs::view::{ListMeta, View};
use crate::verbs::{Answer, Call};

const WARNING: &str = "v1 ComponentStatus is deprecated in v1.19+";
const LEADERS: [(&str, &str); 2] =
    [("controller-manager", "kube-controller-manager"), ("scheduler", "kube-scheduler")];

/// Answers `get` and `list`.
pub async fn answer(call: Call<'_>) -> Answer {
    call.warn(WARNING);
    let view = View::of(&call)?;
    let mut all = LEADERS.map(|(name, lease)| (name, leads(&call, lease))).to_vec();
    let leader =
        call.storage().status().leader.map(|_| ()).ok_or_else(|| "the store has no leader".to_owned());
    all.push(("etcd-0", leader));
    match call.info.verb {
        Verb::Get => {
            let found = all.into_iter().find(|(name, _)| *name == call.name());
            let (name, health) = found.ok_or_else(|| call.not_found(call.name()))?;
            view.object(&call, StatusCode::OK, stored(&call, name, health)).await
        }
        _ => {
            let items = all.into_iter().map(|(name, health)| Arc::new(stored(&call, name, health))).collect();
            let meta = ListMeta { revision: call.storage().cache.revision(), ..ListMeta::default() };
            view.list(&call, items, &meta).await
        }
    }
}

/// Whether somebody holds the lease of a component and has renewed it in time.
fn leads(call: &Call<'_>, lease: &str) -> Result<(), String> {
    let lease = held(call, lease).map_err(|failure| failure.into_status().message)?;
    let spec = lease.as_ref().map_or(&Value::Null, |lease| &lease["spec"]);
    let renewed = spec["renewTime"].as_str().and_then(api::time::parse);
    let seconds = spec["leaseDurationSeconds"].as_i64().unwrap_or(15);
    match renewed {
        Some(time) if Timestamp::now().duration_since(time).as_secs() <= 2 * seconds => Ok(()),
        Some(_) => Err("the leader has not renewed its lease".to_owned()),
        None => Err("nobody leads".to_owned()),
    }
}

fn held(call: &Call<'_>, name: &str) -> Outcome<Option<Value>> {
    let leases = call.server.registry.find("coordination.k8s.io", "v1", "leases");
    let leases = leases.ok_or_else(|| Status::internal("leases aren't served"))?;
    let key = Key::Object(&leases, "kube-system", name).to_bytes();
    call.storage().cache.get(&key).map(|stored| decode(&stored)).transpose()
}

fn stored(call: &Call<'_>, name: &str, health: Result<(), String>) -> Stored {
    let (status, message, error) = match health {
        Ok(()) => ("True", "ok".to_owned(), String::new()),
        Err(why) => ("False", String::new(), why),
    };
    let mut condition = json!({"type": "Healthy", "status": status});
    for (field, text) in [("message", message), ("error", error)] {
        if !text.is_empty() {
            condition[field] = json!(text);
        }
    }
    let object = json!({
        "apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name, "creationTimestamp": null},
        "conditions": [condition],
    });
    let key = Key::Object(call.resource, "", name).to_bytes();
    Stored::of(key, encode(&object), call.storage().cache.revision())
}
