//! `pods/eviction`: a deletion that asks first whether the pod may go.
//!
//! There are no disruption budgets yet, so nothing refuses.

use api::status::Status;
use serde_json::Value;

use crate::query::Query;
use crate::response;
use crate::verbs::decode::{self, KindName};
use crate::verbs::delete::remove;
use crate::verbs::{Answer, Call, delete_options, submit};

const EVICTION: KindName<'_> = KindName { group: "policy", version: "v1", kind: "Eviction" };

/// Answers with a Status.
pub async fn evict(call: Call<'_>, body: &[u8]) -> Answer {
    let eviction = decode::object_of(&call, EVICTION, body)?.object;
    let name = api::object::name(&eviction);
    if !name.is_empty() && name != call.name() {
        return Err(Status::bad_request(format!(
            "name in URL does not match name in Eviction object: {name:?}, {:?}",
            call.name()
        ))
        .into());
    }
    let mut options =
        delete_options::from_value(eviction.get("deleteOptions").unwrap_or(&Value::Null), &Query::default())?;
    options.dry_run |= submit::is_dry_run(&call)?;
    remove(&call, call.namespace(), call.name(), &options).await?;
    Ok(response::status(&Status::success(None).with_code(201)))
}
