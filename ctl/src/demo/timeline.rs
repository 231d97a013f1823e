//! What the viewer reads: chapters, and lines with the time since something was broken.

use std::time::{Duration, Instant};

use crate::print::{self, styled, table::simple};
use crate::text::seconds;
use crate::verb::say;

/// A new chapter.
pub fn chapter(title: &str) {
    say("");
    say(styled(print::STRONG, title));
}

/// Times are counted from here.
#[derive(Clone, Copy, Debug)]
pub struct Timeline(Instant);

impl Timeline {
    /// Counts from now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// A line with its time.
    pub fn line(&self, text: impl std::fmt::Display) {
        let time = format!("{:>9}", format!("+{}", seconds(self.elapsed())));
        say(format!("  {}  {text}", styled(print::FAINT, time)));
    }
}

/// One promise and whether it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was promised.
    pub promise: String,
    /// What was seen.
    pub seen: String,
    /// Whether that is what was promised.
    pub held: bool,
}

impl Check {
    /// A promise about something other than time.
    pub fn that(promise: &str, held: bool, seen: impl Into<String>) -> Self {
        Self { promise: promise.to_owned(), seen: seen.into(), held }
    }

    /// A promise to be done within `limit`.
    pub fn within(what: &str, limit: Duration, took: Duration) -> Self {
        Self::that(&format!("{what} within {}", seconds(limit)), took <= limit, seconds(took))
    }
}

/// The summary; true if everything held.
pub fn summary(checks: &[Check]) -> bool {
    chapter("Summary");
    let row = |check: &Check| {
        let verdict = if check.held { "held" } else { "BROKEN" };
        vec![verdict.to_owned(), check.promise.clone(), check.seen.clone()]
    };
    for (line, check) in
        simple(&["", "PROMISE", "SEEN"], checks.iter().map(row).collect()).iter().skip(1).zip(checks)
    {
        let style = if check.held { print::GOOD } else { print::BAD };
        say(format!("  {}", styled(style, line)));
    }
    checks.iter().all(|check| check.held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_about_time_holds_up_to_its_limit() {
        let second = Duration::from_secs(1);
        assert!(Check::within("x", second, second).held);
        let late = Check::within("x", second, second * 2);
        assert_eq!(
            (late.held, late.promise.as_str(), late.seen.as_str()),
            (false, "x within 1.00 s", "2.00 s")
        );
    }

    #[test]
    fn the_summary_is_good_only_if_all_held() {
        let good = Check::that("a", true, "b");
        assert!(summary(std::slice::from_ref(&good)));
        assert!(!summary(&[good, Check::that("c", false, "d")]));
    }
}
