//! `amoeba delete`

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::selection::{self, Selected};
use super::{note, say};
use crate::app::App;
use crate::apply::target;
use crate::cluster::Cluster;
use crate::cluster::kinds::Kind;
use crate::cluster::path::{self, Query};
use crate::cluster::request::RequestError;
use crate::cluster::watch::{EventKind, WatchStart};
use crate::failure::Failure;
use crate::manifest;

/// Delete objects
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  amoeba delete pod web-1\n  amoeba delete deploy/web svc/web\n  \
                        amoeba delete -f web.yaml\n  amoeba delete pods -l app=web")]
pub struct Args {
    /// TYPE NAME … or TYPE/NAME …, or TYPE with -l or --all
    #[arg(value_name = "WHAT")]
    what: Vec<String>,
    /// The objects of this file or directory, or of standard input (-)
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with_all = ["what", "selector", "all"])]
    filename: Vec<PathBuf>,
    /// Also read the directories inside a directory
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Only with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// All objects of the type in the namespace
    #[arg(long, conflicts_with = "selector")]
    all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Seconds that a pod gets to end by itself; its own value otherwise
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true, hide_default_value = true)]
    grace_period: i64,
    /// Don't wait for the node to confirm; the processes may still run
    #[arg(long)]
    force: bool,
    /// What becomes of the objects that this one owns
    #[arg(long, value_name = "HOW", default_value = "background", num_args = 0..=1, default_missing_value = "background")]
    cascade: Cascade,
    /// Return only when the objects are gone
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    wait: bool,
    /// Give up waiting after this long, such as 30s
    #[arg(long, value_name = "TIME", value_parser = crate::text::parse_duration)]
    timeout: Option<Duration>,
    /// No error if an object doesn't exist
    #[arg(long)]
    ignore_not_found: bool,
}

/// What becomes of owned objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Cascade {
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay.
    Orphan,
}

/// An object that is to go.
struct Doomed {
    kind: Kind,
    namespace: String,
    name: String,
}

/// What is still there: with its uid, so that a successor of the same name doesn't count.
struct Leaving<'a> {
    doomed: &'a Doomed,
    uid: String,
}

/// Deletes, then waits.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let cluster = app.cluster().await?;
    let doomed = doomed(&cluster, app, &args).await?;
    if args.force {
        note(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been \
              terminated. The resource may continue to run on the cluster indefinitely.",
        );
    }
    let mut leaving = Vec::new();
    let mut errors: Vec<RequestError> = Vec::new();
    for one in &doomed {
        match delete(&cluster, &args, one).await {
            Ok(uid) => leaving.push(Leaving { doomed: one, uid }),
            Err(error) if error.is(404) && args.ignore_not_found => {}
            Err(error) => errors.push(error),
        }
    }
    if args.wait && !args.force {
        wait_all(&cluster, &args, &leaving).await?;
    }
    if doomed.is_empty() {
        note("No resources found");
    }
    fail_with(errors)
}

/// Prints all errors but the last, which ends the process.
fn fail_with(mut errors: Vec<RequestError>) -> Result<(), Failure> {
    let Some(last) = errors.pop() else { return Ok(()) };
    errors.iter().for_each(note);
    Err(last.into())
}

async fn doomed(cluster: &Cluster, app: &App, args: &Args) -> Result<Vec<Doomed>, Failure> {
    if !args.filename.is_empty() {
        let documents = manifest::read(&args.filename, args.recursive)?;
        let targets = target::targets(cluster, app.target.namespace.as_deref(), documents).await?;
        let of = |target: target::Target| Doomed {
            name: target.document.name().to_owned(),
            kind: target.kind,
            namespace: target.namespace,
        };
        return Ok(targets.into_iter().map(of).collect());
    }
    let selected = selection::resolve(cluster, &selection::parse("delete", &args.what)?).await?;
    let mut doomed = Vec::new();
    for one in selected {
        doomed.extend(expand(cluster, args, one).await?);
    }
    Ok(doomed)
}

async fn expand(cluster: &Cluster, args: &Args, one: Selected) -> Result<Vec<Doomed>, Failure> {
    if let Some(name) = one.name {
        if args.all_namespaces && one.kind.namespaced {
            return Err(Failure::Usage(
                "a name can't be looked for in all namespaces: use -n NAMESPACE".into(),
            ));
        }
        return Ok(vec![Doomed { kind: one.kind, namespace: cluster.namespace().to_owned(), name }]);
    }
    if !args.all && args.selector.is_none() {
        return Err(Failure::Usage(format!(
            "say which {}: names, -l SELECTOR, or --all for every one",
            one.kind.plural
        )));
    }
    let namespace = (!args.all_namespaces).then(|| cluster.namespace());
    let query = Query::new().with_some("labelSelector", args.selector.as_ref());
    let list = cluster.get(&query.on(&path::collection(&one.kind, namespace))).await?;
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |object: &Value| Doomed {
        kind: one.kind.clone(),
        namespace: api::object::namespace(object).to_owned(),
        name: api::object::name(object).to_owned(),
    };
    Ok(items.iter().map(of).collect())
}

fn options(args: &Args) -> Value {
    let policy = match args.cascade {
        Cascade::Background => "Background",
        Cascade::Foreground => "Foreground",
        Cascade::Orphan => "Orphan",
    };
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
    let grace = if args.force && args.grace_period < 0 { 0 } else { args.grace_period };
    if grace >= 0 {
        options["gracePeriodSeconds"] = json!(grace);
    }
    options
}

/// Asks for the deletion; the object's uid, as far as the server tells it.
async fn delete(cluster: &Cluster, args: &Args, one: &Doomed) -> Result<String, RequestError> {
    let path = path::object(&one.kind, &one.namespace, &one.name);
    let answer = cluster.delete(&path, &options(args)).await?;
    let place =
        if one.kind.namespaced { format!(" from {} namespace", one.namespace) } else { String::new() };
    let forced = if args.force { "force deleted" } else { "deleted" };
    say(format!("{} \"{}\" {forced}{place}", one.kind.printed(), one.name));
    let uid = answer["details"]["uid"].as_str().unwrap_or_else(|| api::object::uid(&answer));
    Ok(uid.to_owned())
}

async fn wait_all(cluster: &Cluster, args: &Args, leaving: &[Leaving<'_>]) -> Result<(), Failure> {
    let all = async {
        for one in leaving {
            wait(cluster, one).await?;
        }
        Ok::<(), RequestError>(())
    };
    let Some(timeout) = args.timeout else { return Ok(all.await?) };
    match tokio::time::timeout(timeout, all).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Failure::Timeout(format!(
            "timed out after {}: some objects are still being deleted (finalizers or processes hold them)",
            crate::text::seconds(timeout)
        ))),
    }
}

/// Returns when the object is gone or another one bears its name.
async fn wait(cluster: &Cluster, leaving: &Leaving<'_>) -> Result<(), RequestError> {
    let Leaving { doomed, uid } = leaving;
    let collection = path::collection(&doomed.kind, Some(&doomed.namespace));
    let query = Query::new().with("fieldSelector", format!("metadata.name={}", doomed.name));
    let list = cluster.get(&query.on(&collection)).await?;
    let other = |object: &Value| !uid.is_empty() && api::object::uid(object) != uid;
    if list["items"].as_array().is_none_or(|items| items.iter().all(other)) {
        return Ok(());
    }
    let resource_version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let mut watch = cluster.watch(WatchStart { path: collection, query, resource_version, as_table: false });
    loop {
        let event = watch.next().await?;
        if event.kind == EventKind::Deleted || other(&event.object) {
            return Ok(());
        }
    }
}
