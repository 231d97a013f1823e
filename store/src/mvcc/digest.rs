//! Hashes that find divergence and damage; they don't resist an attacker.
//!
//! [`pair`] is the hash of one live pair. The sum of all of them is part of the replicated head and is
//! kept up to date by apply, so it can be compared at any moment: with the other members' sums through
//! the log, and with what really stands on this member's disk by adding it up again.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::family::{Change, Family, Pair, Place};
use super::scrub;
use super::view::{DiskError, ReadView};
use crate::kv::{EventKind, KeyValue, Revision};

/// Each step is a bijection of the state for fixed input and of the input for fixed state, so a change
/// inside one word always shows.
fn absorb(state: u64, word: u64) -> u64 {
    (state.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn absorb_bytes(state: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let state = words.iter().fold(state, |state, word| absorb(state, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    absorb(absorb(state, u64::from_le_bytes(last)), bytes.len() as u64)
}

/// Spreads the last words over all bits (SplitMix64's finaliser).
fn finish(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The hash of words and bytes, in order.
pub fn of(words: &[u64], bytes: &[&[u8]]) -> u64 {
    let state = words.iter().fold(0, |state, word| absorb(state, *word));
    finish(bytes.iter().fold(state, |state, bytes| absorb_bytes(state, bytes)))
}

/// The hash of a live pair with everything that users can see of it.
pub fn pair(kv: &KeyValue) -> u64 {
    let lease = kv.lease.map_or(0, |id| id.0);
    of(&[kv.create_revision.0, kv.mod_revision.0, kv.version, lease], &[&kv.key, &kv.value])
}

/// The hash of a record in `latest`.
///
/// # Errors
/// If it is damaged.
pub fn record(key: &Bytes, record: &Bytes) -> Result<u64, DiskError> {
    let found = Pair::decode(record.clone()).map_err(DiskError::damaged(Family::Latest))?;
    Ok(pair(&found.to_kv(key.clone())))
}

/// The sum over all live pairs that stand on the disk.
///
/// # Errors
/// If the disk can't be read, or a record is damaged.
pub fn live(view: &impl ReadView) -> Result<u64, DiskError> {
    let mut sum = 0_u64;
    view.scan(Family::Latest, &[], None, &mut |key, record| {
        let (key, record) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(record));
        sum = sum.wrapping_add(self::record(&key, &record)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(sum)
}

/// The hash of all history up to `revision`, as far as compaction has left it: what etcd calls HashKV. Equal
/// on members with the same compaction, however far each has cleaned up behind it.
///
/// # Errors
/// If the disk can't be read, or a record is damaged.
pub fn history(view: &impl ReadView, compacted: Revision, revision: Revision) -> Result<u32, DiskError> {
    let gone = superseded(view, compacted)?;
    let end = Place { main: Revision(revision.0 + 1), sub: 0 }.key();
    let mut state = 0;
    view.scan(Family::History, &[], Some(&end), &mut |key, record| {
        let place = Place::decode(key).map_err(DiskError::damaged(Family::History))?;
        if !gone.contains(&place) {
            state = absorb_bytes(absorb_bytes(state, key), record);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((finish(state) >> 32) as u32)
}

/// What compaction has forgotten, but this member hasn't cleaned up yet.
fn superseded(view: &impl ReadView, compacted: Revision) -> Result<BTreeSet<Place>, DiskError> {
    let start = Place { main: Revision(scrub::scrubbed(view)?.0 + 1), sub: 0 }.key();
    let end = Place { main: Revision(compacted.0 + 1), sub: 0 }.key();
    let mut gone = BTreeSet::new();
    view.scan(Family::History, &start, Some(&end), &mut |key, record| {
        let place = Place::decode(key).map_err(DiskError::damaged(Family::History))?;
        let change = Change::decode(Bytes::copy_from_slice(record));
        let change = change.map_err(DiskError::damaged(Family::History))?;
        gone.extend(change.prev);
        gone.extend((change.kind == EventKind::Delete).then_some(place));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_shifted_boundary_shows() {
        let bytes = b"some key and some value, longer than two words";
        let whole = of(&[1, 2], &[&bytes[..]]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(of(&[1, 2], &[&flipped]), whole, "bit {bit}");
        }
        assert_ne!(of(&[1, 2], &[b"ab", b"c"]), of(&[1, 2], &[b"a", b"bc"]));
        assert_ne!(of(&[1, 2], &[b"a\0"]), of(&[1, 2], &[b"a"]));
        assert_ne!(of(&[1, 3], &[&bytes[..]]), whole);
    }
}
