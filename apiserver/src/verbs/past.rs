//! Reads of the past: `?atRevision=N` and `?atTime=WHEN` on any get or list show the state of that moment.
//!
//! Ours, beyond upstream; a stock client never sends them. The moment is an RFC 3339 time, or how long ago
//! it was by the server's clock (`5m`, `1h30m`). How far back one can look is up to the store's retention.

use std::time::Duration;

use api::status::Status;
use jiff::Timestamp;
use store::kv::{KvError, Revision};

use crate::error::{Failure, Outcome};
use crate::query::Query;
use crate::storage::key::Key;
use crate::storage::object::Stored;
use crate::verbs::Call;

/// What a request says about the moment that it wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Revision(Revision),
    /// Milliseconds since 1970.
    Time(u64),
}

/// The revision of the past that the request asks for, if it does.
///
/// # Errors
/// 400 if it can't be understood, 410 if it is no longer kept.
pub async fn asked(call: &Call<'_>) -> Outcome<Option<Revision>> {
    match moment(&call.info.query, Timestamp::now())? {
        None => Ok(None),
        Some(Moment::Revision(revision)) => {
            call.storage().reach(revision).await?;
            Ok(Some(revision))
        }
        Some(Moment::Time(wall_ms)) => at_time(call, wall_ms).await.map(Some),
    }
}

/// The object in the path as it was.
///
/// # Errors
/// 404 if it didn't exist then, 410 if that is no longer kept.
pub async fn read(call: &Call<'_>, at: Revision) -> Outcome<Stored> {
    let key = Key::Object(call.resource, call.namespace(), call.name()).to_bytes();
    let found = call.storage().read_at(&key, at).await.map_err(forgotten)?;
    found.ok_or_else(|| {
        let status = call.not_found(call.name());
        let message = format!("{} at revision {at}", status.message);
        status.with_message(message).into()
    })
}

/// Says of a compacted revision what is kept.
pub fn forgotten(failure: Failure) -> Failure {
    match failure {
        Failure::Store(KvError::Compacted { requested, compacted }) => Status::expired(format!(
            "revision {requested} is no longer kept: the oldest that can be read is {compacted}"
        ))
        .into(),
        other => other,
    }
}

/// Watches and writes are of the present.
///
/// # Errors
/// 400 if one names a moment of the past.
pub fn refuse(query: &Query) -> Result<(), Status> {
    match ["atRevision", "atTime"].into_iter().find(|name| query.get(name).is_some()) {
        Some(name) => {
            Err(Status::bad_request(format!("{name} is for get and list: only reads show the past")))
        }
        None => Ok(()),
    }
}

async fn at_time(call: &Call<'_>, wall_ms: u64) -> Outcome<Revision> {
    let journal = call.storage().journal().ok_or_else(|| {
        Status::bad_request("atTime: the store keeps no times of revisions; ask with atRevision")
    })?;
    let found = journal.at_time(wall_ms).await?;
    Ok(found.ok_or_else(|| {
        let time =
            Timestamp::from_millisecond(i64::try_from(wall_ms).unwrap_or(i64::MAX)).unwrap_or_default();
        Status::expired(format!("the state of {time} is no longer kept: ask for a later time"))
    })?)
}

fn moment(query: &Query, now: Timestamp) -> Result<Option<Moment>, Status> {
    match (query.get("atRevision"), query.get("atTime")) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Status::bad_request("atRevision and atTime exclude each other")),
        _ if query.get("resourceVersion").is_some() => {
            Err(Status::bad_request("resourceVersion is not allowed with atRevision or atTime"))
        }
        (Some(text), None) => {
            let bad =
                || Status::bad_request(format!("atRevision: invalid value {text:?}: it must be a number"));
            Ok(Some(Moment::Revision(Revision(text.parse().map_err(|_| bad())?))))
        }
        (None, Some(text)) => time(text, now).map(|time| Some(Moment::Time(time))),
    }
}

fn time(text: &str, now: Timestamp) -> Result<u64, Status> {
    let time = match ago(text) {
        Some(ago) => now.checked_sub(ago).ok(),
        None => text.parse::<Timestamp>().ok(),
    };
    time.and_then(|time| u64::try_from(time.as_millisecond()).ok()).ok_or_else(|| {
        Status::bad_request(format!(
            "atTime: invalid value {text:?}: it must be an RFC 3339 time, or how long ago, such as \"5m\""
        ))
    })
}

/// A Go duration of whole numbers: `90s`, `1h30m`, `2d`.
fn ago(text: &str) -> Option<Duration> {
    let (mut seconds, mut number) = (0u64, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        number.clear();
    }
    (number.is_empty() && !text.is_empty()).then_some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_revisions_times_or_durations() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().expect("a time");
        let at = |text: &str| {
            let time: Timestamp = text.parse().expect("a time");
            Ok(Some(Moment::Time(u64::try_from(time.as_millisecond()).expect("after 1970"))))
        };
        let cases = [
            ("", Ok(None)),
            ("atRevision=7", Ok(Some(Moment::Revision(Revision(7))))),
            ("atTime=5m", at("2026-01-01T00:05:00Z")),
            ("atTime=1d1h10m30s", at("2025-12-30T22:59:30Z")),
            ("atTime=2026-01-01T00:00:01%2B00:00", at("2026-01-01T00:00:01Z")),
            ("atRevision=-1", Err(400)),
            ("atRevision=7&atTime=5m", Err(400)),
            ("atRevision=7&resourceVersion=5", Err(400)),
            ("atTime=5", Err(400)),
            ("atTime=m", Err(400)),
            ("atTime=99999999999999999999d", Err(400)),
            ("atTime=9999999d", Err(400)),
        ];
        for (query, expected) in cases {
            assert_eq!(
                moment(&Query::parse(query), now).map_err(|status| status.code()),
                expected,
                "{query}"
            );
        }
    }
}
