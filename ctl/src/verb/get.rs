//! `amoeba get`

use std::collections::BTreeSet;

use serde_json::Value;

use super::selection::{self, Selected};
use super::{note, say, say_raw};
use crate::app::App;
use crate::cluster::Cluster;
use crate::cluster::kinds::Kind;
use crate::cluster::path::{self, Query};
use crate::cluster::request::RequestError;
use crate::cluster::watch::{Event, EventKind, WatchStart};
use crate::failure::Failure;
use crate::output::{Format, without_managed_fields};
use crate::past::Moment;
use crate::print::table::{Grid, Layout, Printer};

/// Objects asked for at a time; the rest follows in further requests.
const PAGE: &str = "500";

/// Show objects
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  amoeba get pods -o wide\n  amoeba get deploy,rs -l app=web\n  \
                        amoeba get pod/web-1 -o yaml\n  amoeba get pods -A -w\n  amoeba get deploy/web --at 5m -o yaml\n  \
                        amoeba get nodes -o jsonpath='{.items[*].metadata.name}'")]
pub struct Args {
    /// TYPE[,TYPE] [NAME …] or TYPE/NAME …; TYPE may be a short name, or "all"
    #[arg(value_name = "WHAT", required = true)]
    what: Vec<String>,
    /// wide, yaml, json, name, jsonpath=TEMPLATE or custom-columns=NAME:PATH,…
    #[arg(short, long, value_name = "FORM")]
    output: Option<Format>,
    /// Then follow changes
    #[arg(short, long)]
    watch: bool,
    /// Follow changes without showing what is there first
    #[arg(long)]
    watch_only: bool,
    /// As it was at a revision (1234), some time ago (5m), or at a time (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "5m|REV", conflicts_with_all = ["watch", "watch_only"])]
    at: Option<Moment>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only with these labels, such as app=web,tier!=db
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only with these fields, such as spec.nodeName=n1
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,
    /// Without the line of column names
    #[arg(long)]
    no_headers: bool,
    /// With a column of labels
    #[arg(long)]
    show_labels: bool,
    /// Keep metadata.managedFields in yaml and json
    #[arg(long)]
    show_managed_fields: bool,
    /// No error if a named object doesn't exist
    #[arg(long)]
    ignore_not_found: bool,
}

/// Shows the objects, and their changes if asked.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let cluster = app.cluster().await?;
    let selected = selection::resolve(&cluster, &selection::parse("get", &args.what)?).await?;
    let get = Get { cluster: &cluster, form: args.output.clone().unwrap_or_default(), args: &args };
    match (args.watch || args.watch_only, &selected[..]) {
        (true, [one]) => get.follow(one).await,
        (true, _) => Err(Failure::Usage("a watch follows one TYPE, or one TYPE/NAME".into())),
        (false, _) if get.form.is_table() => get.tables(&selected).await,
        (false, _) => get.objects(&selected).await,
    }
}

struct Get<'a> {
    cluster: &'a Cluster,
    form: Format,
    args: &'a Args,
}

