//! OIDC discovery: how others check service-account tokens without asking the API server each time.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::Body;
use crate::handle::ApiServer;
use crate::response;

/// Where the keys are.
const KEYS_PATH: &str = "/openid/v1/jwks";

/// Who issues tokens, and where its keys are.
pub fn configuration(server: &ApiServer) -> Response<Body> {
    let accounts = server.authenticator.accounts();
    let issuer = accounts.policy().issuers.first().cloned().unwrap_or_default();
    let keys_at = match server.config.advertise {
        Some(address) => format!("https://{address}{KEYS_PATH}"),
        None => format!("{issuer}{KEYS_PATH}"),
    };
    let mut algorithms: Vec<&str> = accounts.keys().accepted.iter().map(|key| key.algorithm()).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    let document = json!({
        "issuer": issuer,
        "jwks_uri": keys_at,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    });
    cacheable(&document, HeaderValue::from_static("application/json"))
}

/// The keys that tokens are checked with.
pub fn keys(server: &ApiServer) -> Response<Body> {
    let accepted = &server.authenticator.accounts().keys().accepted;
    let keys: Vec<Value> = accepted.iter().map(|key| key.to_jwk()).collect();
    cacheable(&json!({ "keys": keys }), HeaderValue::from_static("application/jwk-set+json"))
}

fn cacheable(document: &Value, content_type: HeaderValue) -> Response<Body> {
    let mut response = response::json_bytes(StatusCode::OK, Bytes::from(document.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}
