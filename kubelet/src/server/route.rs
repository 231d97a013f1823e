//! What a request asks for.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::runtime::Streams;
use crate::server::logs::LogOptions;

/// A container, or a pod if none is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid, if the path has one.
    pub uid: Option<String>,
    /// The container's name; empty for a pod as a whole.
    pub container: String,
}

/// A text for Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// The agent's own.
    Own,
    /// What the node and its pods use.
    Resource,
    /// The same, as cAdvisor says it.
    Cadvisor,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    /// Whether the agent lives.
    Healthz,
    /// The pods of this node.
    Pods,
    /// What the node and its pods use, as JSON.
    Summary,
    /// The same, as text.
    Metrics(Metrics),
    /// The machine's own logs: a path below their directory.
    MachineLogs(String),
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
    /// A command beside a container, over an upgraded connection.
    Exec(Place, Vec<String>, Streams),
    /// A container's own streams, over an upgraded connection.
    Attach(Place, Streams),
    /// Ports of a pod, over an upgraded connection.
    PortForward(Place, Vec<u16>),
    /// A command beside a container, and what it said.
    Run(Place, Vec<String>),
}

/// Why a request can't be answered: status code and text.
pub type Refusal = (http::StatusCode, String);

fn bad_request(message: impl Into<String>) -> Refusal {
    (http::StatusCode::BAD_REQUEST, message.into())
}

/// Reads path and query.
pub fn route(method: &http::Method, uri: &http::Uri, now: Timestamp) -> Result<Route, Refusal> {
    let segments: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let streams = matches!(segments[0], "exec" | "attach" | "portForward");
    let allowed = match *method {
        http::Method::GET => segments[0] != "run",
        http::Method::POST => streams || segments[0] == "run",
        _ => false,
    };
    if !allowed {
        return Err((http::StatusCode::METHOD_NOT_ALLOWED, "method not allowed".to_owned()));
    }
    if let (true, Some(place)) = (streams || segments[0] == "run", place(&segments)) {
        return of_stream(segments[0], place, uri.query().unwrap_or_default());
    }
    match segments.as_slice() {
        ["healthz"] => Ok(Route::Healthz),
        ["pods" | "runningpods"] => Ok(Route::Pods),
        ["stats", "summary"] => Ok(Route::Summary),
        ["logs", path @ ..] => Ok(Route::MachineLogs(decode_path(&path.join("/")))),
        ["metrics"] => Ok(Route::Metrics(Metrics::Own)),
        ["metrics", "resource"] => Ok(Route::Metrics(Metrics::Resource)),
        ["metrics", "cadvisor"] => Ok(Route::Metrics(Metrics::Cadvisor)),
        ["containerLogs", namespace, pod, container] => Ok(Route::Log {
            namespace: (*namespace).to_owned(),
            pod: (*pod).to_owned(),
            container: (*container).to_owned(),
            options: log_options(uri.query().unwrap_or_default(), now)?,
        }),
        _ => Err((http::StatusCode::NOT_FOUND, "404 page not found".to_owned())),
    }
}

/// The place in `/exec/NAMESPACE/POD[/UID]/CONTAINER` and `/portForward/NAMESPACE/POD[/UID]`.
fn place(segments: &[&str]) -> Option<Place> {
    let named = |namespace: &str, pod: &str, uid: Option<&str>, container: &str| Place {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid: uid.map(str::to_owned),
        container: container.to_owned(),
    };
    match *segments {
        ["portForward", namespace, pod] => Some(named(namespace, pod, None, "")),
        ["portForward", namespace, pod, uid] => Some(named(namespace, pod, Some(uid), "")),
        ["exec" | "attach" | "run", namespace, pod, container] => {
            Some(named(namespace, pod, None, container))
        }
        ["exec" | "attach" | "run", namespace, pod, uid, container] => {
            Some(named(namespace, pod, Some(uid), container))
        }
        _ => None,
    }
}

