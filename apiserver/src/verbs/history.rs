//! `get` with `?history=true`: who changed which field of an object, when and why.
//!
//! Ours, beyond upstream: an `ObjectHistory` of group `amoeba.dev`, newest entry first, made from the store's
//! journal and the old values that it still has. Who may get the object may see what it was. The history of a
//! deleted object can be read as long as it is kept.

use api::difference::{FieldChange, changes};
use api::status::Status;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use store::journal::JournalEntry;
use store::kv::{KvError, Revision};

use crate::error::{Failure, Outcome};
use crate::query::Query;
use crate::response;
use crate::storage::decode;
use crate::storage::key::Key;
use crate::verbs::{Answer, Call};

/// Entries that are shown unless the request says how many.
const LIMIT: usize = 50;
/// Most entries that a request may ask for: each costs a read.
const MOST: usize = 500;

/// Whether the request asks for the history rather than for the object.
pub fn is_asked(query: &Query) -> bool {
    query.flag("history")
}

/// Answers with the history of the object in the path.
pub async fn history(call: Call<'_>) -> Answer {
    let journal = call.storage().journal().ok_or_else(|| {
        Status::bad_request("history: the store keeps no journal (it is an etcd cluster that others run)")
    })?;
    let limit = limit(&call.info.query)?;
    let newest = call.storage().newest().await?;
    let key = Key::Object(call.resource, call.namespace(), call.name()).to_bytes();
    let entries = journal.of_key(key.clone(), limit).await?;
    if entries.is_empty() && call.storage().read(&key).await?.is_none() {
        return Err(call.not_found(call.name()).into());
    }
    let mut items = Vec::new();
    let mut after = match entries.first() {
        Some(entry) => state(&call, &key, entry.revision).await?,
        None => State::Forgotten,
    };
    for entry in &entries {
        let before = state(&call, &key, Revision(entry.revision.0 - 1)).await?;
        items.push(item(entry, &before, &after));
        after = before;
    }
    Ok(response::json(StatusCode::OK, &document(&call, newest, &items, after == State::Absent)))
}

/// An object at a revision.
#[derive(Clone, Debug, PartialEq)]
enum State {
    Present(Box<Value>),
    Absent,
    /// That revision is compacted.
    Forgotten,
}

async fn state(call: &Call<'_>, key: &bytes::Bytes, at: Revision) -> Outcome<State> {
    match call.storage().read_at(key, at).await {
        Ok(Some(stored)) => Ok(State::Present(Box::new(decode(&stored)?))),
        Ok(None) => Ok(State::Absent),
        Err(Failure::Store(KvError::Compacted { .. })) => Ok(State::Forgotten),
        Err(failure) => Err(failure),
    }
}

fn limit(query: &Query) -> Result<usize, Status> {
    let Some(text) = query.get("limit") else { return Ok(LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=MOST).contains(limit));
    limit.ok_or_else(|| Status::bad_request(format!("limit: invalid value {text:?}: it must be 1 to {MOST}")))
}

fn document(call: &Call<'_>, newest: Revision, items: &[Value], complete: bool) -> Value {
    let resource = call.resource;
    json!({
        "kind": "ObjectHistory",
        "apiVersion": "amoeba.dev/v1",
        "metadata": {"resourceVersion": newest.to_string()},
        "object": {
            "apiVersion": resource.api_version(),
            "kind": resource.kind,
            "namespace": call.namespace(),
            "name": call.name(),
        },
        // Whether the first entry of the object's life is among them.
        "complete": complete,
        "items": items,
    })
}

fn item(entry: &JournalEntry, before: &State, after: &State) -> Value {
    let (what, changed) = match (before, after) {
        (State::Present(before), State::Present(after)) => ("Modified", changes(before, after)),
        (State::Present(_), _) => ("Deleted", Vec::new()),
        (State::Absent, _) => ("Created", Vec::new()),
        // Nobody knows what was there: then what changed can't be told.
        (State::Forgotten, _) => ("Unknown", Vec::new()),
    };
    let time =
        Timestamp::from_millisecond(i64::try_from(entry.wall_ms).unwrap_or(i64::MAX)).unwrap_or_default();
    let mut item = json!({
        "revision": entry.revision.to_string(),
        "time": time.to_string(),
        "user": entry.origin.user,
        "agent": entry.origin.agent,
        "verb": entry.origin.verb,
        "type": what,
        "changes": changed.iter().map(change).collect::<Vec<_>>(),
    });
    if let Some(cause) = entry.origin.cause {
        item["cause"] = json!(cause.to_string());
    }
    item
}

fn change(change: &FieldChange) -> Value {
    let mut told = json!({"path": change.path});
    if let Some(from) = &change.from {
        told["from"] = from.clone();
    }
    if let Some(to) = &change.to {
        told["to"] = to.clone();
    }
    told
}
