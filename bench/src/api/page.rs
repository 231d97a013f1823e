//! The Markdown page: conditions, a line for each measurement, and what somebody wrote about it by hand.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process;
use crate::store::document::notes;

/// One measurement: what was measured, and named figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    what: String,
    figures: Vec<(&'static str, String)>,
}

impl Line {
    /// A measurement without figures yet.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), figures: Vec::new() }
    }

    /// With one more figure.
    pub fn with(mut self, name: &'static str, figure: String) -> Self {
        self.figures.push((name, figure));
        self
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures: Vec<String> =
            self.figures.iter().map(|(name, figure)| format!("{name} {figure}")).collect();
        write!(f, "| {} | {} |", self.what, figures.join(", "))
    }
}

/// The page; with a directory it is also written there, and the notes of the page that was there are kept.
pub fn page(name: &str, lines: &[Line], output: Option<&Path>) -> Result<String> {
    let head = format!(
        "# The API server under load\n\nWritten by `make bench-api`, up to the notes.\n\n\
         {name} on {}, load average {:.1} before the end; server and generator share the cores. Clients work in \
         closed loops over HTTP/1.1 with TLS, one request at a time on a connection; CPU is that of the server's \
         processes, for an operation or a delivery.\n\n| measured | result |\n|---|---|\n",
        process::processor(),
        process::load(),
    );
    finish(head, lines, output.map(|directory| directory.join("bench-api.md")))
}

/// Adds the lines of the table; with a file the page is written there, before the notes that the file has.
pub fn finish(mut page: String, lines: &[Line], file: Option<PathBuf>) -> Result<String> {
    lines.iter().for_each(|line| page.push_str(&format!("{line}\n")));
    let Some(path) = file else { return Ok(page) };
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    page.push_str(&format!("\n{}", notes(&before)));
    std::fs::write(&path, &page).with_context(|| format!("write {}", path.display()))?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_outlive_the_figures() {
        let dir = tempfile::tempdir().expect("a directory");
        let line = Line::new("gets").with("rate", "5/s".into()).with("p50", "1 ms".into());
        std::fs::write(dir.path().join("bench-api.md"), "# old\n\n## Notes\n\nby hand\n").expect("written");
        let page = page("ours", &[line], Some(dir.path())).expect("a page");
        assert!(page.contains("| gets | rate 5/s, p50 1 ms |\n"), "{page}");
        assert!(page.ends_with("## Notes\n\nby hand\n"), "{page}");
        assert_eq!(std::fs::read_to_string(dir.path().join("bench-api.md")).expect("there"), page);
    }
}
