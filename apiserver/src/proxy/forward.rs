//! Passing a request on and its answer back: what becomes of headers, redirects and upgrades.

use std::net::IpAddr;

use api::status::Status;
use http::header::{
    AUTHORIZATION, CONNECTION, EXPECT, HOST, HeaderName, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;

use crate::body::Body;
use crate::peer::Peer;
use crate::reach::{Exchange, ReachError, Target};
use crate::relay::Relay;

/// What concerns one connection only.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// What a page of another origin may do here isn't for whoever is behind us to say.
const CORS: [&str; 6] = [
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-expose-headers",
    "access-control-max-age",
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// A request that goes on.
pub struct Onward<'a> {
    /// Its head.
    pub parts: &'a Parts,
    /// Its body as it comes.
    pub body: Body,
    /// Who sent it.
    pub peer: &'a Peer,
}

/// Marks an answer that goes out as it came: it is neither compressed nor put into frames.
#[derive(Clone, Copy)]
pub struct AsIs;

impl Onward<'_> {
    /// The request as it goes on to `path`, with the query that it had.
    ///
    /// # Errors
    /// 400 if the path can't stand in a request.
    pub fn request(self, path: &str) -> Result<Request<Body>, Status> {
        let query = self.parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let uri: Uri = format!("{path}{query}")
            .parse()
            .map_err(|error| Status::bad_request(format!("path {path:?}: {error}")))?;
        let mut request = Request::new(self.body);
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers(self.parts, self.peer);
        Ok(request)
    }
}

/// Whether another protocol is asked for.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && listed(headers).any(|word| word.eq_ignore_ascii_case("upgrade"))
}

/// The words of `Connection`.
fn listed(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(CONNECTION).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// The host that the client meant.
pub fn host_of(parts: &Parts) -> String {
    let given = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    given.or_else(|| Some(parts.uri.authority()?.as_str())).unwrap_or_default().to_owned()
}

/// What goes on: all but who asks, as whom, and what concerns the client's connection.
fn headers(parts: &Parts, peer: &Peer) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for (name, value) in &parts.headers {
        let of_caller =
            *name == AUTHORIZATION || *name == EXPECT || name.as_str().starts_with("impersonate-");
        if !of_caller {
            passed.append(name, value.clone());
        }
    }
    strip_connection(&mut passed);
    if is_upgrade(&parts.headers) {
        passed.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        passed.extend(parts.headers.get(UPGRADE).map(|protocol| (UPGRADE, protocol.clone())));
    }
    if let Ok(host) = HeaderValue::from_str(&host_of(parts))
        && !host.is_empty()
    {
        passed.insert(HOST, host);
    }
    if let Peer::Tls { addr, .. } = peer {
        append_forwarded(&mut passed, addr.ip());
    }
    passed
}

fn append_forwarded(headers: &mut HeaderMap, client: IpAddr) {
    let before = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<String> = before.map(str::to_owned).chain([client.to_canonical().to_string()]).collect();
    if let Ok(value) = HeaderValue::from_str(&all.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
}

fn strip_connection(headers: &mut HeaderMap) {
    let named: Vec<String> = listed(headers).map(str::to_owned).collect();
    for name in named {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Says under which path the client knows the page.
pub fn tell_origin(request: &mut Request<Body>, path: &str) {
    if let Ok(path) = HeaderValue::from_str(path) {
        request.headers_mut().insert(FORWARDED_URI, path);
    }
}

/// Asks the target; an upgrade becomes a relay, any other answer is passed on as it comes.
///
/// # Errors
/// The outer one if it can't be reached, the inner one if it answers an upgrade with something else.
pub async fn exchange(
    target: &Target,
    request: Request<Body>,
) -> Result<Result<Response<Body>, Status>, ReachError> {
    let upgrade = is_upgrade(request.headers());
    let (answer, connection) = target.send(request).await?;
    let code = answer.status();
    if code == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Ok(Relay::answer(answer, connection)));
    }
    if upgrade && code.as_u16() < 400 {
        let why = format!("invalid upgrade response: status code {}", code.as_u16());
        return Ok(Err(Status::internal(why)));
    }
    Ok(Ok(passed((answer, connection))))
}

fn passed((answer, connection): Exchange) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    strip_connection(&mut head.headers);
    for name in CORS {
        head.headers.remove(name);
    }
    head.extensions = http::Extensions::new();
    head.extensions.insert(AsIs);
    // The closure owns the connection's task, so that it ends with the body.
    let body = body.map_frame(move |frame| {
        let _owned = &connection;
        frame
    });
    Response::from_parts(head, Body::wrap(body))
}

