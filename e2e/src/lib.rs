//! A real cluster for end-to-end tests: the built binary, its processes, and real kubectl.
//!
//! A [`Cluster`] owns a temporary data directory and everything that was started on it; when it is dropped,
//! no process of it is left, whatever the test did. Waiting is always for a condition with a deadline.

pub mod api;
mod cluster;
pub mod containerd;
pub mod extension;
pub mod image;
pub mod machines;
mod processes;
pub mod registry;
pub mod script;
pub mod standalone;
pub mod store;
mod tools;

use std::net::TcpListener;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;

pub use cluster::Cluster;
pub use processes::{Background, end_all_on, lines_of, wait_for_line};
pub use tools::{amoeba_binary, checkout, helm, kubectls, manifest};

/// How long a cluster may take to do what takes it about a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until `probe` gives a value.
///
/// # Panics
/// With `what` when the deadline passes.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        pause(Duration::from_millis(50));
    }
}

/// Does nothing for a while: between two looks, or as long as a fault is to last.
#[expect(
    clippy::disallowed_methods,
    reason = "between two looks at processes that can't tell us when to look"
)]
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// What a command printed, and whether it succeeded.
#[derive(Debug)]
pub struct Ran {
    /// Exit code 0.
    pub ok: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Whether the pod's Ready condition is True.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// A port that nobody listens on just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
