//! An audit file in a directory, and what is in it.

use std::path::Path;
use std::time::Duration;

use apiserver::audit::{AuditConfig, file::Rotation, policy::Policy};
use serde_json::Value;

/// How long a line may take to reach the file before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);
const FILE: &str = "audit.log";

/// Records writes in the directory.
pub fn config(dir: &Path) -> AuditConfig {
    AuditConfig { policy: Policy::default(), path: dir.join(FILE), rotation: Rotation::default() }
}

/// The lines of the file, once there are `count`, about requests whose path begins with `path`.
pub async fn lines(dir: &Path, path: &str, count: usize) -> Vec<Value> {
    let read = async {
        loop {
            let text = std::fs::read_to_string(dir.join(FILE)).unwrap_or_default();
            let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let events = whole.map(|line| serde_json::from_str(line).expect("JSON"));
            let ours = |event: &Value| event["requestURI"].as_str().is_some_and(|uri| uri.starts_with(path));
            let found: Vec<Value> = events.filter(ours).collect();
            if found.len() >= count {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the lines are written")
}
