//! `amoeba rollout status|history|undo|restart|pause|resume` of Deployments, StatefulSets and DaemonSets

mod progress;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::logs::label_selector;
use super::{say, selection};
use crate::app::App;
use crate::cluster::Cluster;
use crate::cluster::kinds::Kind;
use crate::cluster::path::{self, Query};
use crate::cluster::request::PatchKind;
use crate::cluster::watch::{EventKind, WatchStart};
use crate::failure::Failure;
use progress::{Progress, progress};

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
const FIELD_MANAGER: &str = "kubectl-rollout";

/// Follow, undo, pause or restart a rollout
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Follow a rollout until it is complete
    Status(StatusArgs),
    /// List revisions, or show one
    History(HistoryArgs),
    /// Go back to an earlier revision
    Undo(UndoArgs),
    /// Replace all pods, one after the other
    Restart(Which),
    /// Hold back further changes
    Pause(Which),
    /// Let held-back changes go on
    Resume(Which),
}

/// Which workloads.
#[derive(Debug, clap::Args)]
struct Which {
    /// TYPE NAME … or TYPE/NAME …, such as deploy/web
    #[arg(value_name = "WHAT", required = true)]
    what: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    which: Which,
    /// Say how it stands and return
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    watch: bool,
    /// Give up after this long, such as 2m
    #[arg(long, value_name = "TIME", value_parser = crate::text::parse_duration)]
    timeout: Option<Duration>,
}

#[derive(Debug, clap::Args)]
struct HistoryArgs {
    #[command(flatten)]
    which: Which,
    /// Show the pod template of this revision
    #[arg(long, value_name = "NUMBER")]
    revision: Option<i64>,
}

#[derive(Debug, clap::Args)]
struct UndoArgs {
    #[command(flatten)]
    which: Which,
    /// To this revision instead of the one before
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    to_revision: i64,
}

/// One workload and how to reach it.
struct Workload<'a> {
    cluster: &'a Cluster,
    kind: Kind,
    name: String,
}

/// Runs the subcommand on each workload.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let cluster = app.cluster().await?;
    for one in workloads(&cluster, args.command.which()).await? {
        match &args.command {
            Command::Status(args) => one.status(args).await?,
            Command::History(args) => one.history(args.revision).await?,
            Command::Undo(args) => one.undo(args.to_revision).await?,
            Command::Restart(_) => one.restart().await?,
            Command::Pause(_) => one.pause(true).await?,
            Command::Resume(_) => one.pause(false).await?,
        }
    }
    Ok(())
}

impl Command {
    fn which(&self) -> &Which {
        match self {
            Self::Status(args) => &args.which,
            Self::History(args) => &args.which,
            Self::Undo(args) => &args.which,
            Self::Restart(which) | Self::Pause(which) | Self::Resume(which) => which,
        }
    }
}

async fn workloads<'a>(cluster: &'a Cluster, which: &Which) -> Result<Vec<Workload<'a>>, Failure> {
    let named = selection::named(cluster, "roll out", &which.what).await?;
    let workload = |(kind, name): (Kind, String)| match kind.kind.as_str() {
        "Deployment" | "StatefulSet" | "DaemonSet" => Ok(Workload { cluster, kind, name }),
        _ => Err(Failure::Usage(format!(
            "{} has no rollout: only deployments, statefulsets and daemonsets have one",
            kind.printed()
        ))),
    };
    named.into_iter().map(workload).collect()
}

