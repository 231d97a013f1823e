//! Creates, at each start, what every cluster has and this one lacks, and gives roles back what they have lost.
//!
//! The objects take the way of any client's request, as the server's own identity; several members may do
//! it at once, and then "already exists", or "changed meanwhile", is as good as written.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::aggregation;
use crate::auth::{Identity, token_tracking};
use crate::body::Body;
use crate::bootstrap::reconcile::reconciled;
use crate::handle::{ApiServer, StartError};
use crate::peer::Peer;
use crate::pki::MASTERS_GROUP;
use crate::registry::resource::Resource;
use crate::storage::follower::RETRY;

/// Creates the missing ones.
///
/// # Errors
/// The first refusal that isn't "already exists".
pub async fn ensure(server: &Arc<ApiServer>) -> Result<(), StartError> {
    let own = crate::kubernetes_service::objects(&server.config);
    let services = crate::bootstrap::api_services(&server.registry.groups());
    let published =
        [aggregation::authentication(&server.config), token_tracking::since(jiff::Timestamp::now())];
    for object in crate::bootstrap::objects().into_iter().chain(own).chain(services).chain(published) {
        let mut refusals = 0;
        while let Some((method, object)) = missing(server, &object) {
            match write(server, method, &object).await {
                Ok(true) => break,
                // Members that start together ask for one address: who is late is refused before he is told that
                // the object is there, and sees it a moment later.
                Err(_) if is_service(&object) && refusals < REFUSALS => refusals += 1,
                Ok(false) => {}
                // Somebody's Service has had the address since before there was this one.
                Err(error) if api::object::name(&object) == crate::kubernetes_service::DNS => {
                    tracing::warn!(%error, "the Service of the cluster's DNS can't be made");
                    break;
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
    Ok(())
}

/// How often a Service may be refused before it counts.
const REFUSALS: u32 = 20;

fn is_service(object: &Value) -> bool {
    api::object::kind(object) == "Service"
}

/// What is to be written so that the object is as it must be; `None` if it is.
fn missing(server: &ApiServer, object: &Value) -> Option<(Method, Value)> {
    let create = || Some((Method::POST, object.clone()));
    let Some(resource) = resource_of(server, object) else { return create() };
    let (namespace, name) = (api::object::namespace(object), api::object::name(object));
    let key = crate::storage::key::Key::Object(&resource, namespace, name).to_bytes();
    let Some(there) = server.storage.cache.get(&key) else { return create() };
    let there = there.to_value().ok()?;
    let next = match resource.group == "rbac.authorization.k8s.io" {
        true => reconciled(&there, object)?,
        false => aggregation::authentication_with(&there, object)?,
    };
    Some((Method::PUT, next))
}

fn resource_of(server: &ApiServer, object: &Value) -> Option<Arc<Resource>> {
    let (api_version, kind) = (api::object::api_version(object), api::object::kind(object));
    server.registry.resources().into_iter().find(|r| r.kind == kind && r.api_version() == api_version)
}

/// Writes one; false if the store could not do it now.
async fn write(server: &Arc<ApiServer>, method: Method, object: &Value) -> Result<bool, StartError> {
    let described = || format!("{} {}", api::object::kind(object), api::object::name(object));
    let refused = |status| StartError::Bootstrap { object: described(), status: Box::new(status) };
    let resource = resource_of(server, object)
        .ok_or_else(|| refused(api::status::Status::internal("its kind isn't served")))?;
    let mut uri = collection(&resource, api::object::namespace(object));
    if method == Method::PUT {
        uri.push_str(&format!("/{}", api::object::name(object)));
    }
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .body(Body::from(object.to_string()))
        .map_err(|error| refused(api::status::Status::internal(error)))?;
    let identity = Identity::new("system:apiserver", &[MASTERS_GROUP]);
    let response = Box::pin(server.handle(request, Peer::InProcess(identity))).await;
    match response.status() {
        StatusCode::OK | StatusCode::CREATED | StatusCode::CONFLICT => Ok(true),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Ok(false)
        }
        _ => {
            let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            Err(refused(api::status::Status::internal(String::from_utf8_lossy(&body))))
        }
    }
}

fn collection(resource: &Resource, namespace: &str) -> String {
    let root = if resource.group.is_empty() { "api" } else { "apis" };
    let place = if resource.namespaced { format!("namespaces/{namespace}/") } else { String::new() };
    format!("/{root}/{}/{place}{}", resource.api_version(), resource.plural)
}
