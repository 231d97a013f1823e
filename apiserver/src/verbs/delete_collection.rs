//! `deletecollection`: deletes whatever a list would show.

use futures::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use serde_json::{Value, json};

use crate::error::{Failure, Outcome};
use crate::response;
use crate::storage::key;
use crate::storage::selection::Selection;
use crate::verbs::delete::remove;
use crate::verbs::delete_options::{self, DeleteOptions};
use crate::verbs::{Answer, Call, list};

/// Deletions under way at a time.
const PARALLEL: usize = 16;

/// Answers with the list of what was deleted, or began to be.
pub async fn delete_collection(call: Call<'_>, body: &[u8]) -> Answer {
    let options = delete_options::parse(&call, body)?;
    let query = &call.info.query;
    let selection = Selection::parse(call.resource.clone(), call.info.namespace.as_deref(), query)?;
    let selected = list::collect(&call, &selection).await?;
    let (call, options) = (&call, &options);
    let deleted: Vec<Option<Value>> = stream::iter(selected)
        .map(async |stored| delete_one(call, &stored.key, options).await)
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    let list = json!({
        "kind": call.resource.list_kind,
        "apiVersion": call.resource.api_version(),
        "metadata": {"resourceVersion": call.storage().cache.revision().to_string()},
        "items": deleted.into_iter().flatten().collect::<Vec<Value>>(),
    });
    Ok(response::json(StatusCode::OK, &list))
}

/// What has gone meanwhile is as good as deleted.
async fn delete_one(call: &Call<'_>, key: &[u8], options: &DeleteOptions) -> Outcome<Option<Value>> {
    let (namespace, name) = key::names_of(key);
    match remove(call, namespace, name, options).await {
        Ok(deleted) => Ok(Some(deleted.object)),
        Err(Failure::Status(status)) if status.code() == 404 => Ok(None),
        Err(failure) => Err(failure),
    }
}
