//! WebSocket (RFC 6455), the server's side.

mod channels;
mod frame;
mod handshake;

pub use channels::{Channels, Event as ChannelEvent, Subprotocol};
#[cfg(test)]
pub(crate) use frame::masked;
pub use frame::{Decoder, Event, close, message, pong};
pub use handshake::{accept, is_asked, offered, switching};
