//! Writes the status of definitions, and deletes the objects of those that go.
//!
//! Every server runs one; they agree because each write names the version that it is meant for, and whoever
//! loses looks again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use crate::auth::Identity;
use crate::body::Body;
use crate::crd::{GROUP, PLURAL, registration, status};
use crate::error::Outcome;
use crate::handle::ApiServer;
use crate::peer::Peer;
use crate::pki::MASTERS_GROUP;
use crate::registry::resource::Resource;
use crate::storage::decode;
use crate::storage::key::{Key, names_of};

/// How soon a definition is looked at again whose objects take their time, or that could not be written.
const AGAIN: Duration = Duration::from_millis(250);

/// Runs until the server is gone.
pub async fn run(server: Weak<ApiServer>, mut changed: watch::Receiver<()>) {
    loop {
        let Some(strong) = server.upgrade() else { return };
        let settled = reconcile(&strong).await;
        drop(strong);
        let wait = async {
            match settled {
                true => std::future::pending().await,
                false => tokio::time::sleep(AGAIN).await,
            }
        };
        tokio::select! {
            ended = changed.changed() => if ended.is_err() { return },
            () = wait => {}
        }
    }
}

/// Looks at all definitions once; false if there is something left to do that no change will tell of.
async fn reconcile(server: &Arc<ApiServer>) -> bool {
    let Ok(all) = objects(server, GROUP, PLURAL).await else { return false };
    // First: who has seen that a definition is established finds its APIServices.
    let mut settled = registration::keep(server, &all).await;
    for crd in &all {
        if let Some(planned) = status::plan(crd, &all, Timestamp::now()) {
            settled &= put(server, &planned).await;
        } else if api::object::finalizers(crd).iter().any(|f| f == crate::strategies::CLEANUP)
            && api::object::is_deleting(crd)
        {
            settled &= clean_up(server, crd).await;
        }
    }
    settled
}

/// The objects of a kind, with all that this server wrote.
pub(crate) async fn objects(server: &ApiServer, group: &str, plural: &str) -> Outcome<Vec<Value>> {
    let Some(resource) = server.registry.find(group, "v1", plural) else { return Ok(Vec::new()) };
    let key = Key::Resource(&resource);
    server.storage.catch_up(&key.to_bytes()).await?;
    let snapshot = server.storage.cache.snapshot(&key.to_bytes(), &key.range());
    snapshot.objects.iter().map(|stored| decode(stored)).collect()
}

/// Deletes the objects; once none is left, lets the definition go. True if that was all.
async fn clean_up(server: &Arc<ApiServer>, crd: &Value) -> bool {
    let group = crd["spec"]["group"].as_str().unwrap_or_default();
    let plural = crd["spec"]["names"]["plural"].as_str().unwrap_or_default();
    let served = server.registry.resources().into_iter().find(|r| r.group == group && r.plural == plural);
    if let Some(resource) = served {
        // What was written before creation was refused must be seen here.
        if server.storage.refresh().await.is_err() || !delete_all(server, &resource).await {
            return false;
        }
    }
    // A definition that was never served has no objects.
    let done = status::cleaned_up(crd, Timestamp::now());
    // As upstream's, this status takes the finalizer with it.
    put(server, &done).await
}

/// Begins the deletion of all objects; true if there was none left.
async fn delete_all(server: &Arc<ApiServer>, resource: &Arc<Resource>) -> bool {
    let key = Key::Resource(resource);
    let objects = server.storage.cache.snapshot(&key.to_bytes(), &key.range()).objects;
    for stored in &objects {
        let (namespace, name) = names_of(&stored.key);
        let place = if namespace.is_empty() { String::new() } else { format!("namespaces/{namespace}/") };
        let path = format!("/apis/{}/{place}{}/{name}", resource.api_version(), resource.plural);
        send(server, Method::DELETE, &path, String::new()).await;
    }
    objects.is_empty()
}

async fn put(server: &Arc<ApiServer>, crd: &Value) -> bool {
    let path = format!("/apis/{GROUP}/v1/{PLURAL}/{}/status", api::object::name(crd));
    is_settled(send(server, Method::PUT, &path, crd.to_string()).await)
}

/// A conflict or a deletion in between will be told of by a change.
pub(crate) fn is_settled(code: StatusCode) -> bool {
    code.is_success() || matches!(code, StatusCode::CONFLICT | StatusCode::NOT_FOUND)
}

pub(crate) async fn send(server: &Arc<ApiServer>, method: Method, path: &str, body: String) -> StatusCode {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::USER_AGENT, "kube-apiserver")
        .body(Body::from(body));
    let Ok(request) = request else { return StatusCode::BAD_REQUEST };
    let identity = Identity::new("system:apiserver", &[MASTERS_GROUP]);
    let code = server.handle(request, Peer::InProcess(identity)).await.status();
    if code.is_server_error() {
        tracing::warn!(%path, %code, "a controller of the server itself was refused");
    }
    code
}
