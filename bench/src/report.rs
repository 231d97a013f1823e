//! The table, as Markdown that can be quoted as it is.

use crate::process;
use crate::statistics::{Samples, number};
use std::fmt;
use std::time::Duration;

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    what: String,
    result: String,
    cpu: Option<Duration>,
    load: f64,
    runs: usize,
}

impl Row {
    /// A line about `samples` in `unit`: median, lowest and highest. The load average is taken now.
    pub fn new(what: impl Into<String>, unit: &str, samples: &Samples) -> Self {
        let result = samples.summary().map_or("no result".to_owned(), |summary| format!("{summary} {unit}"));
        Row { what: what.into(), result, cpu: None, load: process::load(), runs: samples.len() }
    }

    /// A line with a result in words, of which there is one.
    pub fn text(what: impl Into<String>, result: String) -> Self {
        Row { what: what.into(), result, cpu: None, load: process::load(), runs: 1 }
    }

    /// Adds the CPU time that one operation took in all processes of the cluster.
    pub fn cpu_per_operation(mut self, total: Duration, operations: usize) -> Self {
        self.cpu = u32::try_from(operations).ok().and_then(|count| total.checked_div(count));
        self
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu =
            self.cpu.map_or("–".to_owned(), |cpu| format!("{} ms", number(cpu.as_secs_f64() * 1000.0)));
        write!(f, "| {} | {} | {} | {} | {:.2} |", self.what, self.result, cpu, self.runs, self.load)
    }
}

/// What stands above the lines.
pub fn heading() -> String {
    format!(
        "Measured on: {}.\n\n\
         | what | median (min–max) | CPU per operation | runs | load average |\n|---|---|---|---|---|",
        process::processor()
    )
}