impl Workload<'_> {
    fn path(&self) -> String {
        path::object(&self.kind, self.cluster.namespace(), &self.name)
    }

    fn say(&self, verb: &str) {
        say(format!("{}/{} {verb}", self.kind.printed(), self.name));
    }

    async fn status(&self, args: &StatusArgs) -> Result<(), Failure> {
        let follow = self.follow(args.watch);
        let Some(timeout) = args.timeout else { return follow.await };
        match tokio::time::timeout(timeout, follow).await {
            Ok(done) => done,
            Err(_) => Err(Failure::Timeout(format!(
                "the rollout of {}/{} is not complete after {}: `amoeba describe {}/{}` says why",
                self.kind.singular,
                self.name,
                crate::text::seconds(timeout),
                self.kind.singular,
                self.name
            ))),
        }
    }

    async fn follow(&self, watch: bool) -> Result<(), Failure> {
        let mut object = self.cluster.get(&self.path()).await?;
        let mut said = String::new();
        let mut changes = self.cluster.watch(WatchStart {
            path: path::collection(&self.kind, Some(self.cluster.namespace())),
            query: Query::new().with("fieldSelector", format!("metadata.name={}", self.name)),
            resource_version: api::object::resource_version(&object).to_owned(),
            as_table: false,
        });
        loop {
            match progress(&self.kind.kind, &object) {
                Progress::Complete(text) => {
                    say(text);
                    return Ok(());
                }
                Progress::Failed(text) => return Err(Failure::NotHeld(text)),
                Progress::Waiting(text) => {
                    if text != said {
                        say(&text);
                    }
                    said = text;
                }
            }
            if !watch {
                return Ok(());
            }
            let event = changes.next().await?;
            if event.kind == EventKind::Deleted {
                return Err(Failure::NotHeld(format!("{}/{} was deleted", self.kind.printed(), self.name)));
            }
            object = event.object;
        }
    }

    /// The objects that keep the workload's earlier templates, oldest revision first.
    async fn revisions(&self, workload: &Value) -> Result<Vec<(i64, Value)>, Failure> {
        let keepers =
            if self.kind.kind == "Deployment" { "replicasets.apps" } else { "controllerrevisions.apps" };
        let kinds = self.cluster.kinds().await?;
        let kind = kinds.resolve_one(keepers).map_err(|error| Failure::Usage(error.to_string()))?;
        let selector = label_selector(&workload["spec"]["selector"]).unwrap_or_default();
        let collection = path::collection(kind, Some(self.cluster.namespace()));
        let list = self.cluster.get(&Query::new().with("labelSelector", selector).on(&collection)).await?;
        let owned = |keeper: &&Value| {
            api::object::controller_of(keeper).is_some_and(|owner| owner.uid == api::object::uid(workload))
        };
        let keepers = list["items"].as_array().into_iter().flatten().filter(owned);
        let mut revisions: Vec<(i64, Value)> =
            keepers.map(|keeper| (revision(keeper), keeper.clone())).collect();
        revisions.sort_by_key(|(revision, _)| *revision);
        Ok(revisions)
    }

    async fn history(&self, revision: Option<i64>) -> Result<(), Failure> {
        let deployment = self.cluster.get(&self.path()).await?;
        let revisions = self.revisions(&deployment).await?;
        let Some(wanted) = revision else {
            self.say("");
            list(&revisions).iter().for_each(say);
            return Ok(());
        };
        let (_, keeper) = self.find(&revisions, wanted)?;
        self.say(&format!("with revision #{wanted}"));
        say(format!("Pod Template:\n{}", indented(&api::yaml::to_yaml(&kept_template(keeper)))));
        Ok(())
    }

    fn find<'r>(&self, revisions: &'r [(i64, Value)], wanted: i64) -> Result<&'r (i64, Value), Failure> {
        revisions.iter().find(|(revision, _)| *revision == wanted).ok_or_else(|| {
            Failure::Usage(format!("unable to find specified revision {wanted} in history of {}", self.name))
        })
    }

    async fn undo(&self, to: i64) -> Result<(), Failure> {
        let deployment = self.cluster.get(&self.path()).await?;
        if deployment["spec"]["paused"] == json!(true) {
            return Err(Failure::Usage(format!(
                "{}/{} is paused: `amoeba rollout resume {}/{}` first",
                self.kind.printed(),
                self.name,
                self.kind.singular,
                self.name
            )));
        }
        let revisions = self.revisions(&deployment).await?;
        let wanted = match (to, &revisions[..]) {
            (0, [.., before, _]) => before,
            (0, _) => return Err(Failure::Usage(format!("no rollout history found for {}", self.name))),
            (to, _) => self.find(&revisions, to)?,
        };
        let template = template_of(&wanted.1);
        if template == template_of_deployment(&deployment) {
            self.say(&format!("skipped rollback (current template already matches revision {})", wanted.0));
            return Ok(());
        }
        let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
        self.change(PatchKind::Json, &patch).await?;
        self.say("rolled back");
        Ok(())
    }

    async fn restart(&self) -> Result<(), Failure> {
        let deployment = self.cluster.get(&self.path()).await?;
        if deployment["spec"]["paused"] == json!(true) {
            return Err(Failure::Usage(format!("can't restart paused {}: resume it first", self.name)));
        }
        let now = api::time::rfc3339(Timestamp::now());
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}});
        self.change(PatchKind::Strategic, &patch).await?;
        self.say("restarted");
        Ok(())
    }

    async fn pause(&self, paused: bool) -> Result<(), Failure> {
        if self.kind.kind != "Deployment" {
            let text = format!("{}/{} can't be paused: only deployments can", self.kind.printed(), self.name);
            return Err(Failure::Usage(text));
        }
        let deployment = self.cluster.get(&self.path()).await?;
        if (deployment["spec"]["paused"] == json!(true)) == paused {
            let state = if paused { "already paused" } else { "not paused" };
            return Err(Failure::Usage(format!("{}/{} is {state}", self.kind.printed(), self.name)));
        }
        self.change(
            PatchKind::Merge,
            &json!({"spec": {"paused": if paused { json!(true) } else { Value::Null }}}),
        )
        .await?;
        self.say(if paused { "paused" } else { "resumed" });
        Ok(())
    }

    async fn change(&self, kind: PatchKind, patch: &Value) -> Result<(), Failure> {
        let path = Query::new().with("fieldManager", FIELD_MANAGER).on(&self.path());
        self.cluster.patch(&path, kind, patch).await?;
        Ok(())
    }
}

