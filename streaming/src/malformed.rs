//! Why a connection can't go on.

/// The peer doesn't speak the protocol that was agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);
