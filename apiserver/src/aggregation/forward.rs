//! Passing a request on to who serves it, and saying for whom.

use api::error::chain;
use api::status::Status;
use http::header::{HOST, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::Backend;
use crate::auth::Identity;
use crate::body::Body;
use crate::handle::ApiServer;
use crate::proxy::forward::{self, Onward};
use crate::reach::{Target, Tls};
use crate::response;
use crate::verbs::Answer;

const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";
/// What may stand in the name of a header as it is; the rest of an attribute's name is encoded.
const TOKEN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Passes a request of `identity` on. What keeps it from being answered is told in text, as upstream does.
///
/// # Errors
/// 400 if the path can't stand in a request.
pub async fn pass_on(
    server: &ApiServer,
    backend: &Backend,
    asked: Onward<'_>,
    identity: &Identity,
) -> Answer {
    if !backend.available {
        return Ok(unavailable("service unavailable"));
    }
    let target = match target(server, backend).await {
        Ok(target) => target,
        Err(refusal) => return Ok(refusal),
    };
    let path = asked.parts.uri.path().to_owned();
    let mut request = asked.request(&path)?;
    forward::tell_origin(&mut request, &path);
    request.headers_mut().remove(HOST);
    identify(request.headers_mut(), identity);
    match forward::exchange(&target, request).await {
        Ok(answer) => Ok(without_redirect(answer?)),
        Err(error) => Ok(unavailable(&format!("error trying to reach service: {}", chain(&error)))),
    }
}

async fn target(server: &ApiServer, backend: &Backend) -> Result<Target, Response<Body>> {
    let config = match &backend.tls {
        Ok(config) => config.clone(),
        Err(why) => return Err(response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n"))),
    };
    let address = server.services.address(&backend.namespace, &backend.service, backend.port).await;
    let lost = |status: Status| {
        tracing::debug!(api_service = backend.name, why = status.message, "nobody is behind it");
        unavailable("service unavailable")
    };
    Ok(Target { address: address.map_err(lost)?, tls: Some(Tls { config, name: backend.server_name() }) })
}

fn unavailable(why: &str) -> Response<Body> {
    response::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

/// Who is behind us must not send our clients, with what they show us, somewhere else.
fn without_redirect(answer: Response<Body>) -> Response<Body> {
    match answer.status().is_redirection() && answer.headers().contains_key(LOCATION) {
        false => answer,
        true => response::text(
            StatusCode::BAD_GATEWAY,
            "the backend attempted to redirect this request, which is not permitted",
        ),
    }
}

/// Says for whom a request is, and nothing else that a client may have said of it.
pub(super) fn identify(headers: &mut HeaderMap, identity: &Identity) {
    let said: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    for name in said {
        headers.remove(name);
    }
    let mut say = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(name, value);
        }
    };
    say(USER, &identity.user);
    if let Some(uid) = &identity.uid {
        say(UID, uid);
    }
    identity.groups.iter().for_each(|group| say(GROUP, group));
    for (key, values) in &identity.extra {
        let name = format!("{EXTRA}{}", percent_encode(key.to_lowercase().as_bytes(), TOKEN));
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        values.iter().for_each(|value| say(name.clone(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cant_say_who_it_is() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("x-remote-user", "root"), ("x-remote-group", "system:masters"), ("accept", "*/*")]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut identity = Identity::new("jane", &["dev", "ops"]);
        identity.extra.insert("example.com/team".to_owned(), vec!["blue".to_owned()]);
        identify(&mut headers, &identity);
        let mut said: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().expect("ASCII")))
            .collect();
        said.sort();
        assert_eq!(
            said,
            [
                "accept=*/*",
                "x-remote-extra-example.com%2fteam=blue",
                "x-remote-group=dev",
                "x-remote-group=ops",
                "x-remote-user=jane",
            ]
        );
    }
}
