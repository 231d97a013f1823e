//! `deletecollection`: deletes whatever a list would show.
//!
//! Each object goes in a transaction of its own, many of which are under way. One transaction of many objects
//! would be faster still, but give all of them one revision: a watcher whose connection breaks between two
//! of its events would come back with that revision, and never hear of the rest.

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use http::StatusCode;
use serde_json::json;

use crate::error::{Failure, Outcome};
use crate::response;
use crate::storage::key;
use crate::storage::object::Stored;
use crate::storage::selection::Selection;
use crate::verbs::delete::{Gate, remove_as_seen};
use crate::verbs::delete_options::{self, DeleteOptions};
use crate::verbs::{Answer, Call, list};

/// Deletions under way at a time: enough to fill the store's batches.
const PARALLEL: usize = 256;

/// Answers with the list of what was deleted, or began to be.
pub async fn delete_collection(call: Call<'_>, body: &[u8]) -> Answer {
    let options = delete_options::parse(&call, body)?;
    let query = &call.info.query;
    let selection = Selection::parse(call.resource.clone(), call.info.namespace.as_deref(), query)?;
    let selected = list::collect(&call, &selection).await?;
    let (call, options) = (&call, &options);
    let items = stream::iter(selected)
        .map(|stored| async move { delete_one(call, &stored, options).await }.boxed())
        .buffered(PARALLEL)
        // As text at once: as values, a hundred thousand of them take gigabytes.
        .try_fold(Vec::new(), async |mut items, deleted| {
            if let Some(deleted) = deleted {
                items.extend_from_slice(if items.is_empty() { b"" } else { b"," });
                items.extend_from_slice(deleted.as_bytes());
            }
            Ok(items)
        })
        .await?;
    Ok(response::json_bytes(StatusCode::OK, list_of(call, &items)))
}

/// The list around its items.
fn list_of(call: &Call<'_>, items: &[u8]) -> Vec<u8> {
    let kind = json!({
        "kind": call.resource.list_kind,
        "apiVersion": call.resource.api_version(),
        "metadata": {"resourceVersion": call.storage().cache.revision().to_string()},
    });
    let head = kind.to_string();
    let head = head.strip_suffix('}').unwrap_or(&head);
    [head.as_bytes(), b",\"items\":[", items, b"]}"].concat()
}

/// Begins with the state that was listed. What has gone meanwhile is as good as deleted.
async fn delete_one(call: &Call<'_>, listed: &Stored, options: &DeleteOptions) -> Outcome<Option<String>> {
    let (_, name) = key::names_of(&listed.key);
    let seen = Stored::of(listed.key.clone(), listed.json.clone(), listed.revision);
    match remove_as_seen(call, name, Some(seen), options, Gate::Open).await {
        Ok(deleted) => Ok(Some(deleted.object.to_string())),
        Err(Failure::Status(status)) if status.code() == 404 => Ok(None),
        Err(failure) => Err(failure),
    }
}
