//! Who calls the node's API, and whether he may: both are asked of the API server and remembered for a while, as
//! upstream's kubelet does (`authentication.webhook`, `authorization.mode: Webhook`). There are no anonymous callers.

mod attributes;
mod cache;
mod review;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

pub use attributes::{Act, acts};
use cache::Remembered;
pub use review::{ClusterReviewer, Reviewer};

use crate::server::route::Refusal;

/// Members of this group may do everything; the API server says nothing else, so it isn't asked. The API server itself
/// is among them, and needn't be asked about itself.
const MASTERS: &str = "system:masters";
/// How long the owner of a token is remembered, or that it has none. Upstream's default.
const WHOSE: Duration = Duration::from_secs(2 * 60);
/// How long what somebody may is remembered. Upstream's default.
const ALLOWED: Duration = Duration::from_secs(5 * 60);
/// How long what somebody may not is remembered. Upstream's default.
const DENIED: Duration = Duration::from_secs(30);

/// Who calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller {
    /// The user.
    pub user: String,
    /// The user's uid, if he has one.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// What else the authenticator said.
    pub extra: Vec<(String, Vec<String>)>,
}

impl Caller {
    /// From a certificate that TLS has verified; `None` if it names nobody.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject: &X509Name<'_> = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned);
        Some(Self {
            user,
            groups: groups.chain(["system:authenticated".to_owned()]).collect(),
            ..Self::default()
        })
    }
}

/// Lets requests in or not.
#[derive(Clone)]
pub struct Gate {
    node: String,
    reviewer: Arc<dyn Reviewer>,
    known: Arc<Mutex<Known>>,
}

/// What was answered lately. Tokens are kept as digests.
#[derive(Default)]
struct Known {
    owners: Remembered<[u8; 32], Option<Caller>>,
    verdicts: Remembered<(Caller, Act), bool>,
}

impl Gate {
    /// For the API of `node`.
    pub fn new(node: &str, reviewer: impl Reviewer + 'static) -> Self {
        Self { node: node.to_owned(), reviewer: Arc::new(reviewer), known: Arc::default() }
    }

    /// Whether the request may go on; `certified` is who TLS has verified.
    ///
    /// # Errors
    /// 401 without valid credentials, 403 if it isn't allowed, 500 if that can't be found out; in upstream's words.
    pub async fn admit(
        &self,
        certified: Option<&Caller>,
        headers: &HeaderMap,
        method: &Method,
        path: &str,
    ) -> Result<(), Refusal> {
        let caller = match (certified, bearer(headers)) {
            (Some(caller), _) => Some(caller.clone()),
            (None, Some(token)) => self.owner(token).await,
            (None, None) => None,
        };
        let caller = caller.ok_or_else(|| (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()))?;
        if caller.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let acts = acts(method, path);
        for act in &acts {
            if self.may(&caller, act).await? {
                return Ok(());
            }
        }
        let subresources: Vec<&str> = acts.iter().map(|act| act.subresource).collect();
        let (user, verb, list) = (&caller.user, acts[0].verb, subresources.join(" "));
        let message =
            format!("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{list}])");
        Err((StatusCode::FORBIDDEN, message))
    }

    /// Whose token it is. That nobody could be asked isn't remembered.
    async fn owner(&self, token: &str) -> Option<Caller> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.known.lock().owners.get(&digest, Instant::now()) {
            return known;
        }
        match self.reviewer.whose(token).await {
            Ok(owner) => {
                let now = Instant::now();
                self.known.lock().owners.put(digest, owner.clone(), now, WHOSE);
                owner
            }
            Err(error) => {
                tracing::warn!(%error, "ask whose token it is");
                None
            }
        }
    }

    async fn may(&self, caller: &Caller, act: &Act) -> Result<bool, Refusal> {
        let question = (caller.clone(), act.clone());
        if let Some(known) = self.known.lock().verdicts.get(&question, Instant::now()) {
            return Ok(known);
        }
        let asked = self.reviewer.may(caller, act, &self.node).await;
        let allowed = asked.map_err(|error| {
            let (user, Act { verb, subresource }) = (&caller.user, act);
            tracing::warn!(%error, user, "ask whether somebody may use the node's API");
            let about = format!("user={user}, verb={verb}, resource=nodes, subresource={subresource}");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("Authorization error ({about})"))
        })?;
        let kept = if allowed { ALLOWED } else { DENIED };
        self.known.lock().verdicts.put(question, allowed, Instant::now(), kept);
        Ok(allowed)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

#[cfg(test)]
mod tests;
