//! The Watch service: any number of watches on one stream.
//!
//! [`requests`] says what a request means, [`encode`] turns events into bytes once for all watchers of the
//! same kind, `stream` is the task that holds the watches of one stream.

mod encode;
mod requests;
mod stream;

use crate::grpc::Call;
use crate::member::Member;
use crate::service;

pub use encode::EncodedEvents;

/// Answers a call.
pub async fn answer(member: &Member, method: &str, call: Call) {
    match method {
        "Watch" => stream::answer(member, call).await,
        _ => service::unknown(call).await,
    }
}
