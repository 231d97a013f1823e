//! `get`: one object, the newest unless a moment of the past is asked for.

use http::StatusCode;
use store::kv::Revision;

use crate::error::Outcome;
use crate::storage::key::Key;
use crate::storage::object::Stored;
use crate::verbs::options::{Version, list_version};
use crate::verbs::view::View;
use crate::verbs::{Answer, Call, history, past};

/// Answers with the object.
pub async fn get(call: Call<'_>) -> Answer {
    if history::is_asked(&call.info.query) {
        return history::history(call).await;
    }
    let view = View::of(&call)?;
    if let Some(at) = past::asked(&call).await? {
        return view.object(&call, StatusCode::OK, past::read(&call, at).await?).await;
    }
    if let Version::NotOlderThan(revision) | Version::Exact(revision) = list_version(&call.info.query)? {
        wait_for_known(&call, revision).await?;
    }
    let stored = read(&call).await?;
    view.object(&call, StatusCode::OK, stored).await
}

/// The object in the path.
///
/// # Errors
/// 404 if there is none.
pub async fn read(call: &Call<'_>) -> Outcome<Stored> {
    let key = Key::Object(call.resource, call.namespace(), call.name()).to_bytes();
    let found = call.storage().read(&key).await?;
    found.ok_or_else(|| call.not_found(call.name()).into())
}

/// A client may name a revision that this member has yet to hear of, or that never was.
async fn wait_for_known(call: &Call<'_>, revision: Revision) -> Outcome<()> {
    call.storage().reach(revision).await
}
