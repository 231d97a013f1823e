//! `amoeba describe`

use jiff::Timestamp;
use serde_json::Value;

use super::events::{about_object, sorted};
use super::logs::label_selector;
use super::selection::{self, Selected};
use super::{note, say_raw};
use crate::app::App;
use crate::cluster::Cluster;
use crate::cluster::kinds::Kind;
use crate::cluster::path::{self, Query};
use crate::describe::{Related, describe};
use crate::failure::Failure;

/// Show everything about an object
#[derive(Debug, clap::Args)]
pub struct Args {
    /// TYPE [NAME …] or TYPE/NAME …
    #[arg(value_name = "WHAT", required = true)]
    what: Vec<String>,
    /// Only with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Also the events about it; =false leaves them out
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    show_events: bool,
}

/// Describes each object, two empty lines between them.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let cluster = app.cluster().await?;
    let selected = selection::resolve(&cluster, &selection::parse("describe", &args.what)?).await?;
    let mut shown = 0;
    for one in &selected {
        for object in objects(&cluster, &args, one).await? {
            let related = related(&cluster, &args, &one.kind, &object).await?;
            let separator = if shown == 0 { "" } else { "\n\n" };
            say_raw(&format!("{separator}{}", describe(&object, &related, Timestamp::now())));
            shown += 1;
        }
    }
    if shown == 0 {
        note(format!("No resources found in {} namespace.", cluster.namespace()));
    }
    Ok(())
}

async fn objects(cluster: &Cluster, args: &Args, one: &Selected) -> Result<Vec<Value>, Failure> {
    if let Some(name) = &one.name {
        return Ok(vec![cluster.get(&path::object(&one.kind, cluster.namespace(), name)).await?]);
    }
    let namespace = (!args.all_namespaces).then(|| cluster.namespace());
    let query = Query::new().with_some("labelSelector", args.selector.as_ref());
    let mut list = cluster.get(&query.on(&path::collection(&one.kind, namespace))).await?;
    let mut objects = match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    for object in &mut objects {
        api::object::set_type(object, &one.kind.api_version(), &one.kind.kind);
    }
    Ok(objects)
}

async fn related(cluster: &Cluster, args: &Args, kind: &Kind, object: &Value) -> Result<Related, Failure> {
    let events = if args.show_events { events(cluster, kind, object).await? } else { Vec::new() };
    let (children, lease) = match kind.kind.as_str() {
        "Deployment" => (replica_sets(cluster, object).await?, None),
        "Node" => (pods_on(cluster, object).await?, lease_of(cluster, object).await),
        _ => (Vec::new(), None),
    };
    Ok(Related { events, children, lease })
}

async fn items(
    cluster: &Cluster,
    word: &str,
    namespace: Option<&str>,
    query: Query,
) -> Result<Vec<Value>, Failure> {
    let kinds = cluster.kinds().await?;
    let Ok(kind) = kinds.resolve_one(word) else { return Ok(Vec::new()) };
    let mut list = cluster.get(&query.on(&path::collection(kind, namespace))).await?;
    Ok(match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    })
}

/// Events about cluster-wide objects stand in the default namespace.
async fn events(cluster: &Cluster, kind: &Kind, object: &Value) -> Result<Vec<Value>, Failure> {
    let namespace = if kind.namespaced { api::object::namespace(object) } else { "" };
    let namespace = (!namespace.is_empty()).then_some(namespace);
    let mut selector = about_object(&kind.kind, api::object::name(object));
    if kind.kind != "Node" {
        // Agents report about their node under its name, before they know its uid.
        selector = format!("{selector},involvedObject.uid={}", api::object::uid(object));
    }
    let found = items(cluster, "events", namespace, Query::new().with("fieldSelector", selector)).await?;
    Ok(sorted(found))
}

async fn replica_sets(cluster: &Cluster, deployment: &Value) -> Result<Vec<Value>, Failure> {
    let selector = label_selector(&deployment["spec"]["selector"]).unwrap_or_default();
    let query = Query::new().with("labelSelector", selector);
    let namespace = api::object::namespace(deployment);
    let mut sets = items(cluster, "replicasets.apps", Some(namespace), query).await?;
    sets.retain(|set| {
        api::object::controller_of(set).is_some_and(|owner| owner.uid == api::object::uid(deployment))
    });
    Ok(sets)
}

async fn pods_on(cluster: &Cluster, node: &Value) -> Result<Vec<Value>, Failure> {
    let query = Query::new().with("fieldSelector", format!("spec.nodeName={}", api::object::name(node)));
    items(cluster, "pods", None, query).await
}

/// A node that never renewed its lease has none; that is worth no error.
async fn lease_of(cluster: &Cluster, node: &Value) -> Option<Value> {
    let kinds = cluster.kinds().await.ok()?;
    let leases = kinds.resolve_one("leases.coordination.k8s.io").ok()?;
    cluster.get(&path::object(leases, "kube-node-lease", api::object::name(node))).await.ok()
}
