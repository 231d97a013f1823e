//! Reading a range as etcd does: what to ask the store, and what to make of its answer.

use std::cmp::Ordering;

use bytes::Bytes;
use store::kv::{Consistency, KeyRange, KeyValue, RangeRequest, RangeResponse, Revision};

use super::response::pair;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};

/// A read: one request to the store and what is left to do with its pairs.
#[derive(Clone, Debug)]
pub struct RangePlan {
    /// What the store is asked.
    pub request: RangeRequest,
    /// Sorting and filtering, which need all pairs of the range; most reads have none.
    after: Option<After>,
}

#[derive(Clone, Debug)]
struct After {
    order: SortOrder,
    target: SortTarget,
    mod_revision: Bounds,
    create_revision: Bounds,
    limit: usize,
    keys_only: bool,
}

/// Lowest and highest, inclusive; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    min: u64,
    max: u64,
}

impl Bounds {
    fn new(min: i64, max: i64) -> Self {
        Self { min: positive(min), max: positive(max) }
    }

    fn is_none(self) -> bool {
        self == Self { min: 0, max: 0 }
    }

    fn hold(self, revision: Revision) -> bool {
        revision.0 >= self.min && (self.max == 0 || revision.0 <= self.max)
    }
}

impl RangePlan {
    /// For a request that passed [`super::check::range`].
    pub fn new(request: &pb::RangeRequest) -> Self {
        let after = After::new(request);
        // The store sorts by key already; anything else needs every pair before the limit counts.
        let limit = if after.is_some() { 0 } else { limit(request) };
        let sorts_values = after.as_ref().is_some_and(|after| after.target == SortTarget::Value);
        let consistency =
            if request.serializable { Consistency::Serializable } else { Consistency::Linearizable };
        let revision = positive(request.revision);
        let request = RangeRequest {
            range: key_range(&request.key, &request.range_end),
            revision: (revision > 0).then_some(Revision(revision)),
            limit,
            keys_only: request.keys_only && !sorts_values,
            count_only: request.count_only,
            // Every answer of etcd has the count, however short the page is.
            count: true,
            consistency,
        };
        Self { request, after }
    }

    /// The answer to the client, without a header.
    pub fn finish(&self, mut response: RangeResponse) -> pb::RangeResponse {
        if let Some(after) = &self.after {
            after.apply(&mut response);
        }
        pb::RangeResponse {
            header: None,
            count: i64::try_from(response.count.unwrap_or(0)).expect("fewer than 2^63 keys fit anywhere"),
            more: response.more,
            kvs: response.kvs.into_iter().map(pair).collect(),
        }
    }
}

impl After {
    fn new(request: &pb::RangeRequest) -> Option<Self> {
        let target = request.sort_target();
        let order = match request.sort_order() {
            // Asked for a target but no order: etcd sorts ascending.
            SortOrder::None if target != SortTarget::Key => SortOrder::Ascend,
            // The order of keys is the store's own.
            SortOrder::Ascend if target == SortTarget::Key => SortOrder::None,
            order => order,
        };
        let mod_revision = Bounds::new(request.min_mod_revision, request.max_mod_revision);
        let create_revision = Bounds::new(request.min_create_revision, request.max_create_revision);
        let needed = order != SortOrder::None || !mod_revision.is_none() || !create_revision.is_none();
        let (limit, keys_only) = (limit(request), request.keys_only);
        needed.then_some(Self { order, target, mod_revision, create_revision, limit, keys_only })
    }

    fn apply(&self, response: &mut RangeResponse) {
        let kvs = &mut response.kvs;
        kvs.retain(|kv| {
            self.mod_revision.hold(kv.mod_revision) && self.create_revision.hold(kv.create_revision)
        });
        match self.order {
            SortOrder::None => {}
            SortOrder::Ascend => kvs.sort_by(|a, b| self.compare(a, b)),
            SortOrder::Descend => kvs.sort_by(|a, b| self.compare(b, a)),
        }
        response.more = self.limit > 0 && kvs.len() > self.limit;
        if response.more {
            kvs.truncate(self.limit);
        }
        if self.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
    }

    fn compare(&self, a: &KeyValue, b: &KeyValue) -> Ordering {
        match self.target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    }
}

/// etcd's notation of a range: no end is one key, the end `"\0"` is everything from the key on.
pub fn key_range(key: &Bytes, range_end: &Bytes) -> KeyRange {
    match range_end.as_ref() {
        [] => KeyRange::key(key.clone()),
        [0] => KeyRange { start: key.clone(), end: None },
        end if end <= key.as_ref() => KeyRange { start: key.clone(), end: Some(key.clone()) },
        _ => KeyRange { start: key.clone(), end: Some(range_end.clone()) },
    }
}

fn limit(request: &pb::RangeRequest) -> usize {
    usize::try_from(request.limit).unwrap_or(0)
}

fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &'static str, value: &'static str, create: u64, modified: u64, version: u64) -> KeyValue {
        let (create_revision, mod_revision) = (Revision(create), Revision(modified));
        KeyValue { key: key.into(), value: value.into(), create_revision, mod_revision, version, lease: None }
    }

    fn stored() -> RangeResponse {
        let kvs = vec![kv("a", "3", 1, 9, 2), kv("b", "1", 3, 4, 5), kv("c", "2", 2, 7, 3)];
        RangeResponse { kvs, more: false, count: Some(3), revision: Revision(9) }
    }

    fn keys(request: &pb::RangeRequest) -> (String, bool, i64) {
        let response = RangePlan::new(request).finish(stored());
        let keys: Vec<_> =
            response.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
        (keys.join(""), response.more, response.count)
    }

    fn request() -> pb::RangeRequest {
        pb::RangeRequest { key: "a".into(), range_end: "z".into(), ..Default::default() }
    }

    #[test]
    fn pairs_are_sorted_by_what_is_asked() {
        let sorted = |order: SortOrder, target: SortTarget| {
            let (sort_order, sort_target) = (order as i32, target as i32);
            keys(&pb::RangeRequest { sort_order, sort_target, ..request() }).0
        };
        assert_eq!(sorted(SortOrder::Descend, SortTarget::Key), "cba");
        assert_eq!(sorted(SortOrder::Ascend, SortTarget::Key), "abc");
        assert_eq!(sorted(SortOrder::Ascend, SortTarget::Version), "acb");
        assert_eq!(sorted(SortOrder::Descend, SortTarget::Create), "bca");
        assert_eq!(sorted(SortOrder::Ascend, SortTarget::Mod), "bca");
        assert_eq!(sorted(SortOrder::None, SortTarget::Value), "bca");
    }

    #[test]
    fn filters_come_before_the_limit_and_not_in_the_count() {
        let filtered = pb::RangeRequest { min_mod_revision: 5, limit: 1, ..request() };
        assert_eq!(keys(&filtered), ("a".into(), true, 3));
        let filtered = pb::RangeRequest { max_create_revision: 2, min_create_revision: 2, ..request() };
        assert_eq!(keys(&filtered), ("c".into(), false, 3));
        assert_eq!(RangePlan::new(&filtered).request.limit, 0);
        assert_eq!(RangePlan::new(&pb::RangeRequest { limit: 7, ..request() }).request.limit, 7);
    }

    #[test]
    fn a_backward_range_is_empty() {
        let range = key_range(&"b".into(), &"a".into());
        assert!(!range.contains(b"a") && !range.contains(b"b"));
        assert!(key_range(&"b".into(), &"\0".into()).contains(b"\xff"));
    }
}
