//! What is said over an upgraded connection: WebSocket, SPDY/3.1, and Kubernetes' channels over both; and whom its
//! TLS believes where names mean nothing.
//!
//! Values only: bytes in, events out, answers appended to a buffer. No socket, no clock, no task. The drivers
//! are the API server (watches and logs for browsers) and the node agent (exec, attach, port-forward).
//!
//! Always holds: what a peer sends can be malformed, never harmful. Nothing here grows with what it sends but
//! up to a constant, data is handed on in the pieces in which it comes, and whatever isn't understood ends the
//! connection with an error that says why.

pub mod anyone;
mod malformed;
pub mod port_forward;
pub mod remote_command;
pub mod spdy;
pub mod websocket;

pub use malformed::Malformed;
