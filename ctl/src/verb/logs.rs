//! `amoeba logs`

use std::pin::pin;
use std::time::Duration;

use futures::stream::SelectAll;
use futures::{Stream, StreamExt as _};
use serde_json::Value;

use super::{note, say_raw, selection};
use crate::app::App;
use crate::cluster::Cluster;
use crate::cluster::kinds::Kind;
use crate::cluster::path::{self, Query};
use crate::cluster::request::RequestError;
use crate::cluster::watch::lines;
use crate::failure::Failure;

/// Show what a container wrote
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  amoeba logs web-1 -f\n  amoeba logs deploy/web --tail=20\n  \
                        amoeba logs -l app=web --prefix\n  amoeba logs web-1 --previous")]
pub struct Args {
    /// A pod, or TYPE/NAME of something that has pods; with -l nothing
    #[arg(value_name = "POD", required_unless_present = "selector")]
    pod: Option<String>,
    /// The container, as second word
    #[arg(value_name = "CONTAINER")]
    container_word: Option<String>,
    /// The container, if the pod has several
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Of all containers of the pod
    #[arg(long, conflicts_with = "container")]
    all_containers: bool,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// The run before the last restart
    #[arg(short, long)]
    previous: bool,
    /// Only this many lines from the end
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// Only what was written in this last time, such as 5m
    #[arg(long, value_name = "TIME", value_parser = crate::text::parse_duration)]
    since: Option<Duration>,
    /// Only this many bytes
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<u64>,
    /// With the time of each line
    #[arg(long)]
    timestamps: bool,
    /// Of all pods with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "pod")]
    selector: Option<String>,
    /// With the pod and container before each line
    #[arg(long)]
    prefix: bool,
}

/// Where lines come from.
#[derive(Clone, Debug)]
struct Source {
    pod: String,
    container: String,
}

/// Prints the lines, of several sources as they come.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let cluster = app.cluster().await?;
    let sources = sources(&cluster, &args).await?;
    let prefix = args.prefix || (args.selector.is_some() && sources.len() > 1);
    if args.follow {
        return follow(&cluster, &args, &sources, prefix).await;
    }
    for source in &sources {
        let mut lines = pin!(open(&cluster, &args, source).await?);
        while let Some(line) = lines.next().await {
            print(source, &line?, prefix);
        }
    }
    Ok(())
}

async fn follow(cluster: &Cluster, args: &Args, sources: &[Source], prefix: bool) -> Result<(), Failure> {
    let mut all = SelectAll::new();
    for source in sources {
        let lines = open(cluster, args, source).await?;
        all.push(Box::pin(lines.map(move |line| (source, line))));
    }
    while let Some((source, line)) = all.next().await {
        print(source, &line?, prefix);
    }
    Ok(())
}

fn print(source: &Source, line: &[u8], prefix: bool) {
    let text = String::from_utf8_lossy(line);
    match prefix {
        true => say_raw(&format!("[pod/{}/{}] {text}\n", source.pod, source.container)),
        false => say_raw(&format!("{text}\n")),
    }
}

async fn open(
    cluster: &Cluster,
    args: &Args,
    source: &Source,
) -> Result<impl Stream<Item = Result<bytes::Bytes, RequestError>> + use<>, RequestError> {
    let flag = |on: bool| if on { "true" } else { "" };
    // Whole seconds, upwards: "the last 500 ms" must not become "everything".
    let since = args.since.map(|since| since.as_secs_f64().ceil().max(1.0).to_string());
    let query = Query::new()
        .with("container", &source.container)
        .with("follow", flag(args.follow))
        .with("previous", flag(args.previous))
        .with("timestamps", flag(args.timestamps))
        .with_some("tailLines", args.tail.map(|lines| lines.to_string()))
        .with_some("limitBytes", args.limit_bytes.map(|bytes| bytes.to_string()))
        .with_some("sinceSeconds", since);
    let kinds = cluster.kinds().await?;
    let pods = pod_kind(kinds.resolve_one("pods").ok());
    let path = format!("{}/log", path::object(&pods, cluster.namespace(), &source.pod));
    let body = cluster.open_text(&query.on(&path)).await?;
    Ok(lines(body, cluster.address().to_owned()).fuse())
}

/// Every API server has pods; one whose discovery is broken still answers at their usual place.
fn pod_kind(found: Option<&Kind>) -> Kind {
    found.cloned().unwrap_or_else(|| Kind {
        version: "v1".into(),
        plural: "pods".into(),
        namespaced: true,
        ..Kind::default()
    })
}

async fn sources(cluster: &Cluster, args: &Args) -> Result<Vec<Source>, Failure> {
    if let Some(selector) = &args.selector {
        let pods = pods(cluster, selector).await?;
        if pods.is_empty() {
            note(format!("No resources found in {} namespace.", cluster.namespace()));
        }
        return collect(&pods, args);
    }
    let word = args.pod.clone().unwrap_or_default();
    let wanted = if word.contains('/') { word } else { format!("pod/{word}") };
    let mut named = selection::named(cluster, "show the logs of", &[wanted]).await?;
    let Some((kind, name)) = named.pop() else { return Ok(Vec::new()) };
    let object = cluster.get(&path::object(&kind, cluster.namespace(), &name)).await?;
    match kind.kind.as_str() {
        "Pod" => collect(&[object], args),
        _ => collect(&[pod_of(cluster, &kind, &object).await?], args),
    }
}