/// Where a redirect of `target` leads to for a client that knows its pages below `prefix`.
pub fn rewrite_location(answer: &mut Response<Body>, target: &str, host: &str, prefix: &str) {
    let Some(given) = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()) else { return };
    if let Ok(rewritten) = HeaderValue::from_str(&rewritten(given, target, host, prefix)) {
        answer.headers_mut().insert(LOCATION, rewritten);
    }
}

fn rewritten(given: &str, target: &str, host: &str, prefix: &str) -> String {
    let (origin, path) = split_origin(given);
    let of = origin.map(|origin| origin.rsplit('/').next().unwrap_or_default());
    if of.is_some_and(|of| of != target && of != host) || !path.starts_with('/') {
        return given.to_owned(); // elsewhere, or relative to the page
    }
    let kept = origin.filter(|_| of == Some(host)).unwrap_or_default();
    match path.starts_with(prefix) {
        true => format!("{kept}{path}"),
        false => format!("{kept}{prefix}{path}"),
    }
}

/// `http://a:80/b` is `http://a:80` and `/b`.
fn split_origin(url: &str) -> (Option<&str>, &str) {
    let Some(start) = url.find("//").filter(|at| !url[..*at].contains(['/', '?', '#'])) else {
        return (None, url);
    };
    let end = url[start + 2..].find('/').map_or(url.len(), |at| start + 2 + at);
    (Some(&url[..end]), &url[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_where_the_client_is() {
        let to = |given| rewritten(given, "10.0.0.7:80", "api:6443", "/api/v1/namespaces/d/pods/w/proxy");
        assert_eq!(to("/login?x=1"), "/api/v1/namespaces/d/pods/w/proxy/login?x=1");
        assert_eq!(to("http://10.0.0.7:80/a/"), "/api/v1/namespaces/d/pods/w/proxy/a/");
        assert_eq!(to("https://api:6443/a"), "https://api:6443/api/v1/namespaces/d/pods/w/proxy/a");
        for same in [
            "next",
            "?page=2",
            "https://elsewhere/a",
            "//elsewhere/a",
            "http://10.0.0.7:80",
            "/api/v1/namespaces/d/pods/w/proxy/b",
        ] {
            assert_eq!(to(same), same);
        }
    }

    fn headers_of(given: &[(&str, &str)]) -> String {
        let mut request = Request::get("https://api:6443/x");
        for (name, value) in given {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let peer = Peer::Tls { certs: Vec::new(), addr: ([10, 0, 0, 9], 1).into() };
        let passed = headers(&parts, &peer);
        let mut lines: Vec<String> =
            passed.iter().map(|(name, value)| format!("{name}={}", value.to_str().expect("ASCII"))).collect();
        lines.sort();
        lines.join(" ")
    }

    #[test]
    fn who_asks_is_nobodys_business_behind() {
        assert_eq!(
            headers_of(&[
                ("authorization", "Bearer x"),
                ("impersonate-user", "jane"),
                ("cookie", "a=b"),
                ("connection", "close, x-hop"),
                ("x-hop", "1"),
                ("te", "trailers"),
                ("x-forwarded-for", "10.0.0.1"),
            ]),
            "cookie=a=b host=api:6443 x-forwarded-for=10.0.0.1, 10.0.0.9"
        );
        assert_eq!(
            headers_of(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("host", "h")]),
            "connection=Upgrade host=h upgrade=websocket x-forwarded-for=10.0.0.9"
        );
    }
}
