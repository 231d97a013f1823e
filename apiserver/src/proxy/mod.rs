//! The `proxy` subresources of pods, Services and nodes: a request goes on to what listens there, and its answer
//! back, as bytes that nobody here reads.
//!
//! Who may is decided as for any subresource, by the request's verb. Where it goes is read from objects
//! ([`locate`]); what becomes of its headers is upstream's ([`forward`]).

pub mod forward;
mod locate;

use std::sync::Arc;

use api::error::chain;
use api::status::Status;
use http::header::LOCATION;
use http::{HeaderValue, Method, Response, StatusCode};
use rustls::ClientConfig;

use crate::admission;
use crate::body::Body;
use crate::reach::tls::{self, Trust, TrustError};
use crate::registry::resource::SubresourceAction;
use crate::request::RequestInfo;
use crate::verbs::{Answer, Call};
use forward::Onward;

/// How pods and Services are spoken to, and where nobody may be sent.
#[derive(Clone)]
pub struct Proxy {
    /// They have no names of which a certificate could tell; so it is upstream, too.
    tls: Arc<ClientConfig>,
    /// Whether addresses of the loopback are ordinary ones: all of the cluster is on one machine.
    loopback: bool,
}

impl Proxy {
    /// Goes to addresses of the loopback only if `loopback` says so.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn new(loopback: bool) -> Result<Self, TrustError> {
        Ok(Self { tls: tls::client(Trust::Anyone, None)?, loopback })
    }
}

/// Whether a request asks for a `proxy` subresource that there is.
pub fn is_asked(info: &RequestInfo) -> bool {
    info.subresource_row().is_some_and(|row| row.action == SubresourceAction::Proxy)
}

/// Passes a request on.
///
/// # Errors
/// 400 if it may not go there, 404 without the object, 503 if nobody is there.
pub async fn serve(call: Call<'_>, onward: Onward<'_>) -> Answer {
    if let Some(row) = call.info.subresource_row() {
        admission::connect(&call, &row.kind).await?;
    }
    let segments = if call.resource.namespaced { 7 } else { 5 };
    let parts = onward.parts;
    let path = parts.uri.path();
    let inside = after_segments(path, segments);
    let bare = inside.is_empty() && matches!(parts.method, Method::GET | Method::HEAD);
    let target = locate::target(&call).await?;
    if bare && !forward::is_upgrade(&parts.headers) {
        return Ok(moved(path, parts.uri.query()));
    }
    let prefix = path[..path.len() - inside.len()].to_owned();
    let inside = if inside.is_empty() { "/" } else { inside }.to_owned();
    let mut request = onward.request(&inside)?;
    forward::tell_origin(&mut request, path);
    let exchange = forward::exchange(&target, request).await;
    let unreachable =
        |error| Status::unavailable(format!("error trying to reach service: {}", chain(&error)));
    let mut answer = exchange.map_err(unreachable)??;
    forward::rewrite_location(&mut answer, &target.address, &forward::host_of(parts), &prefix);
    Ok(answer)
}

/// What stands behind so many segments, with its slash; empty ones don't count.
fn after_segments(path: &str, count: usize) -> &str {
    let mut left = count;
    let mut previous = b'/';
    for (at, byte) in path.bytes().enumerate() {
        if byte == b'/' && previous != b'/' {
            left -= 1;
            if left == 0 {
                return &path[at..];
            }
        }
        previous = byte;
    }
    ""
}

/// A page's relative links need the slash.
fn moved(path: &str, query: Option<&str>) -> Response<Body> {
    let location = format!("{path}/{}", query.map(|query| format!("?{query}")).unwrap_or_default());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_is_left_as_it_was_written() {
        for (path, inside) in [
            ("/api/v1/nodes/n1/proxy", ""),
            ("/api/v1/nodes/n1/proxy/", "/"),
            ("/api/v1/nodes/n1/proxy/a%2Fb//c/", "/a%2Fb//c/"),
            ("//api/v1//nodes/n1/proxy/x", "/x"),
            ("/api/v1/nodes", ""),
        ] {
            assert_eq!(after_segments(path, 5), inside, "{path}");
        }
    }
}
