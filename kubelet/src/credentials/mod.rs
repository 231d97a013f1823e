//! The node's own certificates: how it gets the first one by a bootstrap token ([`join`]), asks for further ones
//! ([`request`]), and renews them in time while it runs ([`keeper`]).
//!
//! What always holds: a key is made here and never leaves the machine; files with keys are readable by their owner
//! only and are replaced whole; what is in use is replaced only by what was issued, so a cluster that can't be
//! reached, or refuses, costs nothing until the old certificate ends.

pub mod join;
pub mod keeper;
pub mod life;
mod node_file;
pub mod request;

use std::time::Duration;

use client::config::Switch;

pub use node_file::write_private;

/// What is needed to renew the node's certificates.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// Over the kubeconfig of the node, which is rewritten.
    pub switch: Switch,
    /// Renew certificates that are this old, though they hold longer.
    pub at_least_every: Option<Duration>,
}
