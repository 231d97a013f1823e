//! Asks a webhook: one POST of JSON over HTTPS, to a server that the configuration's authority vouches for.
//!
//! A connection serves one question. Conversion webhooks are named by URL only; those of admission, which have a
//! request whose cache knows endpoints, also by Service (`admission/webhook/client.rs`).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Largest answer in bytes.
const ANSWER_BYTES: usize = 8 << 20;

/// Why a webhook gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// It isn't named by a URL that can be dialled.
    #[error("{0}")]
    Address(String),
    /// Its `caBundle` holds no certificate.
    #[error("unable to load root certificates: {0}")]
    Authority(String),
    /// It can't be reached, or isn't who it should be.
    #[error("connect to {0}")]
    Connect(String, #[source] std::io::Error),
    /// It doesn't speak HTTP.
    #[error("speak HTTP")]
    Http(#[from] hyper::Error),
    /// Its answer breaks off or is too large.
    #[error("read the answer: {0}")]
    Body(String),
    /// It refused.
    #[error("the server answered {0}")]
    Code(u16),
    /// Its answer is no JSON.
    #[error("decode the answer")]
    Json(#[from] serde_json::Error),
    /// It took too long.
    #[error("context deadline exceeded (no answer within {0:?})")]
    Timeout(Duration),
}

/// Posts `question` to the webhook of a `clientConfig`, and gives its answer.
///
/// # Errors
/// [`WebhookError`].
pub async fn ask(client: &Value, question: &Value, patience: Duration) -> Result<Value, WebhookError> {
    let answer = tokio::time::timeout(patience, exchange(client, question)).await;
    answer.map_err(|_| WebhookError::Timeout(patience))?
}

async fn exchange(client: &Value, question: &Value) -> Result<Value, WebhookError> {
    let uri = address(client)?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let target = format!("{host}:{}", uri.port_u16().unwrap_or(443));
    let connect = |source| WebhookError::Connect(target.clone(), source);
    let tcp = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await.map_err(connect)?;
    let name = ServerName::try_from(host.clone())
        .map_err(|_| WebhookError::Address(format!("{host:?} can't stand in a certificate")))?;
    let tls = TlsConnector::from(tls(client)?).connect(name, tcp).await.map_err(connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(HOST, target.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .body(Full::new(Bytes::from(question.to_string())))
        .map_err(|error| WebhookError::Address(error.to_string()))?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        if !answer.status().is_success() {
            return Err(WebhookError::Code(answer.status().as_u16()));
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| WebhookError::Body(error.to_string()))?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    };
    // The connection is driven as long as the answer is awaited, and ends with it.
    tokio::select! {
        answer = answer => answer,
        Err(error) = connection => Err(error.into()),
    }
}

fn address(client: &Value) -> Result<Uri, WebhookError> {
    let Some(url) = client["url"].as_str() else {
        let why = "webhooks are reached by URL here, not by Service: set clientConfig.url";
        return Err(WebhookError::Address(why.to_owned()));
    };
    let uri: Uri = url.parse().map_err(|error| WebhookError::Address(format!("{url:?}: {error}")))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => Ok(uri),
        _ => Err(WebhookError::Address(format!("{url:?} is no https URL"))),
    }
}

fn tls(client: &Value) -> Result<Arc<ClientConfig>, WebhookError> {
    let config = trusting(client).map_err(WebhookError::Authority)?;
    let nobody = "clientConfig.caBundle holds no certificate, and no others are trusted";
    config.ok_or_else(|| WebhookError::Authority(nobody.to_owned()))
}

/// Believes only who shows a certificate that the `caBundle` of a `clientConfig` vouches for; `None` if it holds
/// no certificate.
///
/// # Errors
/// Why it can't be read.
pub fn trusting(client: &Value) -> Result<Option<Arc<ClientConfig>>, String> {
    let bundle = client["caBundle"].as_str().unwrap_or_default();
    let pem = STANDARD.decode(bundle).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Ok(None);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}
