//! `amoeba events`

use jiff::Timestamp;
use serde_json::Value;

use super::{note, say};
use crate::app::App;
use crate::cluster::Cluster;
use crate::cluster::path::{self, Query};
use crate::cluster::watch::{EventKind, WatchStart};
use crate::failure::Failure;
use crate::print::table::{Grid, Layout, Printer};

/// Show what happened
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  amoeba events --for deploy/web\n  amoeba events -A -w --types=Warning")]
pub struct Args {
    /// Then follow what happens
    #[arg(short, long)]
    watch: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only about this object, as TYPE/NAME
    #[arg(long = "for", value_name = "TYPE/NAME")]
    about: Option<String>,
    /// Only of these types: Normal, Warning
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    types: Vec<String>,
    /// Without the line of column names
    #[arg(long)]
    no_headers: bool,
}

/// Lists events, the oldest first, and follows if asked.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let cluster = app.cluster().await?;
    let kind =
        cluster.kinds().await?.resolve_one("events").map_err(|e| Failure::Usage(e.to_string()))?.clone();
    let namespace = (!args.all_namespaces).then(|| cluster.namespace());
    let query = Query::new().with_some("fieldSelector", selector(&cluster, &args).await?);
    let collection = path::collection(&kind, namespace);
    let list = cluster.get(&query.on(&collection)).await?;
    let layout = Layout { no_headers: args.no_headers, ..Layout::default() };
    let mut printer = Printer::default();
    let events = sorted(list["items"].as_array().cloned().unwrap_or_default());
    let shown: Vec<&Value> = events.iter().filter(|event| is_wanted(&args, event)).collect();
    if shown.is_empty() && !args.watch {
        let place = namespace.map_or(String::new(), |namespace| format!(" in {namespace} namespace"));
        note(format!("No events found{place}."));
        return Ok(());
    }
    print(&mut printer, &layout, &args, &shown);
    if !args.watch {
        return Ok(());
    }
    let resource_version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let mut watch = cluster.watch(WatchStart { path: collection, query, resource_version, as_table: false });
    loop {
        let change = watch.next().await?;
        if change.kind != EventKind::Deleted && is_wanted(&args, &change.object) {
            print(&mut printer, &layout, &args, &[&change.object]);
        }
    }
}

async fn selector(cluster: &Cluster, args: &Args) -> Result<Option<String>, Failure> {
    let Some(about) = &args.about else { return Ok(None) };
    let mut named =
        super::selection::named(cluster, "show the events of", std::slice::from_ref(about)).await?;
    Ok(named.pop().map(|(kind, name)| about_object(&kind.kind, &name)))
}

/// The field selector for events about one object.
pub fn about_object(kind: &str, name: &str) -> String {
    format!("involvedObject.kind={kind},involvedObject.name={name}")
}

fn is_wanted(args: &Args, event: &Value) -> bool {
    let kind = event["type"].as_str().unwrap_or_default();
    args.types.is_empty() || args.types.iter().any(|wanted| wanted.eq_ignore_ascii_case(kind))
}

/// Oldest first by when they were last seen; times are whole seconds, so the order of writing decides ties.
pub fn sorted(mut events: Vec<Value>) -> Vec<Value> {
    let version = |event: &Value| api::object::resource_version(event).parse::<u64>().unwrap_or(0);
    events.sort_by_cached_key(|event| (last_seen(event), version(event)));
    events
}

/// When an event was last seen: the newest time it carries, by either API's fields.
pub fn last_seen(event: &Value) -> Option<Timestamp> {
    let fields = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["firstTimestamp"],
        &event["metadata"]["creationTimestamp"],
    ];
    fields.into_iter().find_map(|field| field.as_str()?.parse().ok())
}

fn print(printer: &mut Printer, layout: &Layout, args: &Args, events: &[&Value]) {
    let names = ["NAMESPACE", "LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
    let skip = usize::from(!args.all_namespaces);
    let now = Timestamp::now();
    let grid = Grid {
        header: names[skip..].iter().map(|&name| name.to_owned()).collect(),
        rows: events.iter().map(|event| row(event, now)[skip..].to_vec()).collect(),
    };
    printer.lines(&grid, layout).iter().for_each(say);
}

fn row(event: &Value, now: Timestamp) -> [String; 6] {
    let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
    let object = &event["involvedObject"];
    [
        text(&event["metadata"]["namespace"]),
        seen(event, now),
        text(&event["type"]),
        text(&event["reason"]),
        format!("{}/{}", text(&object["kind"]), text(&object["name"])),
        text(&event["message"]),
    ]
}

/// `5s`, or `5s (x3 over 2m)` for one that came again.
pub fn seen(event: &Value, now: Timestamp) -> String {
    let age = |time: Timestamp| api::time::age(time, now);
    let last = last_seen(event).map_or_else(|| "<unknown>".to_owned(), age);
    let count = event["series"]["count"].as_i64().or(event["count"].as_i64()).unwrap_or(1);
    let first = ["firstTimestamp", "eventTime"].iter().find_map(|name| event[*name].as_str()?.parse().ok());
    match first {
        Some(first) if count > 1 => format!("{last} (x{count} over {})", age(first)),
        _ => last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_are_sorted_by_when_they_were_last_seen() {
        let event = |name: &str, field: &str, time: &str| json!({"metadata": {"name": name}, field: time});
        let events = sorted(vec![
            event("c", "lastTimestamp", "2026-01-01T00:00:03Z"),
            event("a", "eventTime", "2026-01-01T00:00:01.000000Z"),
            event("b", "firstTimestamp", "2026-01-01T00:00:02Z"),
        ]);
        let names: Vec<&str> = events.iter().map(api::object::name).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn repeated_events_say_how_often() {
        let now: Timestamp = "2026-01-01T00:02:00Z".parse().expect("a time");
        let mut event =
            json!({"firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:01:55Z"});
        assert_eq!(seen(&event, now), "5s");
        event["count"] = json!(3);
        assert_eq!(seen(&event, now), "5s (x3 over 2m)");
    }
}
