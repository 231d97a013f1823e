//! A provider's keys: a file that somebody else keeps new, or what the provider itself publishes.
//!
//! A provider is asked when a token names a key that isn't known, by one at a time and not more often than once in
//! [`PAUSE`], however many such tokens come. What it says is believed over TLS only.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::error::chain;
use http::header::{ACCEPT, HOST, HeaderValue};
use http::{Request, Uri};
use parking_lot::RwLock;
use rustls::ClientConfig;
use serde_json::Value;
use tokio::time::Instant;

use crate::auth::jwt::{Token, VerifyingKey};
use crate::body::Body;
use crate::reach::tls::{self, Trust, TrustError};
use crate::reach::{ReachError, Target, Tls, whole};

/// The time between two questions to a provider.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a provider may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest document that is read, in bytes.
const DOCUMENT: usize = 1 << 20;

/// Where a provider's keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A JSON Web Key Set that something else keeps new.
    File(PathBuf),
    /// The provider, at its issuer's URL; whom to believe there, or whom this machine believes.
    Issuer(Option<PathBuf>),
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// A file can't be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file holds no keys.
    #[error("{} holds no JSON Web Key Set with an RSA, P-256 or P-384 key: get it from the provider's jwks_uri", .0.display())]
    NoKeys(PathBuf),
    /// Nobody can vouch for the provider.
    #[error("believe the provider")]
    Trust(#[from] TrustError),
    /// The provider can't be asked there.
    #[error("{0:?} is no https URL")]
    Url(String),
    /// The provider gave no answer.
    #[error("Get {url:?}")]
    Get {
        /// What was asked for.
        url: String,
        /// Why not.
        #[source]
        why: ReachError,
    },
    /// The provider gave another answer.
    #[error("Get {0:?}: the server answered {1}")]
    Code(String, http::StatusCode),
    /// The provider is another one.
    #[error("oidc: issuer did not match the issuer returned by provider, expected {expected:?} got {got:?}")]
    Issuer {
        /// Who was asked.
        expected: String,
        /// Who it says to be.
        got: String,
    },
    /// The provider publishes no keys.
    #[error("{0:?} holds no RSA, P-256 or P-384 key")]
    Empty(String),
}

/// The keys, as new as tokens need them.
pub struct Keys {
    known: RwLock<Arc<Vec<VerifyingKey>>>,
    origin: Origin,
    /// When they were looked for last; held while they are.
    looked: tokio::sync::Mutex<Option<Instant>>,
}

enum Origin {
    File(PathBuf),
    Provider { issuer: String, tls: Arc<ClientConfig> },
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the keys of a file. A provider is asked with the first token, so that it needn't live before we do.
    ///
    /// # Errors
    /// There are none, or nobody can be asked.
    pub fn load(source: &KeySource, issuer: &str) -> Result<Self, KeySetError> {
        let (known, origin) = match source {
            KeySource::File(path) => (of_file(path)?, Origin::File(path.clone())),
            KeySource::Issuer(authority) => {
                place(issuer)?;
                let tls = match authority {
                    Some(path) => tls::client(Trust::Bundle(&read(path)?), None)?,
                    None => tls::client(Trust::Machine, None)?,
                };
                (Vec::new(), Origin::Provider { issuer: issuer.to_owned(), tls })
            }
        };
        Ok(Self { known: RwLock::new(Arc::new(known)), origin, looked: tokio::sync::Mutex::default() })
    }

    /// The keys that may verify the token, looked for anew if it names one that isn't known.
    pub async fn for_token(&self, token: &Token<'_>) -> Arc<Vec<VerifyingKey>> {
        let id = token.key_id();
        let has = |keys: &[VerifyingKey]| {
            !keys.is_empty() && id.is_none_or(|id| keys.iter().any(|key| key.id == id))
        };
        let known = self.known.read().clone();
        if has(known.as_slice()) {
            return known;
        }
        let mut looked = self.looked.lock().await;
        // Whoever held the lock may have found it.
        let known = self.known.read().clone();
        let asked = matches!(self.origin, Origin::Provider { .. });
        if has(known.as_slice()) || asked && looked.is_some_and(|at| at.elapsed() < PAUSE) {
            return known;
        }
        let found = self.look().await;
        *looked = Some(Instant::now());
        match found {
            Ok(fresh) => *self.known.write() = Arc::new(fresh),
            Err(error) => tracing::warn!(error = chain(&error), "the provider's keys can't be read"),
        }
        self.known.read().clone()
    }

    async fn look(&self) -> Result<Vec<VerifyingKey>, KeySetError> {
        match &self.origin {
            Origin::File(path) => of_file(path),
            Origin::Provider { issuer, tls } => of_provider(issuer, tls).await,
        }
    }
}

fn of_file(path: &Path) -> Result<Vec<VerifyingKey>, KeySetError> {
    let keys = keys(&serde_json::from_slice(&read(path)?).unwrap_or_default());
    if keys.is_empty() { Err(KeySetError::NoKeys(path.to_owned())) } else { Ok(keys) }
}

fn read(path: &Path) -> Result<Vec<u8>, KeySetError> {
    fs::read(path).map_err(|source| KeySetError::Read { path: path.to_owned(), source })
}

/// A provider may list keys for other purposes, of kinds that we don't know.
fn keys(set: &Value) -> Vec<VerifyingKey> {
    let listed = set["keys"].as_array().into_iter().flatten();
    listed.filter_map(|key| VerifyingKey::from_jwk(key).ok()).collect()
}

async fn of_provider(issuer: &str, tls: &Arc<ClientConfig>) -> Result<Vec<VerifyingKey>, KeySetError> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let document = get(&url, tls).await?;
    let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
    if text("issuer") != issuer {
        return Err(KeySetError::Issuer { expected: issuer.to_owned(), got: text("issuer") });
    }
    let url = text("jwks_uri");
    let keys = keys(&get(&url, tls).await?);
    if keys.is_empty() { Err(KeySetError::Empty(url)) } else { Ok(keys) }
}

/// Host, what is dialled, and the path with its query.
fn place(url: &str) -> Result<(String, String, String), KeySetError> {
    let wrong = || KeySetError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(wrong)?;
    let dialled = format!("{host}:{}", uri.port_u16().unwrap_or(443));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((host.trim_matches(['[', ']']).to_owned(), dialled, path.to_owned()))
}

async fn get(url: &str, tls: &Arc<ClientConfig>) -> Result<Value, KeySetError> {
    let (name, address, path) = place(url)?;
    let mut request = Request::get(path).body(Body::empty()).map_err(|_| KeySetError::Url(url.to_owned()))?;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Ok(host) = HeaderValue::from_str(address.trim_end_matches(":443")) {
        request.headers_mut().insert(HOST, host);
    }
    let target = Target { address, tls: Some(Tls { config: tls.clone(), name }) };
    let exchange = async {
        let (answer, _connection) = target.send(request).await?;
        let code = answer.status();
        Ok::<_, ReachError>((code, whole(answer.into_body(), DOCUMENT).await?))
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await;
    let answer = answer.unwrap_or(Err(ReachError::Timeout(PATIENCE)));
    match answer.map_err(|why| KeySetError::Get { url: url.to_owned(), why })? {
        (code, body) if code.is_success() => Ok(serde_json::from_slice(&body).unwrap_or_default()),
        (code, _) => Err(KeySetError::Code(url.to_owned(), code)),
    }
}
