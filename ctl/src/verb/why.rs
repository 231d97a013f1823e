//! `amoeba why`

use std::path::PathBuf;

use futures::future::join_all;
use jiff::Timestamp;
use serde_json::Value;

use super::{note, say_raw, selection};
use crate::app::App;
use crate::cluster::Cluster;
use crate::cluster::kinds::Kind;
use crate::cluster::path::{self, Query};
use crate::cluster::request::RequestError;
use crate::failure::Failure;
use crate::member::MemberError;
use crate::output::Format;
use crate::past::Moment;
use crate::scheduler_configuration;
use crate::why::{self, Decision, NEEDED, Question, View};

/// Entries of a pod's history that are searched for the scheduler's decision.
const SEARCHED: &str = "100";

/// Say why an object is as it is, and what would help
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  amoeba why pod/web-1\n  amoeba why deploy/web\n  amoeba why pvc/data -o json\n\n\
                        Pods, Deployments and other workloads, Jobs, claims, Services, and whatever is being \
                        deleted. Where a pod fits\nis decided here by the scheduler's own rules; with an Amoeba \
                        API server, its last decision is judged again on\nthe cluster as it was then."
)]
pub struct Args {
    /// TYPE/NAME
    #[arg(value_name = "TYPE/NAME", required = true, num_args = 1..=2)]
    what: Vec<String>,
    /// The scheduler's KubeSchedulerConfiguration: nodes are judged by the pod's profile
    #[arg(long, value_name = "FILE")]
    scheduler_config: Option<PathBuf>,
    /// json or yaml instead of text
    #[arg(short, long, value_name = "FORM")]
    output: Option<Format>,
}

/// Answers for each object, an empty line between them.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let cluster = app.cluster().await?;
    let named = selection::named(&cluster, "explain", &args.what).await?;
    let file = args.scheduler_config.as_deref().map(scheduler_configuration::read).transpose();
    let profiles = file.map_err(MemberError::from)?.map(|file| file.profiles);
    for (number, (kind, name)) in named.iter().enumerate() {
        let mut object = cluster.get(&path::object(kind, cluster.namespace(), name)).await?;
        api::object::set_type(&mut object, &kind.api_version(), &kind.kind);
        let mut view = view(&cluster, why::needs_all_kinds(&object), None).await?;
        view.profiles.clone_from(&profiles);
        view.unseen.iter().for_each(|reason| note(format!("not seen: {reason}")));
        let mut decision = decision(&cluster, kind, &object).await;
        if let Some(decision) = &mut decision {
            decision.view.profiles.clone_from(&profiles);
        }
        let question =
            Question { object: &object, view: &view, decision: decision.as_ref(), now: Timestamp::now() };
        let answer = why::why(question);
        let separator = if number == 0 { "" } else { "\n" };
        match &args.output {
            Some(form) => say_raw(&form.object(kind, &answer.json()).map_err(Failure::Usage)?),
            None => say_raw(&format!("{separator}{}", answer.text())),
        }
    }
    Ok(())
}

/// What the cluster holds, now or at a moment.
async fn view(cluster: &Cluster, all_kinds: bool, at: Option<&Moment>) -> Result<View, RequestError> {
    let kinds = cluster.kinds().await?;
    let known =
        NEEDED.iter().filter_map(|(word, everywhere)| Some((kinds.resolve_one(word).ok()?, *everywhere)));
    let mut wanted: Vec<(&Kind, bool)> = known.collect();
    if all_kinds {
        let others =
            kinds.all().filter(|kind| kind.can("list") && !wanted.iter().any(|(one, _)| *one == *kind));
        wanted.extend(others.map(|kind| (kind, false)).collect::<Vec<_>>());
    }
    let lists = wanted.iter().map(|(kind, everywhere)| list(cluster, kind, *everywhere, at));
    let mut view = View::default();
    for ((kind, _), listed) in wanted.iter().zip(join_all(lists).await) {
        match listed {
            Ok(objects) => objects.into_iter().for_each(|object| view.add(object)),
            Err(error) => view.unseen.push(format!("{}: {error}", kind.plural)),
        }
    }
    Ok(view)
}

async fn list(
    cluster: &Cluster,
    kind: &Kind,
    everywhere: bool,
    at: Option<&Moment>,
) -> Result<Vec<Value>, RequestError> {
    let namespace = (!everywhere).then(|| cluster.namespace());
    let query = at.map_or(Query::new(), |at| at.on(Query::new()));
    let mut list = cluster.get(&query.on(&path::collection(kind, namespace))).await?;
    let mut objects = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    objects.iter_mut().for_each(|object| api::object::set_type(object, &kind.api_version(), &kind.kind));
    Ok(objects)
}

/// The last decision about a pod, judged on the cluster of the revision before it. None if the API server keeps
/// no past, or not that far back.
async fn decision(cluster: &Cluster, kind: &Kind, pod: &Value) -> Option<Decision> {
    if kind.kind != "Pod" || !kind.group.is_empty() {
        return None;
    }
    let query = Query::new().with("history", "true").with("limit", SEARCHED);
    let path = path::object(kind, cluster.namespace(), api::object::name(pod));
    let history = cluster.get(&query.on(&path)).await.ok()?;
    let item = history["items"].as_array()?.iter().find(|item| is_decision(item))?;
    let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let revision: u64 = text("revision").parse().ok()?;
    let before = Moment::Revision(revision.checked_sub(1)?);
    let mut then = cluster.get(&before.on(Query::new()).on(&path)).await.ok()?;
    api::object::set_type(&mut then, &kind.api_version(), &kind.kind);
    let view = view(cluster, false, Some(&before)).await.ok()?;
    let by = if text("agent").is_empty() { text("user") } else { text("agent") };
    Some(Decision { revision: revision.to_string(), time: text("time"), by, pod: then, view })
}

/// A write that gave the pod its node, or said that there is none.
fn is_decision(item: &Value) -> bool {
    let changes = item["changes"].as_array().into_iter().flatten();
    let says_unschedulable = |change: &Value| {
        change["path"].as_str().is_some_and(|path| path.starts_with("status.conditions"))
            && change["to"].to_string().contains("Unschedulable")
    };
    changes.into_iter().any(|change| change["path"] == "spec.nodeName" || says_unschedulable(change))
}