/// A ReplicaSet has its revision in an annotation, a ControllerRevision in a field.
fn revision(keeper: &Value) -> i64 {
    let annotated = || api::object::annotation(keeper, REVISION).and_then(|text| text.parse().ok());
    keeper["revision"].as_i64().or_else(annotated).unwrap_or(0)
}

fn list(revisions: &[(i64, Value)]) -> Vec<String> {
    let row = |(revision, set): &(i64, Value)| {
        let cause = api::object::annotation(set, CHANGE_CAUSE).unwrap_or("<none>");
        vec![revision.to_string(), cause.to_owned()]
    };
    crate::print::table::simple(&["REVISION", "CHANGE-CAUSE"], revisions.iter().map(row).collect())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect::<String>().trim_end().to_owned()
}

/// The template that a ReplicaSet or a ControllerRevision keeps.
fn kept_template(keeper: &Value) -> Value {
    let kept = if keeper["data"].is_null() { &keeper["spec"] } else { &keeper["data"]["spec"] };
    let mut template = kept["template"].clone();
    if let Some(fields) = template.as_object_mut() {
        fields.remove("$patch");
    }
    template
}

/// The same without the label that the controller added to it.
fn template_of(keeper: &Value) -> Value {
    let mut template = kept_template(keeper);
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    template
}

fn template_of_deployment(deployment: &Value) -> Value {
    deployment["spec"]["template"].clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_to_go_back_to_has_no_hash() {
        let set =
            json!({"spec": {"template": {"metadata": {"labels": {"a": "b", "pod-template-hash": "x"}}}}});
        assert_eq!(template_of(&set), json!({"metadata": {"labels": {"a": "b"}}}));
        let revision =
            json!({"revision": 2, "data": {"spec": {"template": {"$patch": "replace", "spec": {}}}}});
        assert_eq!(template_of(&revision)["spec"], json!({}));
        assert!(template_of(&revision).get("$patch").is_none());
    }

    #[test]
    fn revisions_are_listed_with_their_causes() {
        let set = |cause: Option<&str>| match cause {
            Some(cause) => json!({"metadata": {"annotations": {CHANGE_CAUSE: cause}}}),
            None => json!({}),
        };
        let lines = list(&[(1, set(None)), (2, set(Some("new image")))]);
        assert_eq!(lines, ["REVISION   CHANGE-CAUSE", "1          <none>", "2          new image"]);
    }
}
