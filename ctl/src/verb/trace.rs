//! `amoeba trace`

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;
use serde_json::{Value, json};

use super::{say, say_raw, selection};
use crate::app::App;
use crate::cluster::Cluster;
use crate::cluster::kinds::Kind;
use crate::cluster::path::{self, Query};
use crate::cluster::request::RequestError;
use crate::cluster::watch::{Event, WatchStart};
use crate::failure::Failure;
use crate::output::Format;
use crate::print::table::simple;
use crate::trace::{HEADER, Line, Write, tree};

/// The kinds that own or are owned in the stories people ask about.
const KINDS: [&str; 11] = [
    "deployments.apps",
    "replicasets.apps",
    "statefulsets.apps",
    "daemonsets.apps",
    "replicationcontrollers",
    "jobs.batch",
    "cronjobs.batch",
    "pods",
    "services",
    "endpointslices.discovery.k8s.io",
    "persistentvolumeclaims",
];

/// Show what a change led to: who wrote what because of it, when, and after how long
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  amoeba trace deploy/web\n  amoeba trace pod/web-1 --all\n  amoeba trace deploy/web -f"
)]
pub struct Args {
    /// TYPE/NAME
    #[arg(value_name = "TYPE/NAME", required = true, num_args = 1..=2)]
    what: Vec<String>,
    /// Go on as it happens
    #[arg(short, long)]
    follow: bool,
    /// Also status writes that are no step of their own
    #[arg(long)]
    all: bool,
    /// At most so many writes of each object, the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
    /// json or yaml instead of a table
    #[arg(short, long, value_name = "FORM", conflicts_with = "follow")]
    output: Option<Format>,
}

/// Shows the tree of each object.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let cluster = app.cluster().await?;
    for (kind, name) in selection::named(&cluster, "trace", &args.what).await? {
        let mut root = cluster.get(&path::object(&kind, cluster.namespace(), &name)).await?;
        api::object::set_type(&mut root, &kind.api_version(), &kind.kind);
        let mut story =
            Story { cluster: &cluster, args: &args, family: BTreeMap::new(), writes: BTreeMap::new() };
        let starts = story.begin(&kind, root).await?;
        story.print(&kind)?;
        if args.follow {
            story.follow(starts).await?;
        }
    }
    Ok(())
}

/// The objects that belong together and what was written about them.
struct Story<'a> {
    cluster: &'a Cluster,
    args: &'a Args,
    /// Printed names by uid.
    family: BTreeMap<String, String>,
    writes: BTreeMap<u64, Write>,
}

