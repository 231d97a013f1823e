//! `amoeba revert`

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{diff, note, say, selection};
use crate::app::App;
use crate::cluster::Cluster;
use crate::cluster::kinds::Kind;
use crate::cluster::path::{self, Query};
use crate::failure::Failure;
use crate::output::name as printed_name;
use crate::past::Moment;

/// Who we are in `managedFields`.
const FIELD_MANAGER: &str = "amoeba-revert";
/// What the server owns; a state of the past can't bring it back.
const SERVER_OWNED: [&str; 7] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
];

/// Bring an object back to a state of its past, also if it was deleted
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  amoeba history deploy/web\n  amoeba revert deploy/web --to 1234\n  \
                        amoeba revert configmap/settings --to 10m --dry-run")]
pub struct Args {
    /// TYPE/NAME
    #[arg(value_name = "TYPE/NAME", required = true, num_args = 1..=2)]
    what: Vec<String>,
    /// The state to go back to: a revision, how long ago, or a time
    #[arg(long, value_name = "5m|REV", required = true)]
    to: Moment,
    /// Ask the server, but change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Writes the old state over the present one.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let cluster = app.cluster().await?;
    for (kind, name) in selection::named(&cluster, "revert", &args.what).await? {
        let verb = revert(&cluster, &args, &kind, &name).await?;
        let dry = if args.dry_run { " (server dry run)" } else { "" };
        say(format!("{}/{name} {verb}{dry}", kind.printed()));
    }
    Ok(())
}

async fn revert(cluster: &Cluster, args: &Args, kind: &Kind, name: &str) -> Result<&'static str, Failure> {
    let query = Query::new().with("fieldManager", FIELD_MANAGER);
    let query = if args.dry_run { query.with("dryRun", "All") } else { query };
    let object = path::object(kind, cluster.namespace(), name);
    let old = cluster.get(&args.to.on(Query::new()).on(&object)).await?;
    let live = diff::state(cluster, kind, name, None).await?;
    let wanted = wanted(old, &live);
    if live.is_null() {
        let collection = path::collection(kind, Some(cluster.namespace()));
        cluster.create(&query.on(&collection), &wanted).await?;
        return Ok("created again");
    }
    if api::object::is_deleting(&live) {
        let printed = printed_name(kind, &live);
        note(format!("{printed} is being deleted since {}", since(&live)));
    }
    // The version makes it a write over exactly what was looked at.
    let after = cluster.replace(&query.on(&object), &wanted).await?;
    let same = api::object::resource_version(&after) == api::object::resource_version(&live);
    Ok(if same && !args.dry_run { "unchanged" } else { "reverted" })
}

fn since(object: &Value) -> String {
    api::object::deletion_timestamp(object).map_or_else(String::new, |time: Timestamp| time.to_string())
}

/// The old state with the identity and the status of the present object.
fn wanted(mut old: Value, live: &Value) -> Value {
    let metadata = api::object::metadata_mut(&mut old);
    for field in SERVER_OWNED {
        metadata.remove(field);
    }
    keep(metadata, live, &["uid", "resourceVersion"]);
    if let Some(object) = old.as_object_mut() {
        object.remove("status");
    }
    old
}

fn keep(metadata: &mut Map<String, Value>, live: &Value, fields: &[&str]) {
    for field in fields {
        if let Some(value) = live["metadata"].get(*field) {
            metadata.insert((*field).to_owned(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_past_comes_back_without_what_the_server_owns() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "resourceVersion": "5", "labels": {"x": "y"},
            "managedFields": [], "generation": 1}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        let live = json!({"metadata": {"name": "a", "uid": "2", "resourceVersion": "9"}});
        assert_eq!(
            wanted(old.clone(), &live),
            json!({"metadata": {"name": "a", "uid": "2", "resourceVersion": "9", "labels": {"x": "y"}},
                "spec": {"replicas": 1}})
        );
        assert_eq!(
            wanted(old, &Value::Null),
            json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"replicas": 1}})
        );
    }
}
