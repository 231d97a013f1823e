//! Creates, at each start, what every cluster has and this one lacks.
//!
//! The objects take the way of any client's request, as the server's own identity; several members may do
//! it at once, and then "already exists" is as good as created.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::auth::Identity;
use crate::body::Body;
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
    for object in crate::bootstrap::objects().into_iter().chain(own) {
        while !exists(server, &object) && !create(server, &object).await? {
            tokio::time::sleep(RETRY).await;
        }
    }
    Ok(())
}

fn exists(server: &ApiServer, object: &Value) -> bool {
    let Some(resource) = resource_of(server, object) else { return false };
    let (namespace, name) = (api::object::namespace(object), api::object::name(object));
    let key = crate::storage::key::Key::Object(&resource, namespace, name).to_bytes();
    server.storage.cache.get(&key).is_some()
}

fn resource_of(server: &ApiServer, object: &Value) -> Option<Arc<Resource>> {
    let (api_version, kind) = (api::object::api_version(object), api::object::kind(object));
    server.registry.resources().into_iter().find(|r| r.kind == kind && r.api_version() == api_version)
}

/// Creates one; false if the store could not do it now.
async fn create(server: &Arc<ApiServer>, object: &Value) -> Result<bool, StartError> {
    let described = || format!("{} {}", api::object::kind(object), api::object::name(object));
    let refused = |status| StartError::Bootstrap { object: described(), status: Box::new(status) };
    let resource = resource_of(server, object)
        .ok_or_else(|| refused(api::status::Status::internal("its kind isn't served")))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(collection(&resource, api::object::namespace(object)))
        .body(Body::from(object.to_string()))
        .map_err(|error| refused(api::status::Status::internal(error)))?;
    let identity = Identity::new("system:apiserver", &[MASTERS_GROUP]);
    let response = Box::pin(server.handle(request, Peer::InProcess(identity))).await;
    match response.status() {
        StatusCode::CREATED | StatusCode::CONFLICT => Ok(true),
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
