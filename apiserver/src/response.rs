//! HTTP responses from values.

use api::status::Status;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::Value;

use crate::body::Body;
use crate::error::Failure;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// JSON that is encoded already.
pub fn json_bytes(code: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    with_body(code, JSON, Body::from(bytes.into()))
}

/// A JSON value.
pub fn json(code: StatusCode, value: &Value) -> Response<Body> {
    json_bytes(code, value.to_string().into_bytes())
}

/// Text for people and probes.
pub fn text(code: StatusCode, text: impl Into<Body>) -> Response<Body> {
    with_body(code, HeaderValue::from_static("text/plain; charset=utf-8"), text.into())
}

/// Frames as they come.
pub fn stream(body: Body) -> Response<Body> {
    with_body(StatusCode::OK, JSON, body)
}

/// A failure, as a Status with its code.
pub fn failure(failure: Failure) -> Response<Body> {
    status(&failure.into_status())
}

/// A Status with its code, and the header that tells when to try again.
pub fn status(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, &status.to_json());
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn with_body(code: StatusCode, content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
