//! gRPC on HTTP/2 frames, as far as etcd's API needs it: length-prefixed messages, and the outcome of a
//! call in its trailers. No compression; deadlines are the client's own, who resets the stream.

mod call;
mod messages;
mod sink;
mod status;

pub use call::{Call, Metadata};
pub use messages::{Messages, PREFIX, encode};
pub use sink::Sink;
pub use status::{Code, Status};
