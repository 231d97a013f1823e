//! The resource metrics API (`metrics.k8s.io/v1beta1`): what nodes and pods use, asked of the nodes when somebody
//! asks us. Nothing of it is stored.
//!
//! Always holds: a node is asked at most once in [`FRESH`], however many ask; one that doesn't answer is left
//! out, as upstream's metrics-server does.

mod schema;
mod usage;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::StatusCode;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use crate::error::Outcome;
use crate::registry::resource::Resource;
use crate::request::Verb;
use crate::storage::decode;
use crate::storage::key::Key;
use crate::storage::object::{Stored, UNWRITTEN, encode};
use crate::storage::selection::Selection;
use crate::verbs::view::{ListMeta, View};
use crate::verbs::{Answer, Call, list};

pub use schema::schema;
pub use usage::Summary;

/// The API's group.
pub const GROUP: &str = "metrics.k8s.io";
/// How long an answer of a node holds.
const FRESH: Duration = Duration::from_secs(5);
/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Nodes that are asked at once.
const AT_ONCE: usize = 32;

/// What the nodes have answered last.
#[derive(Default)]
pub struct Summaries(Mutex<HashMap<String, Slot>>);

/// One node's answer. Whoever asks while it is being asked waits for the same answer.
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Option<Arc<Summary>>)>>>;

impl Summaries {
    fn slot(&self, node: &str) -> Slot {
        self.0.lock().entry(node.to_owned()).or_default().clone()
    }

    /// Forgets nodes that are gone.
    fn retain(&self, nodes: &[Value]) {
        let mut slots = self.0.lock();
        if slots.len() > nodes.len() {
            slots.retain(|name, _| nodes.iter().any(|node| api::object::name(node) == name));
        }
    }
}

/// Answers a read of NodeMetrics or PodMetrics.
pub async fn serve(call: Call<'_>) -> Answer {
    let view = View::of(&call)?;
    let measured = match call.resource.plural.as_str() {
        "nodes" => nodes(&call).await?,
        _ => pods(&call).await?,
    };
    let shown = measured.iter().map(|value| Arc::new(as_stored(&call, value)));
    if call.info.verb == Verb::List {
        return view.list(&call, shown.collect(), &ListMeta::default()).await;
    }
    match measured.first() {
        Some(value) => view.object(&call, StatusCode::OK, as_stored(&call, value)).await,
        None => Err(call.not_found(call.name()).into()),
    }
}

fn as_stored(call: &Call<'_>, value: &Value) -> Stored {
    let key = Key::Object(call.resource, api::object::namespace(value), api::object::name(value));
    Stored::of(key.to_bytes(), encode(value), UNWRITTEN)
}

/// The objects of the core group that are meant: one by its name, or all that are selected.
async fn measured_objects(call: &Call<'_>, plural: &str) -> Outcome<Vec<Value>> {
    let Some(resource) = call.server.registry.find("", "v1", plural) else { return Ok(Vec::new()) };
    if call.info.verb != Verb::List {
        let key = Key::Object(&resource, call.namespace(), call.name()).to_bytes();
        return call.storage().read(&key).await?.iter().map(decode).collect();
    }
    let selection = Selection::parse(resource, call.info.namespace.as_deref(), &call.info.query)?;
    list::collect(call, &selection).await?.iter().map(|stored| decode(stored)).collect()
}

async fn nodes(call: &Call<'_>) -> Outcome<Vec<Value>> {
    let nodes = measured_objects(call, "nodes").await?;
    let summaries = summaries(call, &nodes).await;
    let metrics = |node: &Value| usage::node_metrics(node, summaries.get(api::object::name(node))?);
    Ok(nodes.iter().filter_map(metrics).collect())
}

async fn pods(call: &Call<'_>) -> Outcome<Vec<Value>> {
    let pods = measured_objects(call, "pods").await?;
    let all = all_nodes(call)?;
    call.server.summaries.retain(&all);
    let runs_pods =
        |node: &&Value| pods.iter().any(|pod| pod["spec"]["nodeName"] == node["metadata"]["name"]);
    let nodes: Vec<Value> = all.iter().filter(runs_pods).cloned().collect();
    let summaries = summaries(call, &nodes).await;
    let metrics = |pod: &Value| {
        usage::pod_metrics(pod, summaries.get(pod["spec"]["nodeName"].as_str().unwrap_or_default())?)
    };
    Ok(pods.iter().filter_map(metrics).collect())
}

fn all_nodes(call: &Call<'_>) -> Outcome<Vec<Value>> {
    let Some(resource) = call.server.registry.find("", "v1", "nodes") else { return Ok(Vec::new()) };
    let selection = Selection::everything(resource, None);
    let snapshot = call.storage().cache.snapshot(&selection.prefix(), &selection.range);
    snapshot.objects.iter().map(|stored| decode(stored)).collect()
}

/// What these nodes say, by name.
async fn summaries(call: &Call<'_>, nodes: &[Value]) -> HashMap<String, Arc<Summary>> {
    // Boxed: the compiler can't see of borrowing closures in a stream that their futures may be sent.
    let asked: Vec<BoxFuture<'_, Option<Arc<Summary>>>> =
        nodes.iter().map(|node| summary(call, node).boxed()).collect();
    let told: Vec<_> = futures::stream::iter(asked).buffered(AT_ONCE).collect().await;
    let named = nodes.iter().zip(told).map(|(node, told)| (api::object::name(node).to_owned(), told));
    named.filter_map(|(name, told)| Some((name, told?))).collect()
}

async fn summary(call: &Call<'_>, node: &Value) -> Option<Arc<Summary>> {
    let slot = call.server.summaries.slot(api::object::name(node));
    let mut slot = slot.lock().await;
    if let Some((_, known)) = slot.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
        return known.clone();
    }
    let told = tokio::time::timeout(PATIENCE, call.server.node_proxy.summary(node)).await;
    let told = match told {
        Ok(Ok(value)) => Summary::parse(&value, Timestamp::now()).map(Arc::new),
        Ok(Err(status)) => {
            tracing::debug!(node = api::object::name(node), status = status.message, "ask for statistics");
            None
        }
        Err(_) => None,
    };
    *slot = Some((Instant::now(), told.clone()));
    told
}

/// Whether this is a resource that is measured and not stored.
pub fn is_measured(resource: &Resource) -> bool {
    resource.group == GROUP
}
