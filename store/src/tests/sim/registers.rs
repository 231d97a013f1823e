//! What an operation says about single keys, for the search for an order. Written values are unique.

use bytes::Bytes;

use crate::kv::{KeyRange, KeyValue, Op, OpResponse, RangeRequest, Txn, TxnResponse};
use crate::proof::linearizable::Operation;

/// The keys of which operations are put in order: those that no lease can delete.
pub const MAX_KEYS: u64 = 6;

/// A key, what was seen of it and what was left there; 0 is "not there".
pub struct Seen {
    pub key: Bytes,
    pub found: Option<u64>,
    pub left: Option<u64>,
}

pub fn key(number: u64) -> Bytes {
    Bytes::from(format!("k{number}"))
}

pub fn value(number: u64) -> Bytes {
    Bytes::from(format!("v{number}"))
}

fn number(value: &Bytes) -> u64 {
    let digits = std::str::from_utf8(value).ok().and_then(|text| text.strip_prefix('v')?.parse().ok());
    digits.expect("clients write values made by `value`")
}

fn keys_in(range: &KeyRange) -> impl Iterator<Item = Bytes> {
    (0..MAX_KEYS).map(key).filter(|key| range.contains(key))
}

fn is_ordered(key: &Bytes) -> bool {
    key.starts_with(b"k")
}

/// What a transaction says; without a response only what it may have done.
pub fn of_txn(txn: &Txn, response: Option<&TxnResponse>) -> Vec<Seen> {
    match response {
        None => txn.success.iter().chain(&txn.failure).flat_map(maybe).collect(),
        Some(response) => {
            let ops = if response.succeeded { &txn.success } else { &txn.failure };
            let steps = ops.iter().zip(&response.responses);
            let writes = ops.iter().any(|op| !matches!(op, Op::Range(_)));
            steps.flat_map(|(op, response)| certain(op, response, writes)).collect()
        }
    }
}

fn maybe(op: &Op) -> Vec<Seen> {
    match op {
        Op::Put { key, value, .. } | Op::Amend { key, value: Some(value), .. } if is_ordered(key) => {
            vec![Seen { key: key.clone(), found: None, left: Some(number(value)) }]
        }
        Op::Delete(range) => keys_in(range).map(|key| Seen { key, found: None, left: Some(0) }).collect(),
        _ => vec![],
    }
}

fn certain(op: &Op, response: &OpResponse, writes: bool) -> Vec<Seen> {
    let found = |kv: Option<&KeyValue>| Some(kv.map_or(0, |kv| number(&kv.value)));
    match (op, response) {
        (Op::Put { key, value, .. }, OpResponse::Put(prev)) if is_ordered(key) => {
            vec![Seen { key: key.clone(), found: found(prev.as_ref()), left: Some(number(value)) }]
        }
        (Op::Amend { key, value, .. }, OpResponse::Put(prev)) if is_ordered(key) => {
            vec![Seen { key: key.clone(), found: found(prev.as_ref()), left: value.as_ref().map(number) }]
        }
        (Op::Delete(range), OpResponse::Delete(gone)) => {
            let seen = |key: Bytes| {
                let prev = gone.iter().find(|kv| kv.key == key);
                Seen { key, found: found(prev), left: Some(0) }
            };
            keys_in(range).map(seen).collect()
        }
        // Among writes a read sees what they left; the replay judges that.
        (Op::Range(request), OpResponse::Range(range)) if !writes && request.revision.is_none() => {
            of_read(request, &range.kvs)
        }
        _ => vec![],
    }
}

/// What a read of the newest state says.
pub fn of_read(request: &RangeRequest, kvs: &[KeyValue]) -> Vec<Seen> {
    if request.limit > 0 || request.count_only || request.keys_only {
        return vec![];
    }
    let seen = |key: Bytes| {
        let found = kvs.iter().find(|kv| kv.key == key).map_or(0, |kv| number(&kv.value));
        Seen { key, found: Some(found), left: None }
    };
    keys_in(&request.range).map(seen).collect()
}

/// Without writes of unknown outcome that nobody ever saw: they may as well not have happened.
pub fn relevant(operations: &[Operation<u64>]) -> Vec<Operation<u64>> {
    let seen = |value: u64| value == 0 || operations.iter().any(|operation| operation.found == Some(value));
    let matters = |operation: &&Operation<u64>| operation.ended.is_some() || operation.left.is_some_and(seen);
    operations.iter().filter(matters).cloned().collect()
}
