//! Adding up this member's live pairs again and again, beside everything else.
//!
//! Apply keeps the sum of all live pairs' hashes in the replicated head. This task reads what really
//! stands on the disk and compares. It so finds what no checksum can: a record that was changed behind
//! apply's back, or that the engine lost or kept. A difference fences the member, which needs no other
//! member to tell it; a cluster of one has nobody else.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::driver::Handle;
use crate::kv::{KvError, MemberId};
use crate::mvcc::digest;
use crate::mvcc::state::Head;
use crate::mvcc::view::DiskError;
use crate::raft::health;
use crate::raft::replica::Input;
use crate::rocks::Rocks;

/// Between two passes while something is written: a flipped value is found within a second...
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// ...unless the passes are long: they take at most one part in so many of one processor.
const PAUSE_FACTOR: u32 = 100;
/// Between two passes over the same state.
const IDLE_PAUSE: Duration = Duration::from_secs(60);

/// Looks until something is wrong or the store shuts down.
pub async fn run(rocks: Rocks, handle: Handle, member: MemberId, mut stop: watch::Receiver<bool>) {
    let work = keep_looking(&rocks, |detail| found(&handle, member, detail));
    tokio::select! {
        () = work => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn keep_looking<F: Future<Output = ()>>(rocks: &Rocks, found: impl Fn(String) -> F) {
    let mut seen: Option<(u64, Instant)> = None;
    loop {
        let begun = Instant::now();
        let rocks = rocks.clone();
        let known = seen.filter(|(_, at)| at.elapsed() < IDLE_PAUSE).map(|(state, _)| state);
        let Ok(pass) = tokio::task::spawn_blocking(move || pass(&rocks, known)).await else { return };
        match pass {
            Ok(Pass::Unchanged) => {}
            Ok(Pass::Right(state)) => seen = Some((state, begun)),
            Ok(Pass::Wrong(detail)) => return found(detail).await,
            Err(error) => return found(format!("its disk can't be read: {error}")).await,
        }
        tokio::time::sleep(SHORTEST_PAUSE.max(begun.elapsed() * PAUSE_FACTOR)).await;
    }
}

/// Nobody may read here any more from this moment; the others are told through the log.
async fn found(handle: &Handle, member: MemberId, detail: String) {
    let detail = format!("{detail}; {}", health::remedy(member));
    tracing::error!("this member's data is wrong: {detail}");
    handle.shared.fence(KvError::Corrupt { member, detail: detail.clone() });
    handle.deliver(Input::Damaged(detail)).await;
}

enum Pass {
    /// Nothing was applied since the last one.
    Unchanged,
    /// The state with this fingerprint is right.
    Right(u64),
    Wrong(String),
}

fn pass(rocks: &Rocks, known: Option<u64>) -> Result<Pass, DiskError> {
    let view = rocks.view_aside();
    let head = Head::load(&view)?;
    if known == Some(head.fingerprint()) {
        return Ok(Pass::Unchanged);
    }
    let live = digest::live(&view)?;
    if live == head.live {
        return Ok(Pass::Right(head.fingerprint()));
    }
    Ok(Pass::Wrong(format!(
        "at revision {} its live pairs add up to {live:016x}, but {:016x} was applied",
        head.revision, head.live
    )))
}
