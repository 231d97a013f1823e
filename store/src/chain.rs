//! An error with its causes, in words. The store knows none of our other crates, so it has this of its own.

use std::error::Error;

/// The error and all its causes on one line.
pub fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
