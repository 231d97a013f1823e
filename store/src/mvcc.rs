//! Multi-version storage as functions over values: committed entries and a read view in, a batch of
//! writes and events out.
//!
//! - [`family`]: the key space, one family a kind of record.
//! - [`view`]: what reading needs from a disk, and pending writes laid over it.
//! - [`read`]: ranges at the newest or an older revision, history.
//! - [`journal`]: who wrote what, by revision and by key.
//! - [`state`]: the small replicated state beside the data.
//! - [`apply`]: the one function that changes anything.
//! - [`digest`]: hashes of what is stored; [`corruption`]: comparing them between members.
//! - [`scrub`]: giving compacted history back to the disk.
//!
//! Nothing here knows a clock, a random number, a thread or RocksDB: equal entries make equal bytes.

pub mod apply;
pub mod corruption;
pub mod digest;
pub mod family;
pub mod journal;
pub mod read;
pub mod scrub;
pub mod state;
pub mod txn;
pub mod view;
