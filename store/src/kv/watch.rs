//! Watches: what is asked, what comes, and the hand that holds one.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::{KeyRange, KeyValue, Revision};

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Created or overwritten.
    Put,
    /// Deleted, by a transaction or by the end of its lease.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Put or delete.
    pub kind: EventKind,
    /// The pair after the change; for a deletion the key, and the deletion's revision as mod revision.
    pub kv: KeyValue,
    /// The pair before the change, unless it was created or its history is compacted.
    pub prev: Option<KeyValue>,
}

/// What to watch.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// Which keys.
    pub range: KeyRange,
    /// Events from this revision on (inclusive); `None` means after the newest revision.
    pub start: Option<Revision>,
}

/// What a watch delivers, in revision order.
#[derive(Clone, Debug)]
pub enum WatchMessage {
    /// All events of one revision within the range, in the order of the transaction; shared by all watchers.
    Events {
        /// Their revision.
        revision: Revision,
        /// The events; for watchers of different ranges the same allocation may hold more than the range
        /// asked for, so it is filtered before it is handed out.
        events: Arc<[Event]>,
    },
    /// Every event at or below this revision has been delivered. Sent on request, and at least once a
    /// second while others make progress; never below the revision that the watch starts at.
    Progress(Revision),
    /// The history that the watcher needs is gone: it must read again. Ends the watch.
    Compacted(Revision),
}

/// What the maker of a [`Watch`] hears of its reader.
pub trait WatchControl: Send + Sync {
    /// The reader took a message out of the channel, which now holds `left`.
    fn received(&self, message: &WatchMessage, left: usize);
    /// The reader wants to know how far it is.
    fn request_progress(&self);
    /// The reader is gone.
    fn ended(&self);
}

/// What [`Watch::map`] does to each message; `None` ends the watch.
pub type MapMessage = Arc<dyn Fn(WatchMessage) -> Option<WatchMessage> + Send + Sync>;

/// The receiving end of a watch. Bounded: a slow reader is caught up from disk, or gets `Compacted`.
/// Dropping it ends the watch.
pub struct Watch {
    messages: mpsc::Receiver<WatchMessage>,
    control: Arc<dyn WatchControl>,
    map: Option<MapMessage>,
    /// The newest revision when the watch was registered.
    pub revision: Revision,
}

impl Watch {
    /// A watch that reads from `messages`; `control` hears what the reader does.
    pub fn new(
        messages: mpsc::Receiver<WatchMessage>,
        control: Arc<dyn WatchControl>,
        revision: Revision,
    ) -> Self {
        Self { messages, control, map: None, revision }
    }

    /// The same watch, whose reader sees what `map` makes of each message.
    #[must_use]
    pub fn map(mut self, map: MapMessage) -> Self {
        assert!(self.map.is_none(), "a watch is mapped once");
        self.map = Some(map);
        self
    }

    /// The next message, in order; `None` after [`WatchMessage::Compacted`] and when the store is closed.
    /// Loses nothing if it is dropped before it is done.
    pub async fn recv(&mut self) -> Option<WatchMessage> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`Watch::recv`], for use in a `poll` function.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<WatchMessage>> {
        self.messages.poll_recv(cx).map(|message| self.took(message))
    }

    /// The next message if it is there already.
    pub fn try_recv(&mut self) -> Option<WatchMessage> {
        let message = self.messages.try_recv().ok();
        self.took(message)
    }

    /// Asks for a [`WatchMessage::Progress`]. It comes in the same queue, after all events at or below its
    /// revision, as soon as the watch has caught up; several requests may share one answer.
    pub fn request_progress(&self) {
        self.control.request_progress();
    }

    fn took(&self, message: Option<WatchMessage>) -> Option<WatchMessage> {
        let message = message?;
        self.control.received(&message, self.messages.len());
        match &self.map {
            None => Some(message),
            Some(map) => map(message),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.control.ended();
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("revision", &self.revision).finish_non_exhaustive()
    }
}