/// One pod of a workload: the one that runs longest, as it has most to tell.
async fn pod_of(cluster: &Cluster, kind: &Kind, owner: &Value) -> Result<Value, Failure> {
    let selector = label_selector(&owner["spec"]["selector"])
        .ok_or_else(|| Failure::Usage(format!("a {} has no pods to show the logs of", kind.singular)))?;
    let mut found = pods(cluster, &selector).await?;
    found.sort_by_key(|pod| (pod["status"]["phase"] != "Running", started(pod)));
    let (count, mut found) = (found.len(), found.into_iter());
    let Some(first) = found.next() else {
        return Err(Failure::Usage(format!(
            "{}/{} has no pods yet",
            kind.printed(),
            api::object::name(owner)
        )));
    };
    if count > 1 {
        note(format!("Found {count} pods, using pod/{}", api::object::name(&first)));
    }
    Ok(first)
}

fn started(pod: &Value) -> String {
    pod["status"]["startTime"].as_str().unwrap_or("~").to_owned()
}

async fn pods(cluster: &Cluster, selector: &str) -> Result<Vec<Value>, Failure> {
    let kinds = cluster.kinds().await?;
    let collection = path::collection(&pod_kind(kinds.resolve_one("pods").ok()), Some(cluster.namespace()));
    let list = cluster.get(&Query::new().with("labelSelector", selector).on(&collection)).await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// A `LabelSelector`, or a plain map of labels as Services have it, in the form of `-l`.
pub fn label_selector(selector: &Value) -> Option<String> {
    let map = selector.as_object()?;
    let is_plain = !map.contains_key("matchLabels") && !map.contains_key("matchExpressions");
    let labels = if is_plain { Some(map) } else { selector["matchLabels"].as_object() };
    let equal = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten().map(expression);
    Some(equal.chain(expressions).collect::<Vec<_>>().join(","))
}

fn expression(expression: &Value) -> String {
    let key = expression["key"].as_str().unwrap_or_default();
    let values = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let values = values.collect::<Vec<_>>().join(",");
    match expression["operator"].as_str() {
        Some("In") => format!("{key} in ({values})"),
        Some("NotIn") => format!("{key} notin ({values})"),
        Some("DoesNotExist") => format!("!{key}"),
        _ => key.to_owned(),
    }
}

fn collect(pods: &[Value], args: &Args) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for pod in pods {
        let containers = containers(pod, args)?;
        let source = |container| Source { pod: api::object::name(pod).to_owned(), container };
        sources.extend(containers.into_iter().map(source));
    }
    Ok(sources)
}

/// Which containers of a pod are meant: the named one, all, the annotated default, or the first.
fn containers(pod: &Value, args: &Args) -> Result<Vec<String>, Failure> {
    let names = |field: &str| {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    let known: Vec<String> = stream_order(&init, &main);
    if let Some(name) = args.container.as_ref().or(args.container_word.as_ref()) {
        return match known.contains(name) {
            true => Ok(vec![name.clone()]),
            false => Err(Failure::Usage(format!(
                "pod \"{}\" has no container \"{name}\": it has {}",
                api::object::name(pod),
                crate::text::and(&known)
            ))),
        };
    }
    if args.all_containers {
        return Ok(known);
    }
    let chosen = api::object::annotation(pod, "kubectl.kubernetes.io/default-container").map(str::to_owned);
    let chosen = chosen.filter(|name| known.contains(name));
    if chosen.is_none() && main.len() > 1 && args.selector.is_none() {
        note(format!("Defaulted container \"{}\" out of: {}", main[0], known.join(", ")));
    }
    Ok(chosen.or_else(|| main.first().cloned()).into_iter().collect())
}

fn stream_order(init: &[String], main: &[String]) -> Vec<String> {
    init.iter().chain(main).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_of_workloads_and_services() {
        let table = [
            (json!({"matchLabels": {"a": "b", "c": "d"}}), Some("a=b,c=d")),
            (json!({"a": "b"}), Some("a=b")),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "y"]},
                                         {"key": "b", "operator": "DoesNotExist"}]}),
                Some("a in (x,y),!b"),
            ),
            (Value::Null, None),
        ];
        for (selector, expected) in table {
            assert_eq!(label_selector(&selector).as_deref(), expected, "{selector}");
        }
    }

    fn chosen(line: &[&str], pod: &Value) -> Result<Vec<String>, String> {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let line = Line::parse_from(std::iter::once(&"logs").chain(line));
        containers(pod, &line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_container_is_the_named_the_default_or_the_first() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(chosen(&["p"], &pod), Ok(vec!["a".into()]));
        assert_eq!(chosen(&["p", "-c", "i"], &pod), Ok(vec!["i".into()]));
        assert_eq!(chosen(&["p", "b"], &pod), Ok(vec!["b".into()]));
        assert_eq!(chosen(&["p", "--all-containers"], &pod), Ok(vec!["i".into(), "a".into(), "b".into()]));
        let error = chosen(&["p", "-c", "z"], &pod).expect_err("no such container");
        assert_eq!(error, "pod \"p\" has no container \"z\": it has i, a and b");
        pod["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "b"});
        assert_eq!(chosen(&["p"], &pod), Ok(vec!["b".into()]));
    }
}
