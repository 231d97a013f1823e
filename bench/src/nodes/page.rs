//! The Markdown page.

use std::path::Path;

use anyhow::Result;

use crate::api::page::{Line, finish};
use crate::process;

/// The page; with a directory it is also written there, and the notes of the page that was there are kept. `load`: the
/// load average before the measurements.
pub fn page(lines: &[Line], load: f64, output: Option<&Path>) -> Result<String> {
    let head = format!(
        "# How a node starts containers, and its Services\n\nWritten by `make bench-nodes`, up to the notes.\n\n\
         amoeba's own runtime and Debian's containerd with runc through the Container Runtime Interface, on {}, \
         load average {load:.1} before the start and {:.1} at the end, which has what is measured in it. One member, \
         one node, one image (busybox); a pod is created bound to the node, and a watch tells when its container \
         runs, so both sides carry the same API server, store and agent; the runtime's part is what the agent counts. Each pod has an address, namespaces, a \
         cgroup with limits and the default seccomp profile; the sides take turns, and a hundred begin when the machine is idle. Figures that aren't percentiles \
         are medians (lowest–highest). Requests come from the node itself, each on a new connection.\n\n\
         | measured | result |\n|---|---|\n",
        process::processor(),
        process::load(),
    );
    finish(head, lines, output.map(|directory| directory.join("bench-nodes.md")))
}
