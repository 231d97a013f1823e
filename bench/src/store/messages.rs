//! The few messages of etcd's v3 API that the generator speaks, written down here so that it shares no
//! code with either server. Field numbers are etcd's; fields that don't matter here are left out.

use bytes::Bytes;
use prost::Message;

/// The head of every response.
#[derive(Clone, PartialEq, Message)]
pub struct ResponseHeader {
    /// Who answered.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// The store's revision.
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

/// Sets a key.
#[derive(Clone, PartialEq, Message)]
pub struct PutRequest {
    /// Which.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// To what.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// The answer to a put.
#[derive(Clone, PartialEq, Message)]
pub struct PutResponse {
    /// Its head.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Reads a key, or those up to `range_end`.
#[derive(Clone, PartialEq, Message)]
pub struct RangeRequest {
    /// The first key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The key after the last; empty for `key` alone.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
}

/// The answer to a range. Pairs are counted, not decoded.
#[derive(Clone, PartialEq, Message)]
pub struct RangeResponse {
    /// Its head.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Encoded pairs.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub kvs: Vec<Bytes>,
}

/// Begins a watch; the other requests of a watch stream are not needed here.
#[derive(Clone, PartialEq, Message)]
pub struct WatchRequest {
    /// What to watch.
    #[prost(message, optional, tag = "1")]
    pub create_request: Option<WatchCreateRequest>,
}

/// What to watch.
#[derive(Clone, PartialEq, Message)]
pub struct WatchCreateRequest {
    /// The first key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The key after the last.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
}

/// Events of a watch, or news about it. Events are counted, not decoded.
#[derive(Clone, PartialEq, Message)]
pub struct WatchResponse {
    /// Which watch of the stream.
    #[prost(int64, tag = "2")]
    pub watch_id: i64,
    /// It has begun.
    #[prost(bool, tag = "3")]
    pub created: bool,
    /// It has ended.
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    /// Encoded events.
    #[prost(bytes = "bytes", repeated, tag = "11")]
    pub events: Vec<Bytes>,
}

/// Asks a member about itself.
#[derive(Clone, PartialEq, Message)]
pub struct StatusRequest {}

/// What it says.
#[derive(Clone, PartialEq, Message)]
pub struct StatusResponse {
    /// Its head.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Who leads; 0 if nobody.
    #[prost(uint64, tag = "4")]
    pub leader: u64,
}

/// The key after all keys that begin with `prefix`, which doesn't end with the highest byte.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}
