//! The server's memory when it keeps many pods.

use anyhow::Result;

use super::lists::{create_pods, remove_pods};
use super::page::Line;
use super::wire::Wire;
use super::{Server, collection};
use crate::process::{self, Pid};
use crate::statistics::number;

/// Makes the pods and looks at the server's processes before and after; nothing if they aren't known.
pub async fn run(server: &Server, pods: usize) -> Result<Vec<Line>> {
    if server.pids.is_empty() {
        eprintln!("memory is skipped: --pid says which processes to look at");
        return Ok(Vec::new());
    }
    let before = resident(&server.pids)?;
    create_pods(server, "stored", pods).await?;
    let mut wire = Wire::open(&server.target).await?;
    let size = wire.expect("GET", &format!("{}?limit=500", collection("pods")), &[]).await? as f64 / 500.0;
    let after = resident(&server.pids)?;
    let each = (after - before) * 1024.0 / pods as f64;
    let line = Line::new(format!("Memory with {pods} pods"))
        .with("idle", format!("{} MiB", number(before)))
        .with("RSS", format!("{} MiB", number(after)))
        .with("a pod", format!("{} KiB", number(each)))
        .with("beyond its bytes", format!("{} KiB", number(each - size / 1024.0)));
    remove_pods(&mut wire).await?;
    Ok(vec![line])
}

/// In MiB.
pub fn resident(pids: &[Pid]) -> Result<f64> {
    let mut sum = 0.0;
    for pid in pids {
        sum += process::memory(*pid)?.rss;
    }
    Ok(sum)
}
