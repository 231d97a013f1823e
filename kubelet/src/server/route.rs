//! What a request asks for.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::server::logs::LogOptions;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    /// Whether the agent lives.
    Healthz,
    /// The pods of this node.
    Pods,
    /// A container's log.
    Log {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The container's name.
        container: String,
        /// Which part of it.
        options: LogOptions,
    },
}

/// Why a request can't be answered: status code and text.
pub type Refusal = (http::StatusCode, String);

fn bad_request(message: impl Into<String>) -> Refusal {
    (http::StatusCode::BAD_REQUEST, message.into())
}

/// Reads path and query.
pub fn route(method: &http::Method, uri: &http::Uri, now: Timestamp) -> Result<Route, Refusal> {
    if method != http::Method::GET {
        return Err((http::StatusCode::METHOD_NOT_ALLOWED, "method not allowed".to_owned()));
    }
    let segments: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    match segments.as_slice() {
        ["healthz"] => Ok(Route::Healthz),
        ["pods"] => Ok(Route::Pods),
        ["containerLogs", namespace, pod, container] => Ok(Route::Log {
            namespace: (*namespace).to_owned(),
            pod: (*pod).to_owned(),
            container: (*container).to_owned(),
            options: log_options(uri.query().unwrap_or_default(), now)?,
        }),
        _ => Err((http::StatusCode::NOT_FOUND, "404 page not found".to_owned())),
    }
}

fn log_options(query: &str, now: Timestamp) -> Result<LogOptions, Refusal> {
    let mut options = LogOptions::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value);
        match name {
            "follow" => options.follow = is_true(&value),
            "previous" => options.previous = is_true(&value),
            "timestamps" => options.timestamps = is_true(&value),
            "tailLines" => options.tail_lines = Some(number(name, &value)?),
            "limitBytes" => options.limit_bytes = Some(number(name, &value)?),
            "sinceSeconds" => options.since = Some(seconds_ago(now, number(name, &value)?)),
            "sinceTime" => options.since = Some(time(&value)?),
            "stream" => options.stream = Some(value).filter(|value| value != "All"),
            _ => {}
        }
    }
    Ok(options)
}

/// `%3A` and `+`, as they occur in times.
fn decode(value: &str) -> String {
    let spaced = value.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// As Go's query decoding of booleans: anything but these words is true.
fn is_true(value: &str) -> bool {
    !matches!(value, "false" | "0")
}

fn number(name: &str, value: &str) -> Result<u64, Refusal> {
    value.parse().map_err(|_| bad_request(format!("{name}: {value:?} is not a number of at least 0")))
}

fn seconds_ago(now: Timestamp, seconds: u64) -> Timestamp {
    let ago = SignedDuration::try_from(Duration::from_secs(seconds)).unwrap_or(SignedDuration::MAX);
    now.checked_sub(ago).unwrap_or(Timestamp::MIN)
}

fn time(value: &str) -> Result<Timestamp, Refusal> {
    value.parse().map_err(|_| bad_request(format!("sinceTime: {value:?} is not an RFC 3339 time")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str) -> Result<Route, u16> {
        let uri: http::Uri = uri.parse().expect("uri");
        route(&http::Method::GET, &uri, Timestamp::from_second(1_000).expect("small"))
            .map_err(|(code, _)| code.as_u16())
    }

    fn log(options: LogOptions) -> Result<Route, u16> {
        let (namespace, pod, container) = ("default".to_owned(), "web".to_owned(), "main".to_owned());
        Ok(Route::Log { namespace, pod, container, options })
    }

    #[test]
    fn paths_and_options() {
        let at = |s| Some(Timestamp::from_second(s).expect("small"));
        for (query, options) in [
            ("", LogOptions::default()),
            (
                "?follow=true&previous=true&timestamps=1",
                LogOptions { follow: true, previous: true, timestamps: true, ..LogOptions::default() },
            ),
            (
                "?tailLines=3&limitBytes=10&follow=false",
                LogOptions { tail_lines: Some(3), limit_bytes: Some(10), ..LogOptions::default() },
            ),
            ("?sinceSeconds=60", LogOptions { since: at(940), ..LogOptions::default() }),
            ("?sinceTime=1970-01-01T00%3A00%3A07Z", LogOptions { since: at(7), ..LogOptions::default() }),
        ] {
            assert_eq!(read(&format!("/containerLogs/default/web/main{query}")), log(options), "{query}");
        }
        assert_eq!(read("/healthz"), Ok(Route::Healthz));
        assert_eq!(read("/pods/"), Ok(Route::Pods));
        assert_eq!(read("/containerLogs/default/web"), Err(404));
        assert_eq!(read("/containerLogs/a/b/c?tailLines=-1"), Err(400));
    }
}