fn of_stream(kind: &str, place: Place, query: &str) -> Result<Route, Refusal> {
    let values = |wanted: &str| -> Vec<String> {
        pairs(query).filter(|(name, _)| *name == wanted).map(|(_, value)| value).collect()
    };
    let is_set = |name| values(name).first().is_some_and(|value| is_true(value));
    match kind {
        "portForward" => {
            let parse = |text: String| {
                let port = text.parse().ok().filter(|port| *port > 0);
                port.ok_or_else(|| bad_request(format!("unable to parse {text:?} as a port")))
            };
            let given = values("port");
            let ports = given.iter().flat_map(|ports| ports.split(',')).map(str::to_owned).map(parse);
            let ports = ports.collect::<Result<Vec<u16>, _>>()?;
            match ports.len() <= streaming::port_forward::MOST_PORTS {
                true => Ok(Route::PortForward(place, ports)),
                false => Err(bad_request("too many ports")),
            }
        }
        "run" => {
            let command = values("cmd").join(" ").split_ascii_whitespace().map(str::to_owned).collect();
            Ok(Route::Run(place, command))
        }
        _ => {
            let tty = is_set("tty");
            // With a terminal both outputs are one.
            let streams = Streams {
                stdin: is_set("input"),
                stdout: is_set("output"),
                stderr: is_set("error") && !tty,
                tty,
            };
            if !(streams.stdin || streams.stdout || streams.stderr) {
                return Err(bad_request("you must specify at least 1 of stdin, stdout, stderr"));
            }
            match kind {
                "exec" => Ok(Route::Exec(place, values("command"), streams)),
                _ => Ok(Route::Attach(place, streams)),
            }
        }
    }
}

/// The parameters of a query, decoded.
fn pairs(query: &str) -> impl Iterator<Item = (&str, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, value)| (name, decode(value)))
}

fn log_options(query: &str, now: Timestamp) -> Result<LogOptions, Refusal> {
    let mut options = LogOptions::default();
    for (name, value) in pairs(query) {
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

fn decode_path(path: &str) -> String {
    percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned()
}

/// `%3A` and `+`, as they occur in times.
fn decode(value: &str) -> String {
    decode_path(&value.replace('+', " "))
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
        assert_eq!(read("/stats/summary"), Ok(Route::Summary));
        assert_eq!(read("/metrics/resource"), Ok(Route::Metrics(Metrics::Resource)));
        assert_eq!(read("/logs/a%20b/c"), Ok(Route::MachineLogs("a b/c".to_owned())));
        assert_eq!(read("/logs/"), Ok(Route::MachineLogs(String::new())));
        assert_eq!(read("/containerLogs/default/web"), Err(404));
        assert_eq!(read("/run/a/b/c?cmd=ls"), Err(405));
        assert_eq!(read("/containerLogs/a/b/c?tailLines=-1"), Err(400));
    }

    #[test]
    fn streams_name_a_place_and_what_is_wanted() {
        let place = |uid: Option<&str>, container: &str| Place {
            namespace: "shop".to_owned(),
            pod: "web".to_owned(),
            uid: uid.map(str::to_owned),
            container: container.to_owned(),
        };
        let command = vec!["echo".to_owned(), "a b".to_owned()];
        let streams = Streams { stdin: true, stdout: true, stderr: false, tty: true };
        assert_eq!(
            read("/exec/shop/web/main?command=echo&command=a+b&input=1&output=1&error=1&tty=1"),
            Ok(Route::Exec(place(None, "main"), command, streams))
        );
        let streams = Streams { stderr: true, ..Streams::default() };
        assert_eq!(
            read("/attach/shop/web/u1/main?error=1"),
            Ok(Route::Attach(place(Some("u1"), "main"), streams))
        );
        assert_eq!(read("/exec/shop/web/main?command=x"), Err(400));
        assert_eq!(
            read("/portForward/shop/web?port=80,81&port=82"),
            Ok(Route::PortForward(place(None, ""), vec![80, 81, 82]))
        );
        assert_eq!(read("/portForward/shop/web?port=0"), Err(400));
        assert_eq!(read("/exec/shop/web"), Err(404));
    }
}
