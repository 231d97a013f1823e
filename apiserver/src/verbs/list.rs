//! `list`: many objects at one revision, in pages.
//!
//! The first page comes from the cache once it is as new as asked for. Its revision is pinned in the
//! continue token; later pages are read from the store at exactly that revision, so that all pages together
//! show one state. If that state is compacted meanwhile, the client gets 410 and a token that goes on with
//! the newest state instead, if it likes.

use std::sync::Arc;

use api::status::{Reason, Status};
use bytes::Bytes;
use store::kv::{KeyRange, KvError, RangeRequest, Revision};

use crate::error::{Failure, Outcome};
use crate::query::Query;
use crate::storage::object::Stored;
use crate::storage::selection::Selection;
use crate::verbs::continue_token::Continue;
use crate::verbs::options::{Version, list_version};
use crate::verbs::view::{ListMeta, View};
use crate::verbs::{Answer, Call, past};

/// Objects read from the store at a time when a selector may drop some of them.
const STORE_CHUNK: usize = 500;

/// One page.
struct Page {
    items: Vec<Arc<Stored>>,
    revision: Revision,
    /// Objects beyond the page; with a selector only whether there may be any.
    left: u64,
}

/// Answers with a list.
pub async fn list(call: Call<'_>) -> Answer {
    let view = View::of(&call)?;
    let query = &call.info.query;
    let selection = Selection::parse(call.resource.clone(), call.info.namespace.as_deref(), query)?;
    let limit = limit_of(query)?;
    let version = list_version(query)?;
    let page = match query.get("continue") {
        // The token has the moment in it, of the present or of the past.
        Some(token) => next_page(&call, &selection, token, limit).await?,
        None => match past::asked(&call).await?.map_or(version, Version::Exact) {
            Version::Exact(revision) => exact_page(&call, &selection, revision, limit).await?,
            version => first_page(&call, &selection, version, limit).await?,
        },
    };
    let meta = meta_of(&page, &selection);
    view.list(&call, page.items, &meta).await
}

/// All selected objects as they are now.
pub async fn collect(call: &Call<'_>, selection: &Selection) -> Outcome<Vec<Arc<Stored>>> {
    Ok(first_page(call, selection, Version::Newest, 0).await?.items)
}

fn limit_of(query: &Query) -> Result<usize, Status> {
    let text = query.get("limit").unwrap_or("0");
    let limit: i64 = text
        .parse()
        .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
    Ok(usize::try_from(limit).unwrap_or(0))
}

async fn first_page(call: &Call<'_>, selection: &Selection, version: Version, limit: usize) -> Outcome<Page> {
    match version {
        Version::Newest => call.storage().refresh().await?,
        Version::NotOlderThan(revision) | Version::Exact(revision) => call.storage().reach(revision).await?,
        Version::Any => {}
    }
    let snapshot = call.storage().cache.snapshot(&selection.prefix(), &selection.range);
    let mut selected = snapshot.objects.into_iter().filter(|stored| selection.selects(stored));
    if limit == 0 {
        return Ok(Page { items: selected.collect(), revision: snapshot.revision, left: 0 });
    }
    let items = selected.by_ref().take(limit).collect();
    Ok(Page { items, revision: snapshot.revision, left: selected.count() as u64 })
}

async fn exact_page(
    call: &Call<'_>,
    selection: &Selection,
    revision: Revision,
    limit: usize,
) -> Outcome<Page> {
    call.storage().reach(revision).await?;
    let page = from_store(call, selection, selection.range.clone(), Some(revision), limit).await;
    page.map_err(past::forgotten)
}

async fn next_page(call: &Call<'_>, selection: &Selection, token: &str, limit: usize) -> Outcome<Page> {
    if call.info.query.get("resourceVersion").is_some_and(|version| version != "0") {
        return Err(
            Status::bad_request("specifying resource version is not allowed when using continue").into()
        );
    }
    let place = selection.prefix();
    let from = Continue::decode(token, &place, &selection.range)?;
    let range = KeyRange { start: from.start.clone(), end: selection.range.end.clone() };
    match from_store(call, selection, range, from.revision, limit).await {
        Err(Failure::Store(KvError::Compacted { .. })) => Err(expired(&from, &place).into()),
        page => page,
    }
}

fn expired(from: &Continue, place: &Bytes) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new \
         list without the continue parameter, or use the continue token in this response to retrieve the \
         remainder of the results. Continuing with the provided token results in an inconsistent list - \
         objects that were created, modified, or deleted between the time the first chunk was returned and \
         now may show up in the list.",
    );
    debug_assert_eq!(status.reason, Reason::Expired);
    status = status.with_continue(from.inconsistent().encode(place));
    status
}

/// Reads on until the page is full; a selector may drop most of what is read.
async fn from_store(
    call: &Call<'_>,
    selection: &Selection,
    mut range: KeyRange,
    revision: Option<Revision>,
    limit: usize,
) -> Outcome<Page> {
    let mut at = revision;
    let mut items: Vec<Arc<Stored>> = Vec::new();
    loop {
        let chunk = match (limit, selection.is_conditional()) {
            (0, _) => 0,
            (limit, false) => limit,
            (_, true) => STORE_CHUNK,
        };
        let request = RangeRequest {
            revision: at,
            limit: chunk,
            // With a selector nobody is told how many are left, so nobody counts them.
            count: !selection.is_conditional(),
            ..RangeRequest::new(range.clone())
        };
        let answer = call.storage().range(request).await?;
        let revision = *at.get_or_insert(answer.revision);
        let read = answer.kvs.len() as u64;
        let mut unseen = answer.count.map_or(u64::from(answer.more), |count| count - read);
        for (index, kv) in answer.kvs.iter().enumerate() {
            if limit > 0 && items.len() == limit {
                unseen += read - index as u64;
                break;
            }
            let stored = Stored::new(kv);
            if selection.selects(&stored) {
                items.push(Arc::new(stored));
            }
        }
        let last = answer.kvs.last();
        let full = limit > 0 && items.len() == limit;
        match last {
            Some(last) if answer.more && !full => range.start = [&last.key[..], &[0]].concat().into(),
            _ => return Ok(Page { items, revision, left: if full { unseen } else { 0 } }),
        }
    }
}

fn meta_of(page: &Page, selection: &Selection) -> ListMeta {
    let last = page.items.last().filter(|_| page.left > 0);
    let token = last.map(|last| Continue::after(&last.key, page.revision).encode(&selection.prefix()));
    // With a selector nobody knows how many of the rest are selected; upstream says nothing then.
    let remaining = token.as_ref().filter(|_| !selection.is_conditional()).map(|_| page.left);
    ListMeta { revision: page.revision, continue_token: token, remaining }
}
