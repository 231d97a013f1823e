//! Documents that clients keep: answered with a tag of their content, or "304 Not Modified".

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::body::Body;

/// The SHA-256 of a document in upper-case hexadecimal, as upstream's tags and hash parameters are.
pub fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The document, or 304 if the request's `If-None-Match` names it.
pub fn document(request: &HeaderMap, content_type: &'static str, content: Bytes) -> Response<Body> {
    tagged(request, content_type, &hash(&content), || content)
}

/// The same of a document that is known by a tag before it is made.
pub fn tagged(
    request: &HeaderMap,
    content_type: &'static str,
    tag: &str,
    make: impl FnOnce() -> Bytes,
) -> Response<Body> {
    let tag = format!("\"{tag}\"");
    let known = request.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value
            .split(',')
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|given| given == tag || given == "*")
    });
    let (status, body) = match known {
        true => (StatusCode::NOT_MODIFIED, Body::empty()),
        false => (StatusCode::OK, Body::from(make())),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::from_str(&tag).expect("a quoted hexadecimal text is a header value"));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if !known {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(if_none_match: Option<&str>) -> Response<Body> {
        let mut headers = HeaderMap::new();
        if let Some(value) = if_none_match {
            headers.insert(IF_NONE_MATCH, value.parse().expect("header"));
        }
        document(&headers, "application/json", Bytes::from_static(b"{}"))
    }

    #[test]
    fn a_known_document_is_not_sent_again() {
        let first = ask(None);
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[ETAG].to_str().expect("text").to_owned();
        let again = ask(Some(&tag));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.body().as_bytes(), Some(&b""[..]));
        assert_eq!(ask(Some(&format!("\"x\", W/{tag}"))).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(ask(Some("\"x\"")).status(), StatusCode::OK);
    }
}
