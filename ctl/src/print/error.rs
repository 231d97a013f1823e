//! The one place that prints why the process ends.

use std::error::Error;
use std::io::Write as _;

use super::BAD;
use crate::failure::Failure;

/// Prints the failure with its causes on one line: `error: what: why: why`.
pub fn print(failure: &Failure) {
    let text = chain(failure);
    // kubectl prints refusals of the server without "error: ", scripts look for that.
    let prefix = if text.starts_with("Error from server") { "" } else { "error: " };
    // Nothing is left to do when even standard error is closed.
    let _ = writeln!(anstream::stderr(), "{}{prefix}{}{text}", BAD.render(), BAD.render_reset());
}

/// The error and its causes, each said once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let words = source.to_string();
        // Libraries like to repeat their cause in their own words.
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_once() {
        let io = std::io::Error::new(std::io::ErrorKind::AddrInUse, "address in use");
        assert_eq!(chain(&Failure::io("listen", io)), "cannot listen: address in use");
    }
}
