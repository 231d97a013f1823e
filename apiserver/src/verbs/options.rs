//! The options of lists and watches, and what upstream allows together.

use api::status::{FieldError, Status};
use store::kv::Revision;

use crate::query::Query;

/// Which state a list or the begin of a watch shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Every write acknowledged before.
    Newest,
    /// Whatever is at hand.
    Any,
    /// This revision or a newer one.
    NotOlderThan(Revision),
    /// Exactly this revision.
    Exact(Revision),
}

const MATCH: &str = "resourceVersionMatch";

/// Reads `resourceVersion` and `resourceVersionMatch` of a list.
///
/// # Errors
/// 422 for combinations that mean nothing, 400 for a resourceVersion that is none.
pub fn list_version(query: &Query) -> Result<Version, Status> {
    let version = query.get("resourceVersion");
    let matching = query.get(MATCH);
    refuse(list_errors(query, version, matching))?;
    Ok(match (version, matching) {
        (None, _) => Version::Newest,
        (Some("0"), _) => Version::Any,
        (Some(text), Some("Exact")) => Version::Exact(parse_revision(text)?),
        // As it was before there was resourceVersionMatch: a page is of exactly the version asked for.
        (Some(text), None) if is_limited(query) => Version::Exact(parse_revision(text)?),
        (Some(text), _) => Version::NotOlderThan(parse_revision(text)?),
    })
}

fn is_limited(query: &Query) -> bool {
    query.get("limit").and_then(|limit| limit.parse::<i64>().ok()).is_some_and(|limit| limit > 0)
}

fn list_errors(query: &Query, version: Option<&str>, matching: Option<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(matching) = matching {
        if version.is_none() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(FieldError::forbidden(MATCH, why));
        }
        if query.get("continue").is_some() {
            errors.push(FieldError::forbidden(
                MATCH,
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            errors.push(FieldError::not_supported(MATCH, matching, &["Exact", "NotOlderThan", ""]));
        }
        if matching == "Exact" && version == Some("0") {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(MATCH, why));
        }
    }
    if query.tristate("sendInitialEvents").is_some() {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    errors
}

/// How a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchStart {
    /// From which state.
    pub version: Version,
    /// Whether that state is sent first, as ADDED events.
    pub initial_events: bool,
    /// Whether a bookmark tells that all of it was sent.
    pub initial_bookmark: bool,
}

/// Reads the options that say how a watch begins.
///
/// # Errors
/// 422 for combinations that mean nothing, 400 for a resourceVersion that is none.
pub fn watch_start(query: &Query) -> Result<WatchStart, Status> {
    let send = query.tristate("sendInitialEvents");
    refuse(watch_errors(query, send))?;
    let version = match query.get("resourceVersion") {
        None => Version::Newest,
        Some("0") => Version::Any,
        Some(text) => Version::NotOlderThan(parse_revision(text)?),
    };
    // Without a revision a watch has always begun with the present state.
    let initial_events = send.unwrap_or(!matches!(version, Version::NotOlderThan(_)));
    let initial_bookmark = send == Some(true) && query.flag("allowWatchBookmarks");
    Ok(WatchStart { version, initial_events, initial_bookmark })
}

fn watch_errors(query: &Query, send: Option<bool>) -> Vec<FieldError> {
    let matching = query.get(MATCH);
    let mut errors = Vec::new();
    if send.is_some() && matching != Some("NotOlderThan") {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(MATCH, why));
    }
    if let Some(matching) = matching {
        if send.is_none() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(MATCH, why));
        }
        if matching != "NotOlderThan" {
            errors.push(FieldError::not_supported(MATCH, matching, &["NotOlderThan"]));
        }
        if query.get("continue").is_some() {
            errors.push(FieldError::forbidden(
                MATCH,
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
    }
    errors
}

fn refuse(errors: Vec<FieldError>) -> Result<(), Status> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid_options("ListOptions", "meta.k8s.io", errors)),
    }
}

/// A resourceVersion becomes a revision here and nowhere else.
///
/// # Errors
/// 400 if it isn't one of ours.
pub fn parse_revision(text: &str) -> Result<Revision, Status> {
    let number = text.parse().map_err(|_| {
        Status::bad_request(format!(
            "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })?;
    Ok(Revision(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let cases = [
            ("", "Newest"),
            ("resourceVersion=0", "Any"),
            ("resourceVersion=7", "NotOlderThan(Revision(7))"),
            ("resourceVersion=7&resourceVersionMatch=Exact", "Exact(Revision(7))"),
            ("resourceVersion=7&limit=5", "Exact(Revision(7))"),
            ("resourceVersion=7&limit=5&resourceVersionMatch=NotOlderThan", "NotOlderThan(Revision(7))"),
            ("resourceVersion=0&limit=5", "Any"),
            ("resourceVersion=x", "400"),
            ("resourceVersionMatch=Exact", "422"),
            ("resourceVersion=0&resourceVersionMatch=Exact", "422"),
            ("resourceVersion=1&resourceVersionMatch=Newer", "422"),
            ("sendInitialEvents=true", "422"),
        ];
        for (query, expected) in cases {
            let got = list_version(&Query::parse(query));
            let text = got.map_or_else(|status| status.code().to_string(), |version| format!("{version:?}"));
            assert_eq!(text, expected, "{query}");
        }
    }

    #[test]
    fn watches() {
        let list = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1";
        let cases = [
            ("", "Newest true false"),
            ("resourceVersion=0", "Any true false"),
            ("resourceVersion=7", "NotOlderThan(Revision(7)) false false"),
            (list, "Newest true true"),
            ("sendInitialEvents=true", "422"),
            ("resourceVersionMatch=NotOlderThan&resourceVersion=1", "422"),
        ];
        for (query, expected) in cases {
            let text = match watch_start(&Query::parse(query)) {
                Ok(start) => {
                    format!("{:?} {} {}", start.version, start.initial_events, start.initial_bookmark)
                }
                Err(status) => status.code().to_string(),
            };
            assert_eq!(text, expected, "{query}");
        }
    }
}
