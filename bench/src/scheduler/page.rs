//! The Markdown page: conditions, a line for each measurement, and what somebody wrote about it by hand.

use std::path::Path;

use anyhow::Result;

pub use crate::api::page::Line;
use crate::api::page::finish;
use crate::process;

/// The page; with a directory it is also written there, and the notes of the page that was there are kept.
pub fn page(name: &str, nodes: usize, lines: &[Line], output: Option<&Path>) -> Result<String> {
    let head = format!(
        "# Scheduler and controllers under load\n\nWritten by `make bench-scheduler`, up to the notes.\n\n\
         {name} with {nodes} simulated nodes on {}, load average {:.1} before the end; server, simulated nodes and \
         generator share the cores. Clients create over HTTP/1.1 with TLS, one request at a time on a connection; \
         a watch tells when the last object is done. Each write is durable. CPU is that of the server's processes \
         (API server, store, controllers and scheduler), for each object that is counted.\n\n\
         | measured | result |\n|---|---|\n",
        process::processor(),
        process::load(),
    );
    finish(head, lines, output.map(|directory| directory.join("bench-scheduler.md")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_outlive_the_figures() {
        let dir = tempfile::tempdir().expect("a directory");
        let line = Line::new("10 gangs").with("rate", "5/s".into());
        std::fs::write(dir.path().join("bench-scheduler.md"), "# old\n\n## Notes\n\nby hand\n")
            .expect("written");
        let page = page("ours", 7, &[line], Some(dir.path())).expect("a page");
        assert!(page.contains("7 simulated nodes") && page.contains("| 10 gangs | rate 5/s |\n"), "{page}");
        assert!(page.ends_with("## Notes\n\nby hand\n"), "{page}");
    }
}
