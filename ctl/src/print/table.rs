//! A Table of the API server as text, column by column as kubectl lays it out.
//!
//! A column is as wide as its widest cell plus three spaces and never narrower than six; the last column of a
//! row has no trailing spaces. In a watch the widths only grow, so that lines stay below each other.

use serde_json::Value;

use super::{BAD, FAINT, GOOD, WARN};

/// Which parts of a Table are shown.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Also columns of lower priority.
    pub wide: bool,
    /// A NAMESPACE column first.
    pub with_namespace: bool,
    /// Leave the line with the column names out.
    pub no_headers: bool,
    /// Put this and a slash before each name.
    pub kind_prefix: Option<String>,
    /// A LABELS column last.
    pub show_labels: bool,
}

/// Text in rows and columns, and the widths used so far.
#[derive(Clone, Debug, Default)]
pub struct Printer {
    widths: Vec<usize>,
    header_done: bool,
}

/// Rows of cells ready to be laid out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    /// Column names, upper case.
    pub header: Vec<String>,
    /// Cells.
    pub rows: Vec<Vec<String>>,
}

impl Grid {
    /// The shown part of a `meta.k8s.io/v1` Table.
    pub fn of_table(table: &Value, layout: &Layout) -> Self {
        let columns: Vec<&Value> = items(table, "columnDefinitions").iter().collect();
        let shown: Vec<usize> = (0..columns.len())
            .filter(|i| layout.wide || columns[*i]["priority"].as_i64().unwrap_or(0) == 0)
            .collect();
        let name = |i: &usize| columns[*i]["name"].as_str().unwrap_or_default().to_uppercase();
        let header = surround(layout, "NAMESPACE".into(), shown.iter().map(name).collect(), "LABELS".into());
        let rows = items(table, "rows").iter().map(|row| cells(row, &shown, layout)).collect();
        Self { header, rows }
    }
}

fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn surround(layout: &Layout, namespace: String, middle: Vec<String>, labels: String) -> Vec<String> {
    let first = layout.with_namespace.then_some(namespace);
    let last = layout.show_labels.then_some(labels);
    first.into_iter().chain(middle).chain(last).collect()
}

fn cells(row: &Value, shown: &[usize], layout: &Layout) -> Vec<String> {
    let all = items(row, "cells");
    let mut middle: Vec<String> = shown.iter().map(|i| cell(all.get(*i).unwrap_or(&Value::Null))).collect();
    if let (Some(prefix), Some(name)) = (&layout.kind_prefix, middle.first_mut()) {
        *name = format!("{prefix}/{name}");
    }
    let metadata = &row["object"]["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default().to_owned();
    surround(layout, namespace, middle, labels(&metadata["labels"]))
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('\n', "\\n"),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    }
}

/// `a=1,b=2`, or `<none>`.
pub fn labels(labels: &Value) -> String {
    let Some(map) = labels.as_object().filter(|map| !map.is_empty()) else { return "<none>".to_owned() };
    let pairs = map.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(",")
}

impl Printer {
    /// The grid as lines, the header only the first time.
    pub fn lines(&mut self, grid: &Grid, layout: &Layout) -> Vec<String> {
        let header = (!layout.no_headers && !self.header_done).then_some(&grid.header);
        self.header_done = true;
        self.widen(header.into_iter().chain(&grid.rows));
        let mut lines: Vec<String> = header.map(|cells| self.line(cells)).into_iter().collect();
        lines.extend(grid.rows.iter().map(|cells| self.coloured(cells, &grid.header)));
        lines
    }

    fn widen<'a>(&mut self, rows: impl Iterator<Item = &'a Vec<String>>) {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 6);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count() + 3);
            }
        }
    }

    fn line(&self, cells: &[String]) -> String {
        self.render(cells, |_, text| text.to_owned())
    }

    fn coloured(&self, cells: &[String], header: &[String]) -> String {
        self.render(cells, |i, text| colour(header.get(i).map(String::as_str).unwrap_or_default(), text))
    }

    /// Pads by the plain text, then styles it, so that invisible codes don't shift the columns.
    fn render(&self, cells: &[String], style: impl Fn(usize, &str) -> String) -> String {
        let mut line = String::new();
        for (i, text) in cells.iter().enumerate() {
            line.push_str(&style(i, text));
            if i + 1 < cells.len() {
                let width = self.widths.get(i).copied().unwrap_or(0);
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(text.chars().count())));
            }
        }
        line
    }
}

