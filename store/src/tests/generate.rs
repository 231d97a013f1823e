//! Random requests over few keys, so that they meet.

use bytes::Bytes;
use proptest::prelude::*;

use crate::kv::{
    Compare, CompareOp, Consistency, KeyRange, LeaseId, Op, RangeRequest, Revision, Target, Txn,
};

/// One step of a history, for model and store alike.
#[derive(Clone, Debug)]
pub enum Step {
    Txn(Txn),
    Compact(u64),
    Grant(Option<u64>),
    Revoke(u64),
    Read(RangeRequest),
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof!["[ab]", "[ab]/[xy]", Just("a\0".to_string())].prop_map(Bytes::from)
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(KeyRange::key),
        2 => "[ab]/?".prop_map(KeyRange::prefix),
        1 => (key(), key()).prop_map(|(start, end)| KeyRange::between(start, end)),
        1 => Just(KeyRange::prefix("")),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    "[0-3]{0,2}".prop_map(Bytes::from)
}

fn lease() -> impl Strategy<Value = Option<LeaseId>> {
    prop_oneof![3 => Just(None), 1 => (1..4u64).prop_map(|id| Some(LeaseId(id)))]
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (0..20u64).prop_map(|r| Target::ModRevision(Revision(r))),
        (0..20u64).prop_map(|r| Target::CreateRevision(Revision(r))),
        (0..4u64).prop_map(Target::Version),
        value().prop_map(Target::Value),
        lease().prop_map(Target::Lease),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    let op = prop_oneof![
        Just(CompareOp::Equal),
        Just(CompareOp::NotEqual),
        Just(CompareOp::Greater),
        Just(CompareOp::Less)
    ];
    (range(), op, target()).prop_map(|(range, op, target)| Compare { range, op, target })
}

pub fn read() -> impl Strategy<Value = RangeRequest> {
    (range(), prop::option::of(0..30u64), 0..3usize, any::<(bool, bool, bool)>()).prop_map(
        |(range, revision, limit, (keys_only, count_only, count))| RangeRequest {
            range,
            revision: revision.map(Revision),
            limit,
            keys_only,
            count_only,
            count,
            consistency: Consistency::Serializable,
        },
    )
}

fn ops(depth: u32) -> BoxedStrategy<Vec<Op>> {
    let leaf = prop_oneof![
        5 => (key(), value(), lease()).prop_map(|(key, value, lease)| Op::Put { key, value, lease }),
        2 => (key(), prop::option::of(value()), prop::option::of(lease()))
            .prop_map(|(key, value, lease)| Op::Amend { key, value, lease }),
        2 => range().prop_map(Op::Delete),
        1 => read().prop_map(Op::Range),
    ];
    if depth == 0 {
        return prop::collection::vec(leaf, 0..3).boxed();
    }
    let nested = txn(depth - 1).prop_map(|txn| Op::Txn(Box::new(txn)));
    prop::collection::vec(prop_oneof![6 => leaf, 1 => nested], 0..3).boxed()
}

fn txn(depth: u32) -> BoxedStrategy<Txn> {
    (prop::collection::vec(compare(), 0..2), ops(depth), ops(depth))
        .prop_map(|(compare, success, failure)| Txn { compare, success, failure, ..Txn::default() })
        .boxed()
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => txn(1).prop_map(Step::Txn),
        1 => (0..30u64).prop_map(Step::Compact),
        1 => prop::option::of(1..4u64).prop_map(Step::Grant),
        1 => (1..4u64).prop_map(Step::Revoke),
        4 => read().prop_map(Step::Read),
    ]
}
