//! A moment of the database, kept for followers that fell behind the log.
//!
//! Each is streamed straight from it, as often as asked and to several at once: nothing is written to the
//! leader's disk first, and a broken delivery starts again at once. The moment is a RocksDB snapshot; it
//! costs nothing but that what changes meanwhile can't be compacted away, so it is given up when a newer one
//! replaces it or nobody has asked for a while.

use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::failpoint::failpoint;
use crate::mvcc::view::DiskError;
use crate::rocks::{Rocks, RocksView};
use crate::snapshot;

/// An offer that nobody asks for in this time is given up; Raft asks for a new one then.
const OFFER_PATIENCE: Duration = Duration::from_secs(60);
/// Blocks waiting to be sent to one receiver. When full, reading the database waits.
const WAITING_BLOCKS: usize = 4;

/// Where one receiver's blocks go.
type Blocks = mpsc::Sender<Result<Bytes, DiskError>>;

struct Offer {
    name: String,
    receivers: Sender<Blocks>,
}

/// The newest offer, and the threads of all that are still being streamed.
#[derive(Default)]
pub struct Offers {
    newest: Mutex<Option<Offer>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Offers {
    /// Keeps the database as it is when this returns, under `name`, in the place of any earlier moment.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn keep(&self, name: String, rocks: Rocks) -> std::io::Result<()> {
        let (receivers, asking) = channel();
        let (taken, wait) = sync_channel(1);
        let work = move || {
            failpoint!("snapshot_before_open");
            let view = rocks.view_aside();
            let _loop_is_gone = taken.send(());
            failpoint!("snapshot_after_open");
            serve(&view, &asking);
        };
        let thread = std::thread::Builder::new().name("store-snapshot".into()).spawn(work)?;
        // An error means that the thread has ended, which shows when its offer is opened.
        let _taken = wait.recv();
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        *self.newest.lock() = Some(Offer { name, receivers });
        Ok(())
    }

    /// Begins to stream the moment called `name`; `None` if it was given up. What comes is a snapshot as
    /// [`snapshot::encode`] writes it, in blocks; one that ends without its end mark is worthless.
    pub fn open(&self, name: &str) -> Option<mpsc::Receiver<Result<Bytes, DiskError>>> {
        let newest = self.newest.lock();
        let offer = newest.as_ref().filter(|offer| offer.name == name)?;
        let (blocks, stream) = mpsc::channel(WAITING_BLOCKS);
        offer.receivers.send(blocks).ok()?;
        Some(stream)
    }

    /// Gives the newest moment up; what is being streamed from it goes on.
    pub fn give_up(&self) {
        self.newest.lock().take();
    }

    /// Gives everything up. Blocks until nobody reads the database any more, which is at once when those
    /// that take the blocks are gone.
    pub fn close(&self) {
        self.newest.lock().take();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that streamed a snapshot ended by a panic");
            }
        }
    }
}

/// Streams to each that asks, until nobody does; returns when all have everything or are gone.
fn serve(view: &RocksView, asking: &Receiver<Blocks>) {
    std::thread::scope(|scope| {
        while let Ok(blocks) = asking.recv_timeout(OFFER_PATIENCE) {
            let streaming = std::thread::Builder::new().name("store-stream".into());
            let spawned = streaming.spawn_scoped(scope, move || stream(view, &blocks));
            if let Err(error) = spawned {
                tracing::warn!(%error, "no thread to stream a snapshot on; its receiver tries again");
            }
        }
    });
}

fn stream(view: &RocksView, blocks: &Blocks) {
    let gone = |_| DiskError::Engine { operation: "stream a snapshot", message: "nobody takes it".into() };
    let streamed = snapshot::encode(view, &mut |block| {
        blocks.blocking_send(Ok(Bytes::copy_from_slice(block))).map_err(gone)
    });
    if let Err(error) = streamed {
        // The receiver is gone, or learns that the disk can't be read.
        let _gone = blocks.blocking_send(Err(error));
    }
}
