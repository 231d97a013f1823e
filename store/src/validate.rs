//! What a request must satisfy whatever the store holds: the same rules for every implementation.
//!
//! A transaction that passes can still fail on the state (a lease that is gone, a compacted revision),
//! but never because of its own shape. This module doesn't know any state.

use bytes::Bytes;

use crate::kv::{KeyRange, KvError, Op, Txn};

/// Most operations and comparisons in one transaction, nested ones included.
pub const MAX_TXN_OPS: usize = 4096;
/// Longest key in bytes.
pub const MAX_KEY_BYTES: usize = 4096;
/// Deepest nesting of transactions.
pub const MAX_TXN_DEPTH: usize = 8;

/// What one branch writes, to find keys that are written twice.
#[derive(Default)]
struct Writes {
    puts: Vec<Bytes>,
    deletes: Vec<KeyRange>,
}

/// Checks the shape of `txn`.
///
/// # Errors
/// [`KvError::Invalid`] if a key is empty or too long, if there are too many steps, or if one branch
/// writes a key twice.
pub fn check_txn(txn: &Txn) -> Result<(), KvError> {
    let mut steps = 0;
    collect(txn, 1, &mut steps).map(drop)
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
            Op::Put { key, .. } => {
                check_key(key)?;
                merge(&mut branch, Writes { puts: vec![key.clone()], deletes: vec![] })?;
            }
            Op::Delete(range) => merge(&mut branch, Writes { puts: vec![], deletes: vec![range.clone()] })?,
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

fn check_disjoint(a: &Writes, b: &Writes) -> Result<(), KvError> {
    let twice = |puts: &[Bytes], other: &Writes| {
        puts.iter()
            .find(|key| other.puts.contains(key) || other.deletes.iter().any(|range| range.contains(key)))
            .cloned()
    };
    match twice(&a.puts, b).or_else(|| twice(&b.puts, a)) {
        Some(key) => {
            Err(KvError::Invalid(format!("key {:?} is written twice", String::from_utf8_lossy(&key))))
        }
        None => Ok(()),
    }
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
            (txn(vec![put("")]), false),
        ];
        for (txn, valid) in cases {
            assert_eq!(check_txn(&txn).is_ok(), valid, "{txn:?}");
        }
    }
}
