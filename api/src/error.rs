//! Errors for people.

use std::error::Error;

/// An error and its causes on one line, each said once: libraries like to repeat their cause in their own words.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Link {
        said: &'static str,
        source: Option<Box<Link>>,
    }

    fn link(said: &'static str, source: Option<Link>) -> Link {
        Link { said, source: source.map(Box::new) }
    }

    #[test]
    fn every_cause_is_said_once() {
        let refused = || link("connection refused", None);
        assert_eq!(chain(&refused()), "connection refused");
        assert_eq!(chain(&link("ask n1", Some(refused()))), "ask n1: connection refused");
        let repeats = link("error trying to connect: connection refused", Some(refused()));
        let text = "ask n1: error trying to connect: connection refused";
        assert_eq!(chain(&link("ask n1", Some(repeats))), text);
    }
}
