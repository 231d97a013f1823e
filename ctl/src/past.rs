//! `--at`: a moment of the cluster's past, as a revision or as a time.

use std::str::FromStr;

use crate::cluster::path::Query;

/// A moment, as the user says it; the server's clock counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A resourceVersion.
    Revision(u64),
    /// How long ago (`5m`), or an RFC 3339 time.
    Time(String),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(revision) = text.parse() {
            return Ok(Self::Revision(revision));
        }
        let is_ago = text.ends_with(['s', 'm', 'h', 'd']) && text.starts_with(|c: char| c.is_ascii_digit());
        if is_ago || text.parse::<jiff::Timestamp>().is_ok() {
            return Ok(Self::Time(text.to_owned()));
        }
        Err("allowed are a revision such as 1234, how long ago such as 5m or 1h30m, or a time such as \
             2026-01-31T12:00:00Z"
            .to_owned())
    }
}

impl Moment {
    /// A query for the state of this moment.
    pub fn on(&self, query: Query) -> Query {
        match self {
            Self::Revision(revision) => query.with("atRevision", revision.to_string()),
            Self::Time(time) => query.with("atTime", time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_revisions_or_times() {
        let asked = |text: &str| text.parse::<Moment>().map(|moment| moment.on(Query::new()).on("/x"));
        assert_eq!(asked("12").as_deref(), Ok("/x?atRevision=12"));
        assert_eq!(asked("1h30m").as_deref(), Ok("/x?atTime=1h30m"));
        assert_eq!(asked("2026-01-31T12:00:00Z").as_deref(), Ok("/x?atTime=2026-01-31T12%3A00%3A00Z"));
        for text in ["", "yesterday", "-5", "m"] {
            assert!(asked(text).is_err(), "{text}");
        }
    }
}
