//! `amoeba scale`

use serde_json::json;

use super::{say, selection};
use crate::app::App;
use crate::cluster::Cluster;
use crate::cluster::kinds::Kind;
use crate::cluster::path;
use crate::cluster::request::PatchKind;
use crate::failure::Failure;

/// Change the number of replicas
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  amoeba scale deploy/web --replicas=3")]
pub struct Args {
    /// TYPE NAME … or TYPE/NAME …
    #[arg(value_name = "WHAT", required = true)]
    what: Vec<String>,
    /// How many there shall be
    #[arg(long, value_name = "NUMBER")]
    replicas: u32,
    /// Only if there are meant to be this many now
    #[arg(long, value_name = "NUMBER")]
    current_replicas: Option<u32>,
}

/// Sets `spec.replicas` through the scale subresource.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let cluster = app.cluster().await?;
    for (kind, name) in selection::named(&cluster, "scale", &args.what).await? {
        if !kind.subresources.iter().any(|sub| sub == "scale") {
            return Err(Failure::Usage(format!("{} can't be scaled", kind.plural)));
        }
        scale(&cluster, &args, &kind, &name).await?;
        say(format!("{}/{name} scaled", kind.printed()));
    }
    Ok(())
}

async fn scale(cluster: &Cluster, args: &Args, kind: &Kind, name: &str) -> Result<(), Failure> {
    let path = format!("{}/scale", path::object(kind, cluster.namespace(), name));
    let mut patch = json!({"spec": {"replicas": args.replicas}});
    if let Some(expected) = args.current_replicas {
        let now = cluster.get(&path).await?;
        let current = now["spec"]["replicas"].as_u64().unwrap_or(0);
        if current != u64::from(expected) {
            return Err(Failure::Usage(format!(
                "{}/{name} has {current} replicas, not {expected}: nothing changed",
                kind.printed()
            )));
        }
        // What was compared must still be true when it is written.
        patch["metadata"] = json!({"resourceVersion": now["metadata"]["resourceVersion"]});
    }
    cluster.patch(&path, PatchKind::Merge, &patch).await?;
    Ok(())
}
