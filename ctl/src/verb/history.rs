//! `amoeba history`

use jiff::Timestamp;
use serde_json::Value;

use super::{say, say_raw, selection};
use crate::app::App;
use crate::cluster::path::{self, Query};
use crate::failure::Failure;
use crate::output::Format;
use crate::print::table::simple;

/// A value longer than this is cut in the table.
const LONGEST: usize = 60;

/// Show who changed which field of an object, and when
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  amoeba history deploy/web\n  amoeba history configmap/settings --limit 3 -o yaml"
)]
pub struct Args {
    /// TYPE/NAME; the object may be deleted already
    #[arg(value_name = "TYPE/NAME", required = true, num_args = 1..=2)]
    what: Vec<String>,
    /// At most so many changes, the newest
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    /// yaml or json instead of a table
    #[arg(short, long, value_name = "FORM")]
    output: Option<Format>,
    /// Without the line of column names
    #[arg(long)]
    no_headers: bool,
}

/// Shows the changes, the newest first.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let cluster = app.cluster().await?;
    let named = selection::named(&cluster, "show the history of", &args.what).await?;
    for (kind, name) in named {
        let query = Query::new().with("history", "true").with("limit", args.limit.to_string());
        let answer = cluster.get(&query.on(&path::object(&kind, cluster.namespace(), &name))).await?;
        if answer["kind"] != "ObjectHistory" {
            let why = "this API server keeps no history of objects: only Amoeba's does";
            return Err(Failure::Usage(why.to_owned()));
        }
        match &args.output {
            Some(form) => say_raw(&form.object(&kind, &answer).map_err(Failure::Usage)?),
            None => lines(&answer, kind.kind == "Secret", Timestamp::now())
                .iter()
                .skip(usize::from(args.no_headers))
                .for_each(say),
        }
    }
    Ok(())
}

/// A row for each changed field; the first of a revision says who and when.
fn lines(history: &Value, secret: bool, now: Timestamp) -> Vec<String> {
    let items = history["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut rows: Vec<Vec<String>> = items.iter().flat_map(|item| rows_of(item, secret, now)).collect();
    if history["complete"] == false {
        rows.push(
            ["…", "", "", "", "", "older changes are not kept, or not asked for (--limit)"]
                .map(String::from)
                .to_vec(),
        );
    }
    simple(&["REVISION", "AGE", "USER", "AGENT", "CAUSE", "CHANGE"], rows)
}

fn rows_of(item: &Value, secret: bool, now: Timestamp) -> Vec<Vec<String>> {
    let text = |field: &str| match item[field].as_str() {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => "-".to_owned(),
    };
    let age = match text("time").parse() {
        Ok(time) => api::time::age(time, now),
        Err(_) => "-".to_owned(),
    };
    let first = vec![text("revision"), age, text("user"), text("agent"), text("cause")];
    let rest = vec![String::new(); first.len()];
    let heads = std::iter::once(first).chain(std::iter::repeat(rest));
    let told = told(item, secret);
    heads.zip(told).map(|(head, change)| [head, vec![change]].concat()).collect()
}

fn told(item: &Value, secret: bool) -> Vec<String> {
    let changes = item["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    match item["type"].as_str() {
        Some("Modified") if changes.is_empty() => vec!["(no field that is shown)".to_owned()],
        Some("Modified") => changes.iter().map(|change| told_change(change, secret)).collect(),
        Some("Unknown") => vec!["(what was before is no longer kept)".to_owned()],
        other => vec![other.unwrap_or("-").to_lowercase()],
    }
}

fn told_change(change: &Value, secret: bool) -> String {
    let path = change["path"].as_str().unwrap_or_default();
    let hidden = secret && (path.starts_with("data") || path.starts_with("stringData"));
    let value = |field: &str| match &change[field] {
        Value::Null => "(none)".to_owned(),
        _ if hidden => "***".to_owned(),
        value => shortened(&value.to_string()),
    };
    format!("{path}: {} → {}", value("from"), value("to"))
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    let cut: String = text.chars().take(LONGEST).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_revision_is_named_once_and_secrets_stay_hidden() {
        let history = json!({"complete": false, "items": [
            {"revision": "9", "time": "2026-01-01T00:00:00Z", "user": "jane", "agent": "kubectl/v1", "cause": "7",
             "type": "Modified", "changes": [{"path": "data.k", "from": "a", "to": "b"}, {"path": "x", "to": 1}]},
            {"revision": "8", "time": "2026-01-01T00:00:00Z", "type": "Created", "changes": []}]});
        let now = "2026-01-01T00:05:00Z".parse().expect("a time");
        let shown = |secret| -> Vec<String> {
            let plain = |line: &String| anstream::adapter::strip_str(line).to_string();
            lines(&history, secret, now).iter().map(plain).collect()
        };
        assert_eq!(
            shown(true),
            [
                "REVISION   AGE   USER   AGENT        CAUSE   CHANGE",
                "9          5m    jane   kubectl/v1   7       data.k: *** → ***",
                "                                             x: (none) → 1",
                "8          5m    -      -            -       created",
                "…                                            older changes are not kept, or not asked for (--limit)",
            ]
        );
        assert!(shown(false)[1].ends_with("data.k: \"a\" → \"b\""));
    }
}
