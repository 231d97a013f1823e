//! Asks who serves an API whether it lives and what it has, and writes the condition `Available`.
//!
//! Every member asks for itself, as upstream's do: what one can reach another may not. The question is the one that
//! upstream asks, `/apis/GROUP/VERSION` as a master, but over TLS that must be right: what is answered goes into
//! discovery, and a wrong `caBundle` is told before a user finds it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use api::error::chain;
use futures::future::select_ok;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use http::header::{ACCEPT, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{Method, Request, StatusCode};
use jiff::Timestamp;
use rand::seq::IndexedRandom;
use serde_json::Value;
use tokio::sync::watch;

use super::agenda::Agenda;
use super::availability::{Available, obstacle};
use super::forward::identify;
use super::swagger::Swagger;
use super::{Backend, GROUP, Learned};
use crate::auth::Identity;
use crate::body::Body;
use crate::crd::controller::{is_settled, send};
use crate::handle::ApiServer;
use crate::pki::MASTERS_GROUP;
use crate::reach::services::Service;
use crate::reach::{ReachError, Target, Tls, whole};
use crate::storage::decode;
use crate::storage::key::Key;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many endpoints are asked; it lives if one answers.
const ATTEMPTS: usize = 5;
/// The longest list that is read, in bytes.
const LIST: usize = 8 << 20;

/// Runs until the server is gone.
pub async fn run(server: Weak<ApiServer>) {
    let Some(changed) = server.upgrade().map(|server| server.aggregation.changed.subscribe()) else {
        return;
    };
    let all = || {
        let all = server.upgrade()?.aggregation.all();
        Some(all.into_iter().map(|backend| (backend.name.clone(), backend)).collect())
    };
    let look = |backend: Arc<Backend>| {
        let server = server.upgrade();
        async move {
            match server {
                Some(server) => look(&server, &backend).await,
                None => false,
            }
        }
    };
    follow(changed, all, look).await;
}

/// Looks at each whenever it is due, one beside the other, until there is nobody to ask for: `all` is `None`.
async fn follow<T, L: Future<Output = bool>>(
    mut changed: watch::Receiver<()>,
    all: impl Fn() -> Option<BTreeMap<String, T>>,
    look: impl Fn(T) -> L,
) {
    let (mut agenda, mut looks) = (Agenda::default(), FuturesUnordered::new());
    while let Some(all) = all() {
        agenda.retain(|name| all.contains_key(name));
        for (name, one) in all {
            if agenda.begins(&name, Instant::now()) {
                looks.push(look(one).map(|settled| (name, settled)));
            }
        }
        tokio::select! {
            stirred = changed.changed() => match stirred {
                Ok(()) => agenda.stir(Instant::now()),
                Err(_) => return,
            },
            Some((name, settled)) = looks.next() => agenda.ended(&name, settled, Instant::now()),
            () = sleep_until(agenda.next()) => {}
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Asks one; false if it must be asked again soon.
async fn look(server: &Arc<ApiServer>, backend: &Backend) -> bool {
    let available = check(server, backend).await;
    let written = write(server, backend, &available).await;
    written && available.is_true()
}

async fn check(server: &ApiServer, backend: &Backend) -> Available {
    let service = match server.services.find(&backend.namespace, &backend.service).await {
        Ok(service) => service,
        Err(failure) if failure.code() == 404 => return Available::no_service(backend),
        Err(failure) => return Available::unknown(backend, &failure.into_status().message),
    };
    if let Some(obstacle) = obstacle(backend, &service) {
        return obstacle;
    }
    let known = server.aggregation.learned.lock().get(&backend.name).cloned();
    match ask(backend, &service, known.and_then(|known| known.swagger)).await {
        Ok(learned) => {
            server.aggregation.learned.lock().insert(backend.name.clone(), learned);
            Available::passed()
        }
        Err(why) => Available::failed(why),
    }
}

/// Asks some of its endpoints at once; the first answer counts. `known` is what it has said before of version 2.
async fn ask(backend: &Backend, service: &Service, known: Option<Arc<Swagger>>) -> Result<Learned, String> {
    let config = backend.tls.clone()?;
    let addresses = service.addresses(backend.port).map_err(|status| status.message)?;
    let chosen: Vec<&String> = addresses.sample(&mut rand::rng(), ATTEMPTS).collect();
    let asked = chosen.into_iter().map(|address| {
        let tls = Tls { config: config.clone(), name: backend.server_name() };
        ask_one(backend, Target { address: address.clone(), tls: Some(tls) }, known.clone()).boxed()
    });
    select_ok(asked).await.map(|(learned, _)| learned)
}

async fn ask_one(backend: &Backend, target: Target, known: Option<Arc<Swagger>>) -> Result<Learned, String> {
    let path = format!("/apis/{}/{}", backend.group, backend.version);
    let url = format!("https://{}{path}", target.address);
    let failed = |why: String| format!("failing or missing response from {url}: {why}");
    let list = get(&target, &path).await.map_err(|why| match why {
        Refusal::Code(code) => failed(format!("bad status from {url}: {code}")),
        Refusal::Lost(why) => failed(format!("Get {url:?}: {why}")),
    })?;
    // Not all have documents of version 3.
    let index = get(&target, "/openapi/v3").await.unwrap_or_default();
    let swagger = swagger(backend, &target, known).await;
    Ok(Learned::of(&backend.group, &backend.version, &list, &index, swagger))
}

/// What the server's document of version 2 says; it is large, so it is sent only if it has changed.
async fn swagger(backend: &Backend, target: &Target, known: Option<Arc<Swagger>>) -> Option<Arc<Swagger>> {
    let tag = known.as_ref().map(|known| known.tag.as_str()).unwrap_or_default();
    match get_newer(target, "/openapi/v2", tag).await.ok()? {
        Some((tag, document)) => {
            Some(Arc::new(Swagger::of(&tag, &document, &backend.group, &backend.version)))
        }
        None => known,
    }
}

enum Refusal {
    Code(u16),
    Lost(String),
}

async fn get(target: &Target, path: &str) -> Result<Value, Refusal> {
    Ok(get_newer(target, path, "").await?.map(|(_, document)| document).unwrap_or_default())
}

/// A document with its tag, unless it is the one of the tag that is known.
async fn get_newer(target: &Target, path: &str, known: &str) -> Result<Option<(String, Value)>, Refusal> {
    let lost = |error: ReachError| Refusal::Lost(chain(&error));
    let mut request =
        Request::get(path).body(Body::empty()).map_err(|error| Refusal::Lost(error.to_string()))?;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(known) = HeaderValue::from_str(known).ok().filter(|known| !known.is_empty()) {
        request.headers_mut().insert(IF_NONE_MATCH, known);
    }
    identify(request.headers_mut(), &Identity::new("system:kube-aggregator", &[MASTERS_GROUP]));
    let exchange = async {
        let (answer, _connection) = target.send(request).await.map_err(lost)?;
        let tag = answer.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
        match answer.status() {
            StatusCode::NOT_MODIFIED => Ok(None),
            code if code.is_success() => {
                Ok(Some((tag, whole(answer.into_body(), LIST).await.map_err(lost)?)))
            }
            code => Err(Refusal::Code(code.as_u16())),
        }
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await;
    let answer = answer.unwrap_or_else(|_| Err(lost(ReachError::Timeout(PATIENCE))))?;
    Ok(answer.map(|(tag, body)| (tag, serde_json::from_slice(&body).unwrap_or_default())))
}

/// Writes the condition, if the APIService doesn't say it already; false if it couldn't.
async fn write(server: &Arc<ApiServer>, backend: &Backend, available: &Available) -> bool {
    let Some(row) = server.registry.find(GROUP, "v1", "apiservices") else { return true };
    let stored = server.storage.cache.get(&Key::Object(&row, "", &backend.name).to_bytes());
    let Some(mut object) = stored.and_then(|stored| decode(&stored).ok()) else { return true };
    let now = api::time::rfc3339(Timestamp::now());
    let Some(status) = available.put_into(&object["status"], &now) else { return true };
    object["status"] = status;
    let path = format!("/apis/{GROUP}/v1/apiservices/{}/status", backend.name);
    is_settled(send(server, Method::PUT, &path, object.to_string()).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn a_silent_one_delays_nobody() {
        let (stir, changed) = watch::channel(());
        let (asked, mut answers) = mpsc::unbounded_channel();
        let all = || Some(["good", "silent"].map(|name| (name.to_owned(), name)).into());
        let look = |name: &'static str| {
            asked.send(name).expect("the test listens");
            async move { if name == "silent" { std::future::pending().await } else { true } }
        };
        let test = async {
            let first = [answers.recv().await, answers.recv().await];
            assert_eq!(first, ["good", "silent"].map(Some));
            for _ in 0..3 {
                stir.send_replace(());
                assert_eq!(answers.recv().await, Some("good"), "beside the silent one");
            }
        };
        tokio::select! {
            () = test => {}
            () = follow(changed, all, look) => unreachable!("somebody is there to ask"),
        }
    }
}
