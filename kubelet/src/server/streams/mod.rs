//! Streams between a client and a process or a port of a pod: exec, attach, port-forward.
//!
//! The protocols are values of the `streaming` crate; here they are driven. Always holds: one task owns a
//! conversation from its handshake to its end, with everything that it has started; a client that says and
//! hears nothing for four hours is cut off, as upstream does.

mod port_forward;
mod remote_command;
mod upgrade;

use std::time::Duration;

pub use port_forward::{Dial, forward};
pub use remote_command::{Doing, converse};
pub use upgrade::{Agreed, for_command, for_ports};

/// The longest silence in a conversation.
const IDLE: Duration = Duration::from_secs(4 * 60 * 60);
/// How long a client may take to open the streams it needs.
const STREAM_CREATION: Duration = Duration::from_secs(30);
