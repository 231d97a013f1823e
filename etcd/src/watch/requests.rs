//! What a client wants to watch, parsed.

use bytes::Bytes;
use store::kv::{Event, EventKind, KeyRange, Revision, WatchRequest};

use crate::kv::key_range;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::watch_create_request::FilterType;

/// Which events a watcher gets, and how. Watchers with equal options share encoded events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// With the pair before the change.
    pub prev_kv: bool,
    /// Without puts.
    pub no_put: bool,
    /// Without deletions.
    pub no_delete: bool,
}

impl View {
    /// Whether the watcher wants to see the event.
    pub fn shows(self, event: &Event) -> bool {
        match event.kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}

/// A watch to be made.
#[derive(Clone, Debug)]
pub struct Create {
    /// What the store is asked.
    pub request: WatchRequest,
    /// Which of its events are shown.
    pub view: View,
    /// The id that the client wants; `None` leaves the choice to us.
    pub id: Option<i64>,
    /// Split answers that are too large for the client's limit.
    pub fragment: bool,
    /// Tell how far it is when there are no events.
    pub progress_notify: bool,
}

impl Create {
    /// Reads a request; `None` if its range can't hold a key.
    pub fn parse(request: pb::WatchCreateRequest) -> Option<Self> {
        let filters = |filter: FilterType| request.filters.contains(&(filter as i32));
        let view = View {
            prev_kv: request.prev_kv,
            no_put: filters(FilterType::Noput),
            no_delete: filters(FilterType::Nodelete),
        };
        let start = u64::try_from(request.start_revision).ok().filter(|revision| *revision > 0);
        Some(Self {
            request: WatchRequest {
                range: range(request.key, &request.range_end)?,
                start: start.map(Revision),
            },
            view,
            id: (request.watch_id != 0).then_some(request.watch_id),
            fragment: request.fragment,
            progress_notify: request.progress_notify,
        })
    }
}

/// No key at all stands for the smallest one.
fn range(key: Bytes, range_end: &Bytes) -> Option<KeyRange> {
    let key = if key.is_empty() { Bytes::from_static(b"\0") } else { key };
    let range = key_range(&key, range_end);
    let empty = range.end.as_ref().is_some_and(|end| *end <= range.start);
    (!empty).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_etcds() {
        let contains = |key: &'static str, end: &'static str, probe: &str| {
            range(key.into(), &end.into()).map(|range| range.contains(probe.as_bytes()))
        };
        assert_eq!(contains("a", "", "a"), Some(true));
        assert_eq!(contains("a", "", "ab"), Some(false));
        assert_eq!(contains("", "\0", "any"), Some(true));
        assert_eq!(contains("b", "\0", "a"), Some(false));
        assert_eq!(contains("b", "a", "a"), None);
        assert_eq!(contains("b", "b", "b"), None);
    }
}