/// Colours say what is well and what isn't; only columns that speak of health have them.
fn colour(column: &str, text: &str) -> String {
    let style = match column {
        "STATUS" | "TYPE" | "STATE" => status_style(text),
        "READY" => ready_style(text),
        "AGE" | "LAST SEEN" => FAINT,
        _ => return text.to_owned(),
    };
    super::styled(style, text)
}

fn status_style(text: &str) -> anstyle::Style {
    const BAD_WORDS: [&str; 8] =
        ["Error", "BackOff", "Failed", "NotReady", "Evicted", "OOMKilled", "Unknown", "Invalid"];
    match text {
        "Running" | "Ready" | "Active" | "Succeeded" | "Bound" => GOOD,
        "Completed" | "Normal" | "ClusterIP" => anstyle::Style::new(),
        _ if BAD_WORDS.iter().any(|word| text.contains(word)) => BAD,
        _ => WARN,
    }
}

fn ready_style(text: &str) -> anstyle::Style {
    match text.split_once('/') {
        Some((ready, wanted)) if ready == wanted => GOOD,
        Some(_) => WARN,
        None => anstyle::Style::new(),
    }
}

/// Lays out rows that aren't a Table of the server, with the same spacing.
pub fn simple(header: &[&str], rows: Vec<Vec<String>>) -> Vec<String> {
    let grid = Grid { header: header.iter().map(|&name| name.to_owned()).collect(), rows };
    Printer::default().lines(&grid, &Layout::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table() -> Value {
        json!({
            "columnDefinitions": [
                {"name": "Name"}, {"name": "Status"}, {"name": "Restarts"}, {"name": "IP", "priority": 1}],
            "rows": [
                {"cells": ["web-1", "Running", 0, "10.0.0.1"],
                 "object": {"metadata": {"namespace": "a", "labels": {"app": "web", "x": "y"}}}},
                {"cells": ["a-longer-name", "CrashLoopBackOff", 12, null],
                 "object": {"metadata": {"namespace": "kube-system"}}}]
        })
    }

    fn plain(layout: &Layout) -> String {
        let lines = Printer::default().lines(&Grid::of_table(&table(), layout), layout);
        anstream::adapter::strip_str(&lines.join("\n")).to_string()
    }

    #[test]
    fn columns_are_padded_as_in_kubectl() {
        let expected = "\
NAME            STATUS             RESTARTS
web-1           Running            0
a-longer-name   CrashLoopBackOff   12";
        assert_eq!(plain(&Layout::default()), expected);
    }

    #[test]
    fn wide_namespace_labels_and_prefix_add_what_they_say() {
        let layout = Layout {
            wide: true,
            with_namespace: true,
            show_labels: true,
            no_headers: true,
            kind_prefix: Some("pod".into()),
        };
        let expected = "\
a             pod/web-1           Running            0     10.0.0.1   app=web,x=y
kube-system   pod/a-longer-name   CrashLoopBackOff   12    <none>     <none>";
        assert_eq!(plain(&layout), expected);
    }

    #[test]
    fn a_watch_keeps_its_widths_and_prints_no_second_header() {
        let mut printer = Printer::default();
        let layout = Layout::default();
        printer.lines(&Grid::of_table(&table(), &layout), &layout);
        let row = json!({"columnDefinitions": table()["columnDefinitions"], "rows": [{"cells": ["b", "Ready", 1]}]});
        let lines = printer.lines(&Grid::of_table(&row, &layout), &layout);
        assert_eq!(
            anstream::adapter::strip_str(&lines[0]).to_string(),
            "b               Ready              1"
        );
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn health_has_its_colour() {
        assert_eq!(status_style("Running"), GOOD);
        assert_eq!(status_style("CrashLoopBackOff"), BAD);
        assert_eq!(status_style("Pending"), WARN);
        assert_eq!(ready_style("1/2"), WARN);
    }
}
