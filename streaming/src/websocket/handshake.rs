//! The handshake: what a client asks for, and the answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    UPGRADE,
};
use http::{HeaderMap, Response, StatusCode};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The words of a header that is a list, in all its lines.
fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// Whether the client wants to speak WebSocket.
pub fn is_asked(headers: &HeaderMap) -> bool {
    let has = |name, wanted: &str| words(headers, name).any(|word| word.eq_ignore_ascii_case(wanted));
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade") && headers.contains_key(SEC_WEBSOCKET_KEY)
}

/// The subprotocols that the client would speak, the dearest first.
pub fn offered(headers: &HeaderMap) -> Vec<&str> {
    words(headers, SEC_WEBSOCKET_PROTOCOL).collect()
}

/// The proof that the key was read.
pub fn accept(key: &HeaderValue) -> HeaderValue {
    let text = [key.as_bytes(), GUID.as_bytes()].concat();
    let digest = BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text));
    HeaderValue::from_str(&digest).expect("base64 is plain ASCII")
}

/// The answer that begins the conversation; `None` if the request has no key.
pub fn switching(request: &HeaderMap, protocol: Option<&str>) -> Option<Response<()>> {
    let key = request.get(SEC_WEBSOCKET_KEY)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept(key));
    if let Some(protocol) = protocol.and_then(|name| HeaderValue::from_str(name).ok()) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_that_of_the_rfc() {
        let mut headers = HeaderMap::new();
        assert!(!is_asked(&headers) && switching(&headers, None).is_none());
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("a, b"));
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("c"));
        assert!(is_asked(&headers));
        assert_eq!(offered(&headers), ["a", "b", "c"]);
        let answer = switching(&headers, Some("b")).expect("a key");
        assert_eq!(answer.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer.headers()[SEC_WEBSOCKET_PROTOCOL], "b");
    }
}
