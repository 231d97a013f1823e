//! `amoeba diff`

use api::difference::{FieldChange, changes};
use serde_json::Value;

use super::{say, selection};
use crate::app::App;
use crate::cluster::Cluster;
use crate::cluster::kinds::Kind;
use crate::cluster::path::{self, Query};
use crate::cluster::request::RequestError;
use crate::failure::Failure;
use crate::past::Moment;
use crate::print;

/// Show what differs between an object's past and its present
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  amoeba diff deploy/web --at 5m\n  amoeba diff deploy/web --at 1200 --to 1300\n\n\
                        The exit code is 1 if something differs, as that of kubectl diff."
)]
pub struct Args {
    /// TYPE/NAME
    #[arg(value_name = "TYPE/NAME", required = true, num_args = 1..=2)]
    what: Vec<String>,
    /// The state to start from: a revision, how long ago, or a time
    #[arg(long, value_name = "5m|REV", required = true)]
    at: Moment,
    /// The state to compare it with, instead of the present one
    #[arg(long, value_name = "5m|REV")]
    to: Option<Moment>,
}

/// Shows every field that differs.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let cluster = app.cluster().await?;
    let mut differing = 0;
    for (kind, name) in selection::named(&cluster, "compare", &args.what).await? {
        let from = state(&cluster, &kind, &name, Some(&args.at)).await?;
        let to = state(&cluster, &kind, &name, args.to.as_ref()).await?;
        if from.is_null() && to.is_null() {
            return Err(Failure::Usage(format!("{}/{name} existed at neither moment", kind.printed())));
        }
        let found = changes(&from, &to);
        differing += usize::from(!found.is_empty());
        found.iter().flat_map(lines).for_each(say);
    }
    match differing {
        0 => Ok(()),
        _ => Err(Failure::Differs),
    }
}

/// The object at a moment; null if there was none.
pub async fn state(
    cluster: &Cluster,
    kind: &Kind,
    name: &str,
    at: Option<&Moment>,
) -> Result<Value, RequestError> {
    let query = at.map_or(Query::new(), |at| at.on(Query::new()));
    match cluster.get(&query.on(&path::object(kind, cluster.namespace(), name))).await {
        Err(error) if error.is(404) => Ok(Value::Null),
        other => other,
    }
}

fn lines(change: &FieldChange) -> Vec<String> {
    let whole = if change.path.is_empty() { "(the object)" } else { &change.path };
    let line = |sign: &str, style, value: &Option<Value>| {
        value.as_ref().map(|value| print::styled(style, format!("{sign} {whole}: {value}")))
    };
    [line("-", print::BAD, &change.from), line("+", print::GOOD, &change.to)].into_iter().flatten().collect()
}
