//! Asks a webhook: one POST of JSON over HTTPS, to a server that its configuration's authority vouches for.
//!
//! Admission and conversion ask in the same way. A webhook is named by a URL or by a Service; the latter is
//! verified by the name `NAME.NAMESPACE.svc`, as upstream does. Without a `caBundle` those vouch for it that this
//! machine believes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::status::Status;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use http::{Request, Uri};
use parking_lot::Mutex;
use rustls::ClientConfig;
use serde_json::Value;

use crate::body::Body;
use crate::reach::services::Services;
use crate::reach::tls::{self, Trust, TrustError};
use crate::reach::{ReachError, Target, Tls, whole};

/// Largest answer in bytes.
const ANSWER_BYTES: usize = 8 << 20;
/// As many bundles are kept parsed; more webhooks than that are parsed anew.
const BUNDLES: usize = 256;

/// Why a webhook gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// It isn't named by a URL that can be dialled.
    #[error("{0}")]
    Address(String),
    /// It was asked in vain.
    #[error("Post {url:?}")]
    Post {
        /// Where.
        url: String,
        /// Why.
        #[source]
        why: PostError,
    },
}

/// What went wrong on the way.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// Its Service leads to nobody.
    #[error("{0}")]
    Service(String),
    /// Its `caBundle` holds no certificate.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// It can't be reached, or isn't who it should be.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// It refused.
    #[error("the server answered {0}")]
    Code(http::StatusCode),
}

/// Where a webhook is, as its `clientConfig` says.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    /// The URL that is told.
    url: String,
    /// The path.
    path: String,
    /// Who its certificate must name.
    name: String,
    /// What stands in Host.
    host: String,
    /// By a Service if it is: namespace, name, port. Else what is dialled.
    place: Result<(String, String, u16), String>,
}

/// Asks webhooks. Clones share what they know.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

struct Inner {
    services: Services,
    /// What was made of each `caBundle`, and with it what its servers said of sessions.
    trusted: Mutex<HashMap<String, Arc<ClientConfig>>>,
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Webhooks")
    }
}

impl Webhooks {
    /// Finds those behind Services here.
    pub fn new(services: Services) -> Self {
        Self(Arc::new(Inner { services, trusted: Mutex::default() }))
    }

    /// Posts `question` to the webhook of a `clientConfig`, and gives the body of its answer.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub async fn post(
        &self,
        config: &Value,
        question: String,
        patience: Duration,
    ) -> Result<Bytes, WebhookError> {
        let address = Address::of(config, patience).map_err(WebhookError::Address)?;
        let exchange = tokio::time::timeout(patience, self.exchange(config, &address, question));
        let answer = exchange.await.unwrap_or(Err(ReachError::Timeout(patience).into()));
        answer.map_err(|why| WebhookError::Post { url: address.url, why })
    }

    async fn exchange(
        &self,
        config: &Value,
        address: &Address,
        question: String,
    ) -> Result<Bytes, PostError> {
        let dialled = match &address.place {
            Err(dialled) => dialled.clone(),
            Ok((namespace, name, port)) => {
                let found = self.0.services.address(namespace, name, *port).await;
                found.map_err(|status: Status| PostError::Service(status.message))?
            }
        };
        let tls = Tls { config: self.trusting(config)?, name: address.name.clone() };
        let mut request = Request::post(&address.path).body(Body::from(question)).expect("a path from a URL");
        let json = HeaderValue::from_static("application/json");
        let host =
            HeaderValue::from_str(&address.host).map_err(|_| ReachError::Name(address.host.clone()))?;
        request.headers_mut().extend([(CONTENT_TYPE, json.clone()), (ACCEPT, json), (HOST, host)]);
        let (answer, _connection) = Target { address: dialled, tls: Some(tls) }.send(request).await?;
        match answer.status() {
            code if code.is_success() => Ok(whole(answer.into_body(), ANSWER_BYTES).await?),
            code => Err(PostError::Code(code)),
        }
    }

    /// Believes only whom the `caBundle` vouches for. Webhooks are asked at each write, so it is read once.
    fn trusting(&self, config: &Value) -> Result<Arc<ClientConfig>, TrustError> {
        let bundle = config["caBundle"].as_str().unwrap_or_default();
        if let Some(kept) = self.0.trusted.lock().get(bundle) {
            return Ok(kept.clone());
        }
        let made = match bundle {
            "" => tls::client(Trust::Machine, None),
            bundle => {
                let pem = STANDARD.decode(bundle).map_err(|error| TrustError::Bundle(error.to_string()))?;
                tls::client(Trust::Bundle(&pem), None)
            }
        }?;
        let mut trusted = self.0.trusted.lock();
        if trusted.len() >= BUNDLES {
            trusted.clear();
        }
        trusted.insert(bundle.to_owned(), made.clone());
        Ok(made)
    }
}

impl Address {
    fn of(config: &Value, patience: Duration) -> Result<Self, String> {
        let query = format!("?timeout={}s", patience.as_secs());
        match config["url"].as_str() {
            Some(url) => Self::of_url(url, &query),
            None => Self::of_service(&config["service"], &query),
        }
    }

    fn of_url(text: &str, query: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
        let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(format!("{text:?} is no https URL"));
        };
        let dialled = format!("{host}:{}", uri.port_u16().unwrap_or(443));
        let (path, name) = (format!("{}{query}", uri.path()), host.trim_matches(['[', ']']).to_owned());
        let url = format!("{}{query}", text.trim_end_matches('/'));
        Ok(Self { url, path, name, host: dialled.clone(), place: Err(dialled) })
    }

    fn of_service(service: &Value, query: &str) -> Result<Self, String> {
        let text = |field: &str| service[field].as_str().unwrap_or_default();
        let port = u16::try_from(service["port"].as_u64().unwrap_or(443));
        let port = port.map_err(|_| format!("{} is no port", service["port"]))?;
        let name = format!("{}.{}.svc", text("name"), text("namespace"));
        let path = format!("/{}{query}", text("path").trim_start_matches('/'));
        path.parse::<Uri>().map_err(|error| format!("{path:?}: {error}"))?;
        let place = Ok((text("namespace").to_owned(), text("name").to_owned(), port));
        let host = format!("{name}:{port}");
        Ok(Self { url: format!("https://{host}{path}"), path, name, host, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_webhook_is_where_its_configuration_says() {
        let address = |config: Value| match Address::of(&config, Duration::from_secs(10)) {
            Ok(Address { url, path, name, place, .. }) => format!("{url} {path} {name} {place:?}"),
            Err(why) => why,
        };
        assert_eq!(
            address(json!({"url": "https://a.example.com/b"})),
            r#"https://a.example.com/b?timeout=10s /b?timeout=10s a.example.com Err("a.example.com:443")"#
        );
        assert_eq!(
            address(json!({"url": "https://[::1]:8443"})),
            r#"https://[::1]:8443?timeout=10s /?timeout=10s ::1 Err("[::1]:8443")"#
        );
        assert_eq!(
            address(json!({"service": {"name": "hook", "namespace": "shop", "path": "/v1/x", "port": 8443}})),
            "https://hook.shop.svc:8443/v1/x?timeout=10s /v1/x?timeout=10s hook.shop.svc Ok((\"shop\", \"hook\", 8443))"
        );
        assert_eq!(address(json!({"url": "http://a"})), r#""http://a" is no https URL"#);
        assert!(address(json!({"url": "https://"})).contains("https://"));
        assert!(
            address(json!({"service": {"name": "a", "path": "a b"}})).starts_with("\"/a b?timeout=10s\"")
        );
    }
}
