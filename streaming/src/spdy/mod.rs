//! SPDY/3.1, as much of it as Kubernetes uses: streams that the client opens, data both ways, resets and pings.
//! The server's side is for kubectl, the client's for a container runtime's streaming server. There is no flow
//! control, because those clients know none: the connection's own holds a sender back.

mod dictionary;
mod frame;
mod header;
mod session;

pub use header::Headers;
#[cfg(test)]
pub(crate) use session::tests as testing;
pub use session::{Event, Session, StreamId};

/// The name of the protocol in an upgrade.
pub const PROTOCOL: &str = "SPDY/3.1";
