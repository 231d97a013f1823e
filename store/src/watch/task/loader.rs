//! Reading history for watchers that are behind, one piece at a time on a thread that may block.

use std::collections::VecDeque;

use tokio::task::{JoinError, JoinHandle};

use super::{Inner, Watches};
use crate::failpoint::failpoint;
use crate::kv::Revision;
use crate::mvcc::read::{self, RevisionEvents};
use crate::mvcc::state::Head;
use crate::mvcc::view::DiskError;
use crate::rocks::Rocks;
use crate::watch::hub::WatchId;

/// Bytes of history read from disk at once.
const LOAD_BYTES: usize = 256 << 10;

/// History as read from the disk.
pub(super) struct Loaded {
    from: Revision,
    events: Vec<RevisionEvents>,
    newest: Revision,
    compacted: Revision,
}

/// Reads history for watchers that lag, one piece at a time on a thread that may block.
pub(super) struct Loader {
    pub(super) rocks: Rocks,
    /// Who waits, in order, and from which revision on; each is in it once at most.
    pub(super) waiting: VecDeque<(WatchId, Revision)>,
    pub(super) running: Option<JoinHandle<Result<Loaded, DiskError>>>,
}

impl Loader {
    pub(super) fn ask(&mut self, id: WatchId, from: Revision) {
        if self.waiting.iter().all(|(waiting, _)| *waiting != id) {
            self.waiting.push_back((id, from));
        }
    }

    /// Begins to read for the one who waits longest.
    pub(super) fn start(&mut self) {
        if let (None, Some((_, from))) = (&self.running, self.waiting.front()) {
            let (rocks, from) = (self.rocks.clone(), *from);
            self.running = Some(tokio::task::spawn_blocking(move || read_piece(&rocks, from)));
        }
    }

    /// What was read; never without a read under way.
    pub(super) async fn done(&mut self) -> Result<Result<Loaded, DiskError>, JoinError> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let loaded = running.await;
        self.running = None;
        loaded
    }

    /// Lets everyone go on for whom the piece is of use.
    pub(super) fn settle(&mut self, watches: &Watches, loaded: Result<Result<Loaded, DiskError>, JoinError>) {
        let Some((first, _)) = self.waiting.pop_front() else { return };
        let mut inner = watches.inner.lock();
        match loaded {
            Ok(Ok(loaded)) if loaded.from <= loaded.compacted => inner.hub.note_compacted(loaded.compacted),
            Ok(Ok(loaded)) => inner.hub.loaded(loaded.from, loaded.events, loaded.newest),
            failed => {
                let error = failed.map(|read| read.map(drop).map_err(|error| error.to_string()));
                tracing::error!(?error, "a watch ends because its history can't be read");
                return watches.forget(&mut inner, first);
            }
        }
        inner.active.insert(first);
        let Inner { hub, active, .. } = &mut *inner;
        self.waiting.retain(|(id, _)| {
            let stays = hub.must_load(*id);
            active.extend((!stays).then_some(*id));
            stays
        });
        watches.wake.notify_one();
    }

    pub(super) async fn stop(self) {
        if let Some(running) = self.running {
            // Its result is of no use, but the directory isn't free before.
            let _unused = running.await;
        }
    }
}

fn read_piece(rocks: &Rocks, from: Revision) -> Result<Loaded, DiskError> {
    failpoint!("watch_sync");
    let view = rocks.view();
    let Head { revision: newest, compacted, .. } = Head::load(&view)?;
    let events = if from > compacted { read::events(&view, from, LOAD_BYTES)? } else { Vec::new() };
    Ok(Loaded { from, events, newest, compacted })
}
