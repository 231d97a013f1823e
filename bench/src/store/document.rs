//! The Markdown page: conditions, one line per figure, and what somebody wrote about it by hand.

use super::flushes::Flushes;
use super::results::{Outcome, Target};
use super::server::Side;
use super::workload::{Metric, Workload};
use crate::process;
use crate::statistics::{Samples, number};
use std::fmt::Write as _;

/// Everything from this heading on is written by hand and kept.
pub const NOTES: &str = "## Notes";

/// How it was measured.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// Version of etcd.
    pub etcd: String,
    /// Version of ours.
    pub amoeba: String,
    /// Cores of the servers.
    pub server_cores: String,
    /// Cores of the generator.
    pub client_cores: String,
    /// File system of the data directories.
    pub file_system: String,
    /// Pairs of each measurement.
    pub pairs: usize,
    /// Seconds counted in each run.
    pub seconds: f64,
    /// The command line.
    pub command: String,
}

/// The page; `notes` as returned by [`notes`] of the page before.
pub fn page(
    conditions: &Conditions,
    flushes: &[(Side, usize, Flushes)],
    outcomes: &[Outcome],
    notes: &str,
) -> String {
    let mut page =
        String::from("# The store beside etcd\n\nWritten by `make bench-store`, up to the notes.\n\n");
    page.push_str("![put rates, latencies and ratios](bench-store.svg)\n\n");
    page.push_str(&heading(conditions));
    page.push_str(&flush_table(flushes));
    page.push_str(&table(outcomes));
    let _ = write!(page, "\n{}\n", verdict(outcomes));
    let _ = write!(page, "\n{notes}");
    page
}

/// The part of an earlier page that is kept.
pub fn notes(page: &str) -> String {
    let at = page.find(&format!("\n{NOTES}\n")).map(|at| at + 1);
    at.map_or(format!("{NOTES}\n"), |at| page[at..].to_owned())
}

fn heading(conditions: &Conditions) -> String {
    let Conditions { etcd, amoeba, server_cores, client_cores, file_system, pairs, seconds, command } =
        conditions;
    format!(
        "Measured on {}; data on {file_system}. {etcd} beside {amoeba}, by `{command}`.\n\n\
         Servers are pinned to core {server_cores} (all members of a group together), the load generator to core \
         {client_cores}. Each run starts its servers in a fresh directory, warms up for a second and counts for \
         {seconds} s; {pairs} pairs of runs a line, the order alternating. Clients work in a closed loop, ten to a \
         connection, spread over all members; keys of 41 B, random among 20,000 that exist. Lines give median (lowest–highest); \
         a ratio is ours divided by etcd's within a pair. CPU is that of all members, from `/proc/PID/stat`.\n\n",
        process::processor(),
    )
}

fn flush_table(flushes: &[(Side, usize, Flushes)]) -> String {
    if flushes.is_empty() {
        return "Flushes were not counted: strace is missing.\n\n".into();
    }
    let mut table = "Both acknowledge a put only when it is flushed; calls of fsync, fdatasync, msync and \
                     sync_file_range under strace:\n\n| server | clients | puts | flushes | puts per flush |\n\
                     |---|---|---|---|---|\n"
        .to_owned();
    for (side, clients, Flushes { puts, calls }) in flushes {
        let each = number(*puts as f64 / *calls as f64);
        let _ = writeln!(table, "| {} | {clients} | {puts} | {calls} | {each} |", name(*side));
    }
    table.push('\n');
    table
}

fn table(outcomes: &[Outcome]) -> String {
    let mut table =
        "| what | figure | etcd | amoeba | ratio | aim | load average |\n|---|---|---|---|---|---|---|\n"
            .to_owned();
    for outcome in outcomes {
        for (metric, ratios) in &outcome.ratios {
            let aim =
                outcome.target(*metric).map_or(String::new(), |target| aim(target, outcome.ratio(*metric)));
            let _ = writeln!(
                table,
                "| {} | {} | {} | {} | {} | {aim} | {:.2} |",
                outcome.workload.name(),
                unit(outcome.workload, *metric),
                summary(outcome.sides.get(&(Side::Etcd, *metric))),
                summary(outcome.sides.get(&(Side::Amoeba, *metric))),
                summary(Some(ratios)),
                outcome.load,
            );
        }
    }
    table
}

fn verdict(outcomes: &[Outcome]) -> String {
    let aims = outcomes.iter().flat_map(|outcome| {
        outcome.ratios.keys().filter_map(|metric| {
            let met = outcome.target(*metric)?.is_met(outcome.ratio(*metric)?);
            Some((met, format!("{} ({})", outcome.workload.name(), unit(outcome.workload, *metric))))
        })
    });
    let (met, short): (Vec<_>, Vec<_>) = aims.partition(|(met, _)| *met);
    let short: Vec<String> = short.into_iter().map(|(_, what)| what).collect();
    let list = if short.is_empty() { "none".into() } else { short.join("; ") };
    format!("{} of {} aims are reached. Short of theirs: {list}.", met.len(), met.len() + short.len())
}

fn aim(target: Target, ratio: Option<f64>) -> String {
    let (sign, bound) = match target {
        Target::AtLeast(bound) => ("≥", bound),
        Target::AtMost(bound) => ("≤", bound),
    };
    let verdict = if ratio.is_some_and(|ratio| target.is_met(ratio)) { "reached" } else { "**short**" };
    format!("{sign} {bound} {verdict}")
}

fn summary(samples: Option<&Samples>) -> String {
    samples.and_then(Samples::summary).map_or("–".to_owned(), |summary| summary.to_string())
}

/// What a figure is, with its unit.
pub fn unit(workload: Workload, metric: Metric) -> &'static str {
    match (metric, workload) {
        (Metric::Rate, Workload::Put { .. } | Workload::Memory { .. }) => "puts/s",
        (Metric::Rate, Workload::Read { .. }) => "reads/s",
        (Metric::Rate, Workload::Range) => "ranges/s",
        (Metric::Rate, Workload::Watch { .. }) => "events/s",
        (Metric::P50, _) => "p50, ms",
        (Metric::P99, _) => "p99, ms",
        (Metric::Cpu, _) => "CPU each, µs",
        (Metric::Switches, _) => "context switches each",
        (Metric::Rss, _) => "RSS, MiB",
    }
}

/// What a side is called.
pub fn name(side: Side) -> &'static str {
    match side {
        Side::Etcd => "etcd",
        Side::Amoeba => "amoeba",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_outlive_the_page() {
        let first = notes("");
        assert_eq!(first, "## Notes\n");
        let page = format!("# Figures\n\ntext\n\n{NOTES}\n\nA reason.\n");
        assert_eq!(notes(&page), "## Notes\n\nA reason.\n");
    }
}
