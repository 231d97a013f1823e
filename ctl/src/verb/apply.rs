//! `amoeba apply`
//!
//! Three passes: read every document, plan and dry-run every change, and only then write. A mistake that the
//! server can see is therefore reported before the first write, with file, line and field. Within one
//! document a write is one request: it happens or it doesn't.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::{note, say, say_raw};
use crate::app::App;
use crate::apply::target::{NOTHING, Target, targets};
use crate::apply::{atomic, last_applied, rules, three_way};
use crate::cluster::Cluster;
use crate::cluster::path::Query;
use crate::cluster::request::{PatchKind, RequestError, StatusBody};
use crate::failure::Failure;
use crate::manifest;
use crate::output::{Format, name as printed_name, without_managed_fields};
use crate::print;

/// Who we are in `managedFields`: the same as kubectl, so that either may continue the other's work.
const FIELD_MANAGER: &str = "kubectl-client-side-apply";
/// The name of our user's edits ends conflicts of concurrent writers by trying again this often.
const TRIES: usize = 5;

/// Bring objects to the state of a manifest
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  amoeba apply -f web.yaml\n  amoeba apply -R -f manifests/\n  \
                        amoeba apply --atomic -f app.yaml\n  \
                        cat web.yaml | amoeba apply -f -")]
pub struct Args {
    /// File, directory, or - for standard input; may be given several times
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// Also read the directories inside a directory
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Only check: "server" asks the server without changing anything, "client" asks nobody
    #[arg(long, value_name = "WHERE", default_value = "none", num_args = 0..=1, default_missing_value = "client")]
    dry_run: DryRun,
    /// What to do about unknown and duplicate fields
    #[arg(long, value_name = "HOW", default_value = "strict", num_args = 0..=1, default_missing_value = "strict")]
    validate: Validation,
    /// Write all objects in one transaction, or none of them
    #[arg(long)]
    atomic: bool,
    /// name, yaml or json instead of one line an object
    #[arg(short, long, value_name = "FORM")]
    output: Option<Format>,
}

/// Where a dry run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    /// No dry run.
    None,
    /// Before the first request that would write.
    Client,
    /// Inside the server, before it stores.
    Server,
}

/// What happens to fields that the schema doesn't know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Validation {
    /// They are an error.
    #[value(alias = "true")]
    Strict,
    /// They are dropped with a warning.
    Warn,
    /// They are dropped.
    #[value(alias = "false")]
    Ignore,
}

impl Validation {
    /// The value of the query parameter `fieldValidation`.
    pub fn parameter(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Warn => "Warn",
            Self::Ignore => "Ignore",
        }
    }
}

/// Reads, checks and applies.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let documents = manifest::read(&args.filename, args.recursive)?;
    let cluster = app.cluster().await?;
    let targets = targets(&cluster, app.target.namespace.as_deref(), documents).await?;
    let apply = Apply { cluster: &cluster, args: &args };
    if args.dry_run == DryRun::Client {
        targets.iter().for_each(|target| say(format!("{} (dry run)", target.line("applied"))));
        return Ok(());
    }
    if args.atomic {
        return apply.write_all(&targets).await;
    }
    apply.check(&targets).await?;
    for target in &targets {
        let (verb, object) = apply.write(target).await.map_err(|error| target.failed(&error))?;
        apply.show(target, verb, object)?;
    }
    Ok(())
}

struct Apply<'a> {
    cluster: &'a Cluster,
    args: &'a Args,
}

/// What one document needs.
enum Step {
    Create(Value),
    Patch(PatchKind, Value),
    Nothing(Value),
}

