//! From what is asked for to who answers.

use std::sync::Arc;

use api::status::Status;
use http::request::Parts;
use http::{Response, StatusCode};

use crate::body::Body;
use crate::handle::ApiServer;
use crate::registry::resource::SubresourceAction;
use crate::request::{RequestInfo, Verb};
use crate::response;
use crate::verbs::submit::Part;
use crate::verbs::{
    Answer, Call, binding, create, delete, delete_collection, eviction, get, list, patch, review, scale,
    update, watch,
};

/// Answers a request for a resource or a subresource.
pub async fn resource(call: Call<'_>, body: &[u8]) -> Answer {
    if let Some(name) = &call.info.subresource {
        return subresource(call, name, body).await;
    }
    if !is_served(&call) {
        return Err(method_not_allowed(&call).into());
    }
    if let Some(kind) = call.resource.strategy.traits().review {
        return review::review(call, kind, body).await;
    }
    match call.info.verb {
        Verb::Get => get::get(call).await,
        Verb::List => list::list(call).await,
        Verb::Watch => watch::watch(call).await,
        Verb::Create => create::create(call, body).await,
        Verb::Update => update::update(call, Part::Main, body).await,
        Verb::Patch => patch::patch(call, Part::Main, body).await,
        Verb::Delete => delete::delete(call, body).await,
        Verb::DeleteCollection => delete_collection::delete_collection(call, body).await,
        _ => Err(method_not_allowed(&call).into()),
    }
}

/// The row has the verb, and the path has what the verb needs: writes of one object need its place.
fn is_served(call: &Call<'_>) -> bool {
    let info = call.info;
    let named_in_path =
        info.name.is_some() && !matches!(info.verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
    let placed = !call.resource.namespaced || info.namespace.is_some();
    let fits = match info.verb {
        // A namespace's path names it twice over; its collection has no name at all.
        Verb::Create => !named_in_path && placed,
        Verb::List | Verb::Watch => true,
        Verb::DeleteCollection => placed,
        _ => placed,
    };
    call.resource.verbs.contains(info.verb) && fits
}

async fn subresource(call: Call<'_>, name: &str, body: &[u8]) -> Answer {
    let Some(row) = call.resource.subresource(name) else {
        return Ok(response::text(StatusCode::NOT_FOUND, "404 page not found\n"));
    };
    if !row.verbs.contains(call.info.verb) || call.info.namespace.is_none() && call.resource.namespaced {
        return Err(method_not_allowed(&call).into());
    }
    match (row.action, call.info.verb) {
        (SubresourceAction::Status, Verb::Get) => get::get(call).await,
        (SubresourceAction::Status, Verb::Patch) => patch::patch(call, Part::Status, body).await,
        (SubresourceAction::Status, _) => update::update(call, Part::Status, body).await,
        (SubresourceAction::Finalize, _) => update::update(call, Part::Finalizers, body).await,
        (SubresourceAction::Scale, _) => scale::scale(call, body).await,
        (SubresourceAction::Binding, _) => binding::bind(call, body).await,
        (SubresourceAction::Eviction, _) => eviction::evict(call, body).await,
        (SubresourceAction::Log, _) => log(call).await,
    }
}

async fn log(_call: Call<'_>) -> Answer {
    Err(Status::unavailable("logs are not wired yet").into())
}

fn method_not_allowed(call: &Call<'_>) -> Status {
    Status::method_not_allowed(&call.resource.plural, &call.resource.group, call.info.verb.as_str())
}

/// Answers a request for a path that is no resource.
pub async fn path(_server: &Arc<ApiServer>, _parts: &Parts, _info: &RequestInfo) -> Answer {
    Ok(not_found())
}

fn not_found() -> Response<Body> {
    response::text(StatusCode::NOT_FOUND, "404 page not found\n")
}
