//! What the user sees while a cluster starts: a moving line on a terminal, plain lines otherwise.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::print::{self, styled};
use crate::text::seconds;

/// Prints steps with the time since the start.
pub struct Reporter {
    bar: ProgressBar,
    start: Instant,
}

impl Reporter {
    /// The time counts from now.
    pub fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() { spinner() } else { ProgressBar::hidden() };
        Self { bar, start: Instant::now() }
    }

    /// What is going on right now; only on a terminal.
    pub fn doing(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// A line that stays.
    pub fn line(&self, line: impl std::fmt::Display) {
        self.bar.suspend(|| {
            // A closed output must not end the cluster.
            let _ = writeln!(anstream::stdout(), "{line}");
        });
    }

    /// Something that needs a look.
    pub fn warn(&self, line: impl std::fmt::Display) {
        self.line(format!("{} {line}", styled(print::WARN, "!")));
    }

    /// The moving line ends.
    pub fn settle(&self) {
        self.bar.finish_and_clear();
    }

    /// Since the start.
    pub fn elapsed(&self) -> String {
        seconds(self.start.elapsed())
    }
}

fn spinner() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template is well formed");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
