//! A container's log as its reader wants it.

mod filter;
mod reader;

use jiff::Timestamp;

pub use reader::LogReader;

/// Which part of a log is wanted, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// The run before.
    pub previous: bool,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// Only this many lines from the end.
    pub tail_lines: Option<u64>,
    /// At most this many bytes.
    pub limit_bytes: Option<u64>,
    /// Only lines of this time or later.
    pub since: Option<Timestamp>,
    /// Only `Stdout` or only `Stderr`.
    pub stream: Option<String>,
}
