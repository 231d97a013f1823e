//! The one place that prints why the process ends.

use std::io::Write as _;

use api::error::chain;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_once() {
        let io = std::io::Error::new(std::io::ErrorKind::AddrInUse, "address in use");
        assert_eq!(chain(&Failure::io("listen", io)), "cannot listen: address in use");
    }
}