impl Story<'_> {
    /// Finds what `root` owns, directly or not, and reads their histories. Returns where watches go on.
    async fn begin(&mut self, kind: &Kind, root: Value) -> Result<Vec<(Kind, String)>, Failure> {
        self.learn(kind, &root).await?;
        let mut others = Vec::new();
        let mut starts = Vec::new();
        for kind in self.kinds(kind).await? {
            let collection = path::collection(&kind, Some(self.cluster.namespace()));
            let mut list = self.cluster.get(&collection).await?;
            let items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
            others.extend(items.into_iter().map(|item| (kind.clone(), item)));
            starts.push((kind, api::object::resource_version(&list).to_owned()));
        }
        loop {
            let (found, rest): (Vec<_>, Vec<_>) =
                others.into_iter().partition(|(_, object)| self.is_owned(object));
            if found.is_empty() {
                return Ok(starts);
            }
            for (kind, object) in &found {
                self.name(kind, object);
            }
            let histories = join_all(found.iter().map(|(kind, object)| self.history(kind, object))).await;
            for ((kind, object), history) in found.iter().zip(histories) {
                self.note(kind, object, &history?);
            }
            others = rest;
        }
    }

    async fn kinds(&self, root: &Kind) -> Result<Vec<Kind>, RequestError> {
        let kinds = self.cluster.kinds().await?;
        let known = KINDS.iter().filter_map(|word| kinds.resolve_one(word).ok());
        let others = known.filter(|kind| *kind != root).cloned();
        Ok(std::iter::once(root.clone()).chain(others).collect())
    }

    fn is_owned(&self, object: &Value) -> bool {
        let owners = api::object::owner_references(object);
        !self.family.contains_key(api::object::uid(object))
            && owners.iter().any(|owner| self.family.contains_key(&owner.uid))
    }

    async fn learn(&mut self, kind: &Kind, object: &Value) -> Result<(), Failure> {
        self.name(kind, object);
        let history = self.history(kind, object).await?;
        self.note(kind, object, &history);
        Ok(())
    }

    fn name(&mut self, kind: &Kind, object: &Value) {
        let name = format!("{}/{}", kind.singular, api::object::name(object));
        self.family.insert(api::object::uid(object).to_owned(), name);
    }

    async fn history(&self, kind: &Kind, object: &Value) -> Result<Value, Failure> {
        let query = Query::new().with("history", "true").with("limit", self.args.limit.to_string());
        let path = path::object(kind, self.cluster.namespace(), api::object::name(object));
        let answer = self.cluster.get(&query.on(&path)).await?;
        if answer["kind"] != "ObjectHistory" {
            let why = "this API server keeps no journal, so there is nothing to trace: only Amoeba's does";
            return Err(Failure::Usage(why.to_owned()));
        }
        Ok(answer)
    }

    fn note(&mut self, kind: &Kind, object: &Value, history: &Value) {
        let owner = api::object::controller_of(object).and_then(|owner| self.family.get(&owner.uid).cloned());
        let name = format!("{}/{}", kind.singular, api::object::name(object));
        let items = history["items"].as_array().into_iter().flatten();
        let writes = items.filter_map(|item| Write::of(item, &name, owner.clone()));
        self.writes.extend(writes.map(|write| (write.revision, write)));
    }

    fn print(&self, kind: &Kind) -> Result<(), Failure> {
        let writes: Vec<Write> = self.writes.values().cloned().collect();
        let lines = tree(&writes, self.args.all);
        match &self.args.output {
            Some(form) => {
                let steps: Vec<Value> = lines.iter().map(Line::json).collect();
                say_raw(
                    &form.object(kind, &json!({"kind": "Trace", "steps": steps})).map_err(Failure::Usage)?,
                );
            }
            None => simple(&HEADER, lines.iter().map(Line::cells).collect()).iter().for_each(say),
        }
        Ok(())
    }

    /// Prints what is written from here on, each line below no other but as deep as its cause says.
    async fn follow(&mut self, starts: Vec<(Kind, String)>) -> Result<(), Failure> {
        let mut told: BTreeSet<u64> = self.writes.keys().copied().collect();
        let cluster = self.cluster;
        let watches = starts.into_iter().map(|(kind, version)| watch(cluster, kind, version));
        let mut events = stream::select_all(watches);
        while let Some((kind, event)) = events.next().await {
            let object = event?.object;
            let known = self.family.contains_key(api::object::uid(&object));
            if !known && !self.is_owned(&object) {
                continue;
            }
            self.learn(&kind, &object).await?;
            let writes: Vec<Write> = self.writes.values().cloned().collect();
            let lines = tree(&writes, self.args.all);
            let new = lines.iter().filter(|line| told.insert(line.write.revision));
            new.for_each(|line| say(line.cells().join("  ")));
        }
        Ok(())
    }
}

type Changes<'a> = futures::stream::LocalBoxStream<'a, (Kind, Result<Event, RequestError>)>;

fn watch(cluster: &Cluster, kind: Kind, resource_version: String) -> Changes<'_> {
    let path = path::collection(&kind, Some(cluster.namespace()));
    let start = WatchStart { path, query: Query::new(), resource_version, as_table: false };
    let first = (cluster.watch(start), kind);
    let changes = stream::unfold(first, |(mut watch, kind)| async move {
        let event = watch.next().await;
        Some(((kind.clone(), event), (watch, kind)))
    });
    changes.boxed_local()
}