impl Get<'_> {
    fn namespace(&self) -> Option<&str> {
        (!self.args.all_namespaces).then(|| self.cluster.namespace())
    }

    /// The path of one object, or of a collection with the selectors.
    fn path(&self, one: &Selected) -> Result<(String, Query), Failure> {
        let query = Query::new()
            .with_some("labelSelector", self.args.selector.as_ref())
            .with_some("fieldSelector", self.args.field_selector.as_ref());
        let query = match &self.args.at {
            Some(at) => at.on(query),
            None => query,
        };
        match &one.name {
            None => Ok((path::collection(&one.kind, self.namespace()), query)),
            Some(_) if self.args.all_namespaces && one.kind.namespaced => {
                Err(Failure::Usage("a name can't be looked for in all namespaces: use -n NAMESPACE".into()))
            }
            Some(_) if self.args.selector.is_some() || self.args.field_selector.is_some() => {
                Err(Failure::Usage("names and selectors can't be used together".into()))
            }
            Some(name) => Ok((path::object(&one.kind, self.cluster.namespace(), name), query)),
        }
    }

    /// Whether a missing object was announced to be fine.
    fn forgives(&self, error: &RequestError) -> bool {
        self.args.ignore_not_found && error.is(404)
    }

    fn layout(&self, kind: &Kind, prefixed: bool) -> Layout {
        Layout {
            wide: self.form == Format::Wide,
            with_namespace: self.args.all_namespaces && kind.namespaced,
            no_headers: self.args.no_headers,
            kind_prefix: prefixed.then(|| kind.printed()),
            show_labels: self.args.show_labels,
        }
    }

    async fn tables(&self, selected: &[Selected]) -> Result<(), Failure> {
        let groups = by_kind(selected);
        let mut shown = 0;
        let mut failures = Vec::new();
        for group in &groups {
            let (table, failed) = self.table_of(group).await?;
            failures.extend(failed);
            if rows(&table) > 0 {
                if shown > 0 {
                    say("");
                }
                shown += 1;
                self.print_table(&table, &group[0].kind, groups.len() > 1);
            }
        }
        match (shown, failures.len()) {
            (_, 1..) => Err(first_of(failures)),
            (0, 0) if !self.args.ignore_not_found => {
                note(self.nothing_found(&groups));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn nothing_found(&self, groups: &[Vec<Selected>]) -> String {
        let cluster_wide = groups.iter().flatten().all(|one| !one.kind.namespaced);
        match self.namespace() {
            Some(namespace) if !cluster_wide => format!("No resources found in {namespace} namespace."),
            _ => "No resources found".to_owned(),
        }
    }

    /// One Table of all that was asked of one kind; what is missing comes back as errors.
    async fn table_of(&self, group: &[Selected]) -> Result<(Value, Vec<RequestError>), Failure> {
        let mut whole = Value::Null;
        let mut failures = Vec::new();
        for one in group {
            let (path, query) = self.path(one)?;
            match self.pages(&path, query, one.name.is_none(), true).await {
                Ok(table) => append(&mut whole, table, "rows"),
                Err(error) if self.forgives(&error) => {}
                Err(error) => failures.push(error),
            }
        }
        Ok((whole, failures))
    }

    /// One answer, or all pages of a collection joined.
    async fn pages(&self, path: &str, query: Query, many: bool, table: bool) -> Result<Value, RequestError> {
        let query = if many { query.with("limit", PAGE) } else { query };
        let mut whole = Value::Null;
        let mut next = String::new();
        loop {
            let path = query.clone().with("continue", &next).on(path);
            let page = if table { self.cluster.table(&path).await? } else { self.cluster.get(&path).await? };
            next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            append(&mut whole, page, if table { "rows" } else { "items" });
            if next.is_empty() || !many {
                return Ok(whole);
            }
        }
    }

    fn print_table(&self, table: &Value, kind: &Kind, prefixed: bool) -> Printer {
        let layout = self.layout(kind, prefixed);
        let mut printer = Printer::default();
        printer.lines(&Grid::of_table(table, &layout), &layout).iter().for_each(say);
        printer
    }

    async fn objects(&self, selected: &[Selected]) -> Result<(), Failure> {
        let mut found = Vec::new();
        let mut failures = Vec::new();
        for one in selected {
            let (path, query) = self.path(one)?;
            match self.pages(&path, query, one.name.is_none(), false).await {
                Ok(answer) => {
                    found.extend(items(one, answer).map(|object| (one.kind.clone(), self.trim(object))))
                }
                Err(error) if self.forgives(&error) => {}
                Err(error) => failures.push(error),
            }
        }
        if failures.is_empty() || !found.is_empty() {
            say_raw(&self.render(selected, &found)?);
        }
        if failures.is_empty() { Ok(()) } else { Err(first_of(failures)) }
    }

    /// One named object is shown as itself, everything else as a list.
    fn render(&self, selected: &[Selected], found: &[(Kind, Value)]) -> Result<String, Failure> {
        let shown = match (selected, found) {
            ([Selected { name: Some(_), .. }], [(kind, object)]) => self.form.object(kind, object),
            ([Selected { name: Some(_), .. }], []) => Ok(String::new()),
            _ => self.form.list(found),
        };
        shown.map_err(Failure::Usage)
    }

    fn trim(&self, object: Value) -> Value {
        if self.args.show_managed_fields { object } else { without_managed_fields(object) }
    }

    async fn follow(&self, one: &Selected) -> Result<(), Failure> {
        let (path, query) = self.path(one)?;
        let as_table = self.form.is_table();
        let first = self.pages(&path, query.clone(), one.name.is_none(), as_table).await;
        let first = match first {
            Err(error) if self.forgives(&error) => Value::Null,
            other => other?,
        };
        let layout = self.layout(&one.kind, false);
        let mut printer = Printer::default();
        if !self.args.watch_only {
            self.print_state(&mut printer, &layout, one, &first)?;
        }
        let start = self.start(one, query, &first);
        let mut watch = self.cluster.watch(start);
        let mut columns = first["columnDefinitions"].clone();
        loop {
            let mut event = watch.next().await?;
            remember_columns(&mut columns, &mut event.object);
            self.print_event(&mut printer, &layout, &one.kind, event)?;
        }
    }

    /// A watch of one object is a watch of its collection by name.
    fn start(&self, one: &Selected, query: Query, first: &Value) -> WatchStart {
        let query =
            query.with_some("fieldSelector", one.name.as_ref().map(|name| format!("metadata.name={name}")));
        WatchStart {
            path: path::collection(&one.kind, self.namespace()),
            query,
            resource_version: list_version(first),
            as_table: self.form.is_table(),
        }
    }

    fn print_state(
        &self,
        printer: &mut Printer,
        layout: &Layout,
        one: &Selected,
        first: &Value,
    ) -> Result<(), Failure> {
        if self.form.is_table() {
            if rows(first) > 0 {
                printer.lines(&Grid::of_table(first, layout), layout).iter().for_each(say);
            }
            return Ok(());
        }
        for object in items(one, first.clone()) {
            say_raw(&self.form.object(&one.kind, &self.trim(object)).map_err(Failure::Usage)?);
        }
        Ok(())
    }

    fn print_event(
        &self,
        printer: &mut Printer,
        layout: &Layout,
        kind: &Kind,
        event: Event,
    ) -> Result<(), Failure> {
        if self.form.is_table() {
            printer.lines(&Grid::of_table(&event.object, layout), layout).iter().for_each(say);
        } else if event.kind != EventKind::Deleted || self.form != Format::Name {
            let separator = if self.form == Format::Yaml { "---\n" } else { "" };
            let shown = self.form.object(kind, &self.trim(event.object)).map_err(Failure::Usage)?;
            say_raw(&format!("{separator}{shown}"));
        }
        Ok(())
    }
}

/// Only the first Table of a watch names its columns; the others are given what it named.
fn remember_columns(known: &mut Value, table: &mut Value) {
    match table["columnDefinitions"].as_array() {
        Some(columns) if !columns.is_empty() => *known = table["columnDefinitions"].clone(),
        _ if known.is_array() && table.is_object() => table["columnDefinitions"] = known.clone(),
        _ => {}
    }
}

/// Where a watch starts: after the list, or after the version of the one object (a Table of one object has
/// it in its row).
fn list_version(first: &Value) -> String {
    let of = |value: &Value| value["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    of(first)
        .filter(|version| !version.is_empty())
        .or_else(|| of(&first["rows"][0]["object"]))
        .unwrap_or_else(|| "0".to_owned())
}

fn rows(table: &Value) -> usize {
    table["rows"].as_array().map_or(0, Vec::len)
}

/// Adds a page to what came before.
fn append(whole: &mut Value, mut page: Value, field: &str) {
    match whole[field].as_array_mut() {
        Some(all) => all.extend(page[field].as_array_mut().map(std::mem::take).unwrap_or_default()),
        None => *whole = page,
    }
}

/// The objects of an answer, each with its kind: items of a list are served without.
fn items(one: &Selected, answer: Value) -> impl Iterator<Item = Value> + use<> {
    let (api_version, kind) = (one.kind.api_version(), one.kind.kind.clone());
    let objects = match (one.name.is_some(), answer) {
        (false, Value::Object(mut list)) => match list.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        (_, Value::Null) => Vec::new(),
        (_, object) => vec![object],
    };
    objects.into_iter().map(move |mut object| {
        api::object::set_type(&mut object, &api_version, &kind);
        object
    })
}

/// Neighbours of one kind are shown in one table; a kind that comes again later joins its first table.
fn by_kind(selected: &[Selected]) -> Vec<Vec<Selected>> {
    let mut groups: Vec<Vec<Selected>> = Vec::new();
    for one in selected {
        match groups.iter_mut().find(|group| group[0].kind == one.kind) {
            Some(group) => group.push(one.clone()),
            None => groups.push(vec![one.clone()]),
        }
    }
    groups
}

/// Prints all but the last error; that one ends the process. The same refusal is said once.
fn first_of(failures: Vec<RequestError>) -> Failure {
    let mut said = BTreeSet::new();
    let mut failures =
        failures.into_iter().filter(|error| said.insert(error.to_string())).collect::<Vec<_>>();
    let last = failures.pop();
    for error in failures {
        note(error);
    }
    last.map_or(Failure::Reported { errors: 0, consequence: "nothing was shown" }, Failure::Request)
}

#[cfg(test)]
mod tests;
