//! From what is asked for to who answers.

use api::status::Status;
use http::request::Parts;
use http::{Response, StatusCode};

use crate::body::Body;
use crate::error::Outcome;
use crate::handle::ApiServer;
use crate::health::Check;
use crate::node_proxy::{LogOptions, Stream, upgrade_headers};
use crate::registry::resource::SubresourceAction;
use crate::request::{RequestInfo, Verb};
use crate::storage::decode;
use crate::storage::key::Key;
use crate::verbs::submit::Part;
use crate::verbs::{
    Answer, Call, binding, component_status, create, delete, delete_collection, eviction, get, list, patch,
    review, scale, token_request, update, watch,
};
use crate::{
    admission, discovery, health, open_id, openapi, resource_metrics, response, transaction, version,
};

/// Answers a request for a resource or a subresource.
pub async fn resource(call: Call<'_>, body: &[u8]) -> Answer {
    if let Some(warning) = call.resource.custom.as_ref().and_then(|custom| custom.warning.as_ref()) {
        call.warn(warning);
    }
    if let Some(name) = &call.info.subresource {
        return subresource(call, name, body).await;
    }
    if call.info.verb == Verb::Create
        && call.resource.custom.as_ref().is_some_and(|custom| custom.terminating)
    {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(method_not_allowed(&call).with_message(why).into());
    }
    if !is_served(&call) {
        return Err(method_not_allowed(&call).into());
    }
    if resource_metrics::is_measured(call.resource) {
        return resource_metrics::serve(call).await;
    }
    if transaction::is_row(call.resource) {
        // A step is dispatched in its turn.
        return Box::pin(transaction::transact(call, body)).await;
    }
    if let Some(kind) = call.resource.strategy.traits().review {
        return review::review(call, kind, body).await;
    }
    match (call.resource.group.as_str(), call.resource.plural.as_str()) {
        ("", "bindings") => return binding::create(call, body).await,
        ("", "componentstatuses") => return component_status::answer(call).await,
        _ => {}
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
        _ => placed && info.name.is_some(),
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
    // Who may not act isn't told what webhooks think of it, nor are they told of him.
    if let SubresourceAction::Stream(_) = row.action {
        authorize_stream(&call)?;
    }
    // Streams are asked for with an object of their own: `PodExecOptions`.
    if row.kind.ends_with("Options") {
        admission::connect(&call, &row.kind).await?;
    }
    match (row.action, call.info.verb) {
        (SubresourceAction::Status, Verb::Get) => get::get(call).await,
        (SubresourceAction::Status, Verb::Patch) => patch::patch(call, Part::Status, body).await,
        (SubresourceAction::Status, _) => update::update(call, Part::Status, body).await,
        (SubresourceAction::EphemeralContainers | SubresourceAction::Resize, Verb::Get) => {
            get::get(call).await
        }
        (SubresourceAction::EphemeralContainers, Verb::Patch) => {
            patch::patch(call, Part::EphemeralContainers, body).await
        }
        (SubresourceAction::EphemeralContainers, _) => {
            update::update(call, Part::EphemeralContainers, body).await
        }
        (SubresourceAction::Resize, Verb::Patch) => patch::patch(call, Part::Resize, body).await,
        (SubresourceAction::Resize, _) => update::update(call, Part::Resize, body).await,
        (SubresourceAction::Finalize, _) => update::update(call, Part::Finalizers, body).await,
        (SubresourceAction::Scale, _) => scale::scale(call, body).await,
        (SubresourceAction::Binding, _) => binding::bind(call, body).await,
        (SubresourceAction::Eviction, _) => eviction::evict(call, body).await,
        (SubresourceAction::Log, _) => log(call).await,
        (SubresourceAction::Token, _) => token_request::create(call, body).await,
        (SubresourceAction::Stream(kind), _) => stream(call, kind).await,
        // Served before a body is read; a step of a transaction can't be passed on.
        (SubresourceAction::Proxy, _) => Err(method_not_allowed(&call).into()),
    }
}

/// A browser's upgrade is a GET, and whoever may only read must not act by one (upstream since 1.35).
fn authorize_stream(call: &Call<'_>) -> Outcome<()> {
    let acting = RequestInfo { verb: Verb::Create, ..call.info.clone() };
    call.server.authorize(call.identity, &acting)
}

/// The stream is the kubelet's; here is only where the pod runs.
async fn stream(call: Call<'_>, kind: Stream) -> Answer {
    let headers = upgrade_headers(call.headers)?;
    let pod = decode(&get::read(&call).await?)?;
    let path = kind.path(&pod, &call.info.query)?;
    let name = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let node = node(&call, name).ok_or_else(|| Status::not_found("nodes", "", name))?;
    Ok(call.server.node_proxy.stream(&node, &path, headers).await?)
}

fn node(call: &Call<'_>, name: &str) -> Option<serde_json::Value> {
    let nodes = call.server.registry.find("", "v1", "nodes")?;
    call.storage().cache.get(&Key::Object(&nodes, "", name).to_bytes())?.to_value().ok()
}

/// The log is the kubelet's; here is only who may read it and where the pod runs.
async fn log(call: Call<'_>) -> Answer {
    let pod = decode(&get::read(&call).await?)?;
    let options = LogOptions::parse(&call.info.query)?;
    Ok(call.server.node_proxy.logs(&pod, &options, |name| node(&call, name)).await?)
}

fn method_not_allowed(call: &Call<'_>) -> Status {
    Status::method_not_allowed(&call.resource.plural, &call.resource.group, call.info.verb.as_str())
}

/// Answers a request for a path that is no resource.
pub fn path(server: &ApiServer, parts: &Parts, info: &RequestInfo) -> Response<Body> {
    if !info.verb.is_read() {
        return not_found();
    }
    let (registry, headers) = (&server.registry, &parts.headers);
    let external = server.aggregation.external();
    match info.path.trim_end_matches('/') {
        "/version" => response::json(StatusCode::OK, &version::document()),
        "/metrics" => metrics(server),
        "/.well-known/openid-configuration" => open_id::configuration(server),
        "/openid/v1/jwks" => open_id::keys(server),
        path if path.starts_with("/openapi") => {
            openapi::respond(registry, &external, path, &info.query, headers).unwrap_or_else(not_found)
        }
        path => discovery::respond(registry, &external, path, headers)
            .or_else(|| health(server, path, info))
            .unwrap_or_else(not_found),
    }
}

fn metrics(server: &ApiServer) -> Response<Body> {
    let status = server.storage.status();
    let mut text = server.metrics.render(status.revision.0, status.leader.is_some());
    server.flow.render(&mut text);
    if let Some(audit) = &server.audit {
        audit.render(&mut text);
    }
    crate::metrics::process(&mut text);
    crate::metrics::objects(&mut text, &server.storage.cache.counts());
    response::text(StatusCode::OK, text.into_string())
}

fn health(server: &ApiServer, path: &str, info: &RequestInfo) -> Option<Response<Body>> {
    let leader = server.storage.status().leader;
    let draining = *server.draining.borrow();
    let checks = [
        Check::live("ping", Ok(())),
        Check::ready("etcd", leader.map(|_| ()).ok_or_else(|| "the store has no leader".to_owned())),
        Check::ready(
            "shutdown",
            if draining { Err("the server is about to end".to_owned()) } else { Ok(()) },
        ),
    ];
    health::respond(path, &info.query, &checks).map(|(code, text)| response::text(code, text))
}

fn not_found() -> Response<Body> {
    response::text(StatusCode::NOT_FOUND, "404 page not found\n")
}
