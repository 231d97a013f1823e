//! Events on the wire. The events of a revision are encoded once for all watchers that see them alike; what
//! differs per watcher (its id) is a few bytes in front.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message;
use prost::encoding::message;
use store::kv::Event;

use super::requests::View;
use crate::grpc::PREFIX;
use crate::kv;
use crate::proto::etcdserverpb::WatchResponse;

/// The field number of `WatchResponse.events`.
const EVENTS: u32 = 11;
/// Encoded revisions kept. Watchers of one key get a revision at nearly the same time.
const KEPT: usize = 32;
/// Larger ones aren't kept, to bound the memory.
const KEPT_BYTES: usize = 128 << 10;

/// The last encoded revisions, shared by all watchers of a member.
#[derive(Default)]
pub struct EncodedEvents {
    recent: Mutex<VecDeque<Encoded>>,
}

struct Encoded {
    /// Held so that its address names these events as long as they are kept.
    events: Arc<[Event]>,
    view: View,
    bytes: Bytes,
}

impl EncodedEvents {
    /// The events that `view` shows, as the `events` fields of a [`WatchResponse`]. Empty if it shows none.
    pub fn of(&self, events: &Arc<[Event]>, view: View) -> Bytes {
        if let Some(bytes) = self.find(events, view) {
            return bytes;
        }
        let bytes = fields(events.iter().filter(|event| view.shows(event)), view);
        if bytes.len() <= KEPT_BYTES {
            self.keep(Encoded { events: events.clone(), view, bytes: bytes.clone() });
        }
        bytes
    }

    fn find(&self, events: &Arc<[Event]>, view: View) -> Option<Bytes> {
        let recent = self.recent.lock();
        let same = |kept: &&Encoded| Arc::ptr_eq(&kept.events, events) && kept.view == view;
        recent.iter().rev().find(same).map(|kept| kept.bytes.clone())
    }

    fn keep(&self, encoded: Encoded) {
        let mut recent = self.recent.lock();
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(encoded);
    }
}

/// Encodes events as fields of a [`WatchResponse`].
pub fn fields<'a>(events: impl Iterator<Item = &'a Event>, view: View) -> Bytes {
    let mut out = BytesMut::new();
    for event in events {
        let event = kv::event(event, view.prev_kv);
        out.reserve(message::encoded_len(EVENTS, &event));
        message::encode(EVENTS, &event, &mut out);
    }
    out.freeze()
}

/// Appends a response whose events are encoded already, with its prefix: in protobuf, concatenated fields
/// are one message.
pub fn response(head: &WatchResponse, events: &[Bytes], out: &mut BytesMut) {
    let length = head.encoded_len() + events.iter().map(Bytes::len).sum::<usize>();
    out.reserve(PREFIX + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("no batch of events has 4 GiB"));
    head.encode_raw(out);
    events.iter().for_each(|events| out.extend_from_slice(events));
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::kv::{EventKind, KeyValue, Revision};

    fn events() -> Arc<[Event]> {
        let kv = |value: &'static str| KeyValue {
            key: "k".into(),
            value: value.into(),
            create_revision: Revision(3),
            mod_revision: Revision(4),
            version: 2,
            lease: None,
        };
        let put = Event { kind: EventKind::Put, kv: kv("new"), prev: Some(kv("old")) };
        let delete = Event { kind: EventKind::Delete, kv: kv(""), prev: Some(kv("new")) };
        [put, delete].into()
    }

    fn decode(view: View, cache: &EncodedEvents, events: &Arc<[Event]>) -> WatchResponse {
        let head = WatchResponse { watch_id: 7, ..Default::default() };
        let mut bytes = BytesMut::new();
        response(&head, &[cache.of(events, view)], &mut bytes);
        WatchResponse::decode(bytes.split_off(PREFIX)).expect("what we encode can be decoded")
    }

    #[test]
    fn a_response_is_its_head_and_the_shared_events() {
        let (cache, events) = (EncodedEvents::default(), events());
        let plain = decode(View::default(), &cache, &events);
        assert_eq!(plain.watch_id, 7);
        assert_eq!(plain.events, events.iter().map(|e| kv::event(e, false)).collect::<Vec<_>>());
        let with_prev = decode(View { prev_kv: true, ..View::default() }, &cache, &events);
        assert_eq!(with_prev.events[0].prev_kv.as_ref().map(|kv| kv.value.as_ref()), Some(&b"old"[..]));
        let deletes = decode(View { no_put: true, ..View::default() }, &cache, &events);
        assert_eq!(deletes.events.len(), 1);
    }

    #[test]
    fn equal_views_share_one_encoding() {
        let (cache, events) = (EncodedEvents::default(), events());
        let (a, b) = (cache.of(&events, View::default()), cache.of(&events, View::default()));
        assert_eq!(a.as_ptr(), b.as_ptr());
        let other: Arc<[Event]> = events.iter().cloned().collect();
        assert_ne!(cache.of(&other, View::default()).as_ptr(), a.as_ptr());
    }
}