impl Apply<'_> {
    fn query(&self, dry: bool) -> Query {
        let query = Query::new()
            .with("fieldManager", FIELD_MANAGER)
            .with("fieldValidation", self.args.validate.parameter());
        if dry { query.with("dryRun", "All") } else { query }
    }

    /// Dry-runs everything. Objects of a namespace that this run would create can only be checked later.
    async fn check(&self, targets: &[Target]) -> Result<(), Failure> {
        let created: BTreeSet<&str> = targets
            .iter()
            .filter(|target| target.kind.kind == "Namespace" && target.kind.group.is_empty())
            .map(|target| target.document.name())
            .collect();
        let mut wrong = 0;
        for target in targets {
            if is_nameless(target) {
                wrong += 1;
                continue;
            }
            match self.attempt(target, true).await {
                Ok(_) => {}
                Err(error) if error.is(404) && created.contains(target.namespace.as_str()) => {}
                // Not an answer to this document: every other one would fail alike.
                Err(error) if error.status().is_none() => return Err(error.into()),
                Err(error) => wrong += target.complain(&error),
            }
        }
        if wrong == 0 { Ok(()) } else { Err(Failure::Reported { errors: wrong, consequence: NOTHING }) }
    }

    async fn write(&self, target: &Target) -> Result<(&'static str, Value), RequestError> {
        self.attempt(target, self.args.dry_run == DryRun::Server).await
    }

    /// Looks, decides, acts; a conflict with somebody else's write means to look again.
    async fn attempt(&self, target: &Target, dry: bool) -> Result<(&'static str, Value), RequestError> {
        let mut tries = 1;
        loop {
            match self.once(target, dry).await {
                Err(error) if error.is(409) && tries < TRIES => tries += 1,
                other => return other,
            }
        }
    }

    async fn once(&self, target: &Target, dry: bool) -> Result<(&'static str, Value), RequestError> {
        let live = self.live(target).await?;
        let query = self.query(dry);
        match step(target, live.as_ref(), !dry) {
            Step::Nothing(object) => Ok(("unchanged", object)),
            Step::Create(object) => {
                let object = self.cluster.create(&query.on(&target.collection()), &object).await?;
                Ok(("created", object))
            }
            Step::Patch(kind, patch) => {
                let after = self.cluster.patch(&query.on(&target.path()), kind, &patch).await?;
                let same = live.is_some_and(|live| version(&live) == version(&after));
                Ok((if same && !dry { "unchanged" } else { "configured" }, after))
            }
        }
    }

    /// Plans every document, and sends all that is to be written as one transaction.
    async fn write_all(&self, targets: &[Target]) -> Result<(), Failure> {
        self.refuse_nameless(targets)?;
        let query = self.query(false);
        let mut plan = Vec::new();
        for target in targets {
            let live = self.live(target).await?;
            let request = match step(target, live.as_ref(), true) {
                Step::Nothing(_) => None,
                Step::Create(object) => Some(atomic::create(&query.on(&target.collection()), object)),
                Step::Patch(kind, patch) => Some(atomic::patch(&query.on(&target.path()), kind, patch)),
            };
            plan.push((target, live, request));
        }
        let requests: Vec<Value> = plan.iter().filter_map(|(.., request)| request.clone()).collect();
        let dry = self.args.dry_run == DryRun::Server;
        let sent: Vec<&Target> =
            plan.iter().filter(|(.., r)| r.is_some()).map(|(target, ..)| *target).collect();
        let results = atomic::send(self.cluster, requests, dry).await;
        let mut results = results.map_err(|error| refused_whole(&sent, error))?.into_iter();
        for (target, live, request) in plan {
            let result = request.and_then(|_| results.next());
            let (verb, object) = match result {
                None => ("unchanged", live.unwrap_or_default()),
                Some(result) if !result.changed => ("unchanged", result.object),
                Some(result) if live.is_none() => ("created", result.object),
                Some(result) => ("configured", result.object),
            };
            self.show(target, verb, object)?;
        }
        Ok(())
    }

    fn refuse_nameless(&self, targets: &[Target]) -> Result<(), Failure> {
        let nameless = targets.iter().filter(|target| is_nameless(target)).count();
        match nameless {
            0 => Ok(()),
            errors => Err(Failure::Reported { errors, consequence: NOTHING }),
        }
    }

    async fn live(&self, target: &Target) -> Result<Option<Value>, RequestError> {
        match self.cluster.get(&target.path()).await {
            Ok(live) => Ok(Some(live)),
            Err(error) if error.is(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn show(&self, target: &Target, verb: &str, object: Value) -> Result<(), Failure> {
        match &self.args.output {
            None => {
                let dry = if self.args.dry_run == DryRun::Server { " (server dry run)" } else { "" };
                say(format!("{}{dry}", target.line(&print::styled(style(verb), verb))));
                Ok(())
            }
            Some(form) => {
                let shown =
                    form.object(&target.kind, &without_managed_fields(object)).map_err(Failure::Usage)?;
                say_raw(&shown);
                Ok(())
            }
        }
    }
}

/// Whether the document has no name; then that is said.
fn is_nameless(target: &Target) -> bool {
    if !target.document.name().is_empty() {
        return false;
    }
    let (place, kind) = (target.document.place("metadata"), &target.kind.kind);
    note(format!(
        "{} {place}: {kind}: metadata.name is missing: apply needs a name (`amoeba create` can use generateName)",
        print::styled(print::BAD, "error:")
    ));
    true
}

/// Every refusal of a transaction with the line of its document.
fn refused_whole(sent: &[&Target], error: RequestError) -> Failure {
    let refusals = error.status().map(atomic::refusals).unwrap_or_default();
    let named = |(index, status): (usize, StatusBody)| {
        let error = RequestError::Status(Box::new(status));
        sent.get(index).map(|target| target.complain(&error))
    };
    match refusals.into_iter().filter_map(named).sum() {
        0 => Failure::Request(error),
        errors => Failure::Reported { errors, consequence: NOTHING },
    }
}

fn style(verb: &str) -> anstyle::Style {
    if verb == "unchanged" { print::FAINT } else { print::GOOD }
}

fn version(object: &Value) -> &str {
    api::object::resource_version(object)
}

fn step(target: &Target, live: Option<&Value>, warn: bool) -> Step {
    let wanted = last_applied::annotated(&target.document.object);
    let Some(live) = live else { return Step::Create(wanted) };
    let last = last_applied::of_live(live);
    if last.is_none() && warn {
        note(format!(
            "{}: {} was not made by apply: fields that are missing in the file are left as they are",
            print::styled(print::WARN, "Warning"),
            printed_name(&target.kind, live)
        ));
    }
    let (rules, kind) = rules::of(&target.kind);
    let patch = three_way::patch(last.as_ref(), live, &wanted, &rules);
    match patch.as_object().is_some_and(|patch| patch.is_empty()) {
        true => Step::Nothing(live.clone()),
        false => Step::Patch(kind, patch),
    }
}
