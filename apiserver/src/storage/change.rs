//! One change of one object, and the frames in which watchers hear of it.
//!
//! A frame is encoded when the first watcher needs it and then shared by all of them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use store::kv::Revision;

use crate::storage::object::Stored;

/// How a watcher sees a change. Two watchers may see one change differently: what enters the selection of
/// one is a mere modification to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// New to the watcher.
    Added,
    /// Known and changed.
    Modified,
    /// Gone, or no longer selected.
    Deleted,
}

impl EventType {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object.
#[derive(Debug)]
pub struct Change {
    /// When.
    pub revision: Revision,
    /// The object after the change; `None` if it was deleted.
    pub now: Option<Arc<Stored>>,
    /// The object before the change; `None` if it was created.
    pub before: Option<Arc<Stored>>,
    frames: [OnceLock<Bytes>; 3],
}

impl Change {
    /// A change from `before` to `now`.
    pub fn new(revision: Revision, now: Option<Arc<Stored>>, before: Option<Arc<Stored>>) -> Self {
        Self { revision, now, before, frames: Default::default() }
    }

    /// What a watcher hears that selects objects by `selects`; `None` if nothing.
    pub fn seen_by(&self, selects: impl Fn(&Stored) -> bool) -> Option<EventType> {
        let now = self.now.as_deref().is_some_and(&selects);
        let before = self.before.as_deref().is_some_and(&selects);
        match (before, now) {
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }

    /// The object that goes with the event: the new one, or for a deletion the last one selected.
    pub fn object(&self, event: EventType) -> Option<&Arc<Stored>> {
        match event {
            EventType::Deleted => self.before.as_ref().or(self.now.as_ref()),
            _ => self.now.as_ref(),
        }
    }

    /// The line of JSON that watchers of plain objects get.
    pub fn frame(&self, event: EventType) -> Bytes {
        let object = self.object(event);
        let encode = || object.map_or_else(Bytes::new, |object| self.frame_as(event, object));
        self.frames[event as usize].get_or_init(encode).clone()
    }

    /// The same line with the object in another form, which is not shared.
    pub fn frame_as(&self, event: EventType, object: &Stored) -> Bytes {
        let mut out = Vec::with_capacity(object.json.len() + 80);
        frame_head(event.as_str(), &mut out);
        object.write_at(self.revision, &mut out);
        out.extend_from_slice(b"}\n");
        out.into()
    }

    /// Bytes that the change keeps in memory, roughly.
    pub fn weight(&self) -> usize {
        let size = |stored: &Option<Arc<Stored>>| stored.as_ref().map_or(0, |stored| stored.json.len());
        // The object before is usually held by the change before; the frame is about as large as the object.
        2 * size(&self.now) + size(&self.before) + 256
    }
}

/// Begins a frame: `{"type":"ADDED","object":`.
pub fn frame_head(event: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(br#"","object":"#);
}

/// A frame of an object that is not shared.
pub fn frame(event: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 40);
    frame_head(event, &mut out);
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(json: &'static str, revision: u64) -> Option<Arc<Stored>> {
        Some(Arc::new(Stored::of(Bytes::new(), Bytes::from_static(json.as_bytes()), Revision(revision))))
    }

    #[test]
    fn a_selector_makes_of_a_change_what_the_watcher_sees() {
        let red = r#"{"metadata":{"name":"a","labels":{"c":"red"}}}"#;
        let blue = r#"{"metadata":{"name":"a","labels":{"c":"blue"}}}"#;
        let is_red = |stored: &Stored| stored.label("c") == Some("red");
        let change = Change::new(Revision(5), stored(blue, 5), stored(red, 3));
        assert_eq!(change.seen_by(|_| true), Some(EventType::Modified));
        assert_eq!(change.seen_by(is_red), Some(EventType::Deleted));
        assert_eq!(change.seen_by(|s| !is_red(s)), Some(EventType::Added));
        assert_eq!(change.seen_by(|_| false), None);
        let frame = change.frame(EventType::Deleted);
        assert_eq!(
            std::str::from_utf8(&frame).expect("text"),
            "{\"type\":\"DELETED\",\"object\":{\"metadata\":{\"resourceVersion\":\"5\",\"name\":\"a\",\"labels\":{\"c\":\"red\"}}}}\n"
        );
        assert_eq!(frame.as_ptr(), change.frame(EventType::Deleted).as_ptr(), "one encoding for all");
    }
}
