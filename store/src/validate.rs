//! What a request must satisfy whatever the store holds: the same rules for every implementation.
//!
//! A transaction that passes can still fail on the state (a lease that is gone, a compacted revision),
//! but never because of its own shape. This module doesn't know any state.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::kv::{KeyRange, KvError, LeaseId, Op, Txn};

/// Most operations and comparisons in one transaction, nested ones included.
pub const MAX_TXN_OPS: usize = 4096;
/// Longest key in bytes.
pub const MAX_KEY_BYTES: usize = 4096;
/// Deepest nesting of transactions.
pub const MAX_TXN_DEPTH: usize = 8;

/// Longest time to live of a lease, in seconds; as in etcd.
pub const MAX_LEASE_TTL: u64 = 9_000_000_000;

/// What one branch writes, to find keys that are written twice.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

/// Checks the shape of `txn`.
///
/// # Errors
/// [`KvError::Invalid`] if a key is empty or too long or if there are too many steps;
/// [`KvError::DuplicateKey`] if one branch writes a key twice.
pub fn check_txn(txn: &Txn) -> Result<(), KvError> {
    let mut steps = 0;
    collect(txn, 1, &mut steps).map(drop)
}

/// Checks what a new lease is to be.
///
/// # Errors
/// [`KvError::Invalid`] if the id is 0 or the time to live isn't in its bounds.
pub fn check_lease(id: Option<LeaseId>, ttl_seconds: u64) -> Result<(), KvError> {
    if id == Some(LeaseId(0)) {
        return Err(KvError::Invalid("a lease can't have the id 0; leave it out to have one chosen".into()));
    }
    if (1..=MAX_LEASE_TTL).contains(&ttl_seconds) {
        return Ok(());
    }
    Err(KvError::Invalid(format!(
        "a lease of {ttl_seconds} seconds, but its time to live must be 1 to {MAX_LEASE_TTL} seconds"
    )))
}

fn collect(txn: &Txn, depth: usize, steps: &mut usize) -> Result<(Writes, Writes), KvError> {
    if depth > MAX_TXN_DEPTH {
        return Err(KvError::Invalid(format!("transactions are nested more than {MAX_TXN_DEPTH} deep")));
    }
    *steps += txn.compare.len() + txn.success.len() + txn.failure.len();
    if *steps > MAX_TXN_OPS {
        return Err(KvError::Invalid(format!("more than {MAX_TXN_OPS} steps in one transaction")));
    }
    let success = collect_branch(&txn.success, depth, steps)?;
    let failure = collect_branch(&txn.failure, depth, steps)?;
    Ok((success, failure))
}

fn collect_branch(ops: &[Op], depth: usize, steps: &mut usize) -> Result<Writes, KvError> {
    let mut branch = Writes::default();
    for op in ops {
        match op {
            Op::Range(_) => {}
            Op::Put { key, .. } | Op::Amend { key, .. } => {
                check_key(key)?;
                merge(&mut branch, Writes { puts: BTreeSet::from([key.clone()]), deletes: vec![] })?;
            }
            Op::Delete(range) => {
                merge(&mut branch, Writes { puts: BTreeSet::new(), deletes: vec![range.clone()] })?;
            }
            Op::Txn(nested) => {
                // Only one branch of the nested transaction runs, so its two branches may overlap
                // each other, but neither may overlap what the outer branch writes.
                let (success, failure) = collect(nested, depth + 1, steps)?;
                check_disjoint(&branch, &success)?;
                check_disjoint(&branch, &failure)?;
                branch.puts.extend(success.puts.into_iter().chain(failure.puts));
                branch.deletes.extend(success.deletes.into_iter().chain(failure.deletes));
            }
        }
    }
    Ok(branch)
}

fn merge(branch: &mut Writes, more: Writes) -> Result<(), KvError> {
    check_disjoint(branch, &more)?;
    branch.puts.extend(more.puts);
    branch.deletes.extend(more.deletes);
    Ok(())
}

/// Deletions may overlap each other: what is gone can't be deleted again.
fn check_disjoint(branch: &Writes, more: &Writes) -> Result<(), KvError> {
    let put_twice = more.puts.iter().find(|key| branch.puts.contains(*key));
    let twice = put_twice
        .or_else(|| deleted(&more.puts, &branch.deletes))
        .or_else(|| deleted(&branch.puts, &more.deletes));
    twice.map_or(Ok(()), |key| Err(KvError::DuplicateKey(key.clone())))
}

fn deleted<'a>(puts: &'a BTreeSet<Bytes>, deletes: &[KeyRange]) -> Option<&'a Bytes> {
    let in_range =
        |range: &KeyRange| puts.range(range.start.clone()..).next().filter(|key| range.contains(key));
    deletes.iter().find_map(in_range)
}

fn check_key(key: &[u8]) -> Result<(), KvError> {
    match key.len() {
        0 => Err(KvError::Invalid("a key must not be empty".into())),
        len if len > MAX_KEY_BYTES => {
            Err(KvError::Invalid(format!("a key of {len} bytes, but the limit is {MAX_KEY_BYTES}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str) -> Op {
        Op::Put { key: Bytes::from_static(key.as_bytes()), value: Bytes::new(), lease: None }
    }

    fn amend(key: &'static str) -> Op {
        Op::Amend { key: Bytes::from_static(key.as_bytes()), value: None, lease: None }
    }

    fn txn(success: Vec<Op>) -> Txn {
        Txn { success, ..Txn::default() }
    }

    #[test]
    fn a_branch_writes_a_key_once() {
        let nested = |failure| Op::Txn(Box::new(Txn { success: vec![put("b")], failure, ..Txn::default() }));
        let cases = [
            (txn(vec![put("a"), put("b")]), true),
            (txn(vec![put("a"), put("a")]), false),
            (txn(vec![put("a"), Op::Delete(KeyRange::prefix("a"))]), false),
            (txn(vec![Op::Delete(KeyRange::prefix("a")), Op::Delete(KeyRange::key("a"))]), true),
            (txn(vec![put("a"), nested(vec![put("b")])]), true),
            (txn(vec![put("c"), nested(vec![put("c")])]), false),
            (txn(vec![put("a"), amend("a")]), false),
            (txn(vec![amend("a"), Op::Delete(KeyRange::prefix("a"))]), false),
            (txn(vec![nested(vec![put("c")]), put("c")]), false),
            (txn(vec![nested(vec![put("c")]), Op::Delete(KeyRange::prefix("b"))]), false),
            (txn(vec![Op::Delete(KeyRange::between("z", "a")), put("b")]), true),
            (txn(vec![put("")]), false),
        ];
        for (txn, valid) in cases {
            assert_eq!(check_txn(&txn).is_ok(), valid, "{txn:?}");
        }
    }
}
