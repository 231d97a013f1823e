//! Tokens of service accounts, bound to the pods that they are mounted in, and renewed in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection, Volume};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::pod::time::{later, since};
use crate::pod::volumes::payload::tokens;
use crate::pod::{PodRef, PodUid};

/// Upstream's lifetime where the volume names none.
const DEFAULT_LIFETIME: i64 = 3600;
/// A token is renewed when this part of its life is over, and after a day at the latest, as upstream.
const RENEW_AFTER: f64 = 0.8;
const RENEW_AT_LEAST: Duration = Duration::from_secs(24 * 3600);
/// Between tries to renew one.
const RETRY: Duration = Duration::from_secs(30);

/// Which token: of which pod, in which volume, at which path.
type Key = (PodUid, String, String);

#[derive(Clone, Debug)]
struct Issued {
    token: String,
    renew_at: Timestamp,
    /// Whoever renews it has been told.
    is_due: bool,
}

/// The tokens that this node's pods have.
#[derive(Clone)]
pub struct Tokens {
    client: Client,
    issued: Arc<Mutex<BTreeMap<Key, Issued>>>,
    changed: Arc<Notify>,
}

impl Tokens {
    pub fn new(client: Client) -> Self {
        Self { client, issued: Arc::default(), changed: Arc::default() }
    }

    /// The tokens of a volume by their paths; fresh ones where the old ones are due.
    pub async fn of(
        &self,
        pod: &Pod,
        volume: &Volume,
        now: Timestamp,
    ) -> Result<BTreeMap<String, String>, String> {
        let mut all = BTreeMap::new();
        for wanted in tokens(volume) {
            let key = (PodRef::of(pod).uid, volume.name.clone(), wanted.path.clone());
            let known = self.issued.lock().get(&key).cloned();
            let token = match known.filter(|known| !known.is_due && known.renew_at > now) {
                Some(known) => known.token,
                None => self.renew(pod, wanted, key, now).await?,
            };
            all.insert(wanted.path.clone(), token);
        }
        Ok(all)
    }

    /// An old token serves as long as no new one is to be had.
    async fn renew(
        &self,
        pod: &Pod,
        wanted: &ServiceAccountTokenProjection,
        key: Key,
        now: Timestamp,
    ) -> Result<String, String> {
        let issued = match request(&self.client, pod, wanted, now).await {
            Ok(issued) => issued,
            Err(error) => {
                let old = self.issued.lock().get(&key).cloned();
                let old = old.ok_or_else(|| format!("failed to fetch token: {error}"))?;
                tracing::warn!(pod = %PodRef::of(pod), %error, "renew a token");
                Issued { renew_at: later(now, RETRY), is_due: false, ..old }
            }
        };
        self.issued.lock().insert(key, issued.clone());
        self.changed.notify_one();
        Ok(issued.token)
    }

    /// The pod is gone.
    pub fn forget(&self, pod: &PodUid) {
        self.issued.lock().retain(|(uid, ..), _| uid != pod);
    }

    /// Waits until tokens are due and says whose.
    pub async fn due(&self) -> Vec<PodUid> {
        loop {
            let next = self.issued.lock().values().map(|issued| issued.renew_at).min();
            let wait = next.map(|at| since(at, Timestamp::now()));
            tokio::select! {
                () = sleep(wait) => {}
                () = self.changed.notified() => continue,
            }
            let now = Timestamp::now();
            let due: Vec<PodUid> = self.take_due(now);
            if !due.is_empty() {
                return due;
            }
        }
    }

    /// Those that are due now; told once each [`RETRY`], so that whoever is told has time to renew them.
    fn take_due(&self, now: Timestamp) -> Vec<PodUid> {
        let mut issued = self.issued.lock();
        let mut pods = Vec::new();
        for ((uid, ..), issued) in issued.iter_mut().filter(|(_, issued)| issued.renew_at <= now) {
            *issued = Issued { renew_at: later(now, RETRY), is_due: true, token: issued.token.clone() };
            pods.push(uid.clone());
        }
        pods.dedup();
        pods
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

async fn request(
    client: &Client,
    pod: &Pod,
    wanted: &ServiceAccountTokenProjection,
    now: Timestamp,
) -> Result<Issued, String> {
    let pod_ref = PodRef::of(pod);
    let account =
        pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let lifetime = wanted.expiration_seconds.unwrap_or(DEFAULT_LIFETIME);
    let audiences = wanted.audience.iter().filter(|audience| !audience.is_empty());
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audiences.cloned().collect()),
            expiration_seconds: Some(lifetime),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod_ref.name.clone()),
                uid: Some(pod_ref.uid.0.clone()),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &pod_ref.namespace);
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
    let status = answer.map_err(|error| crate::agent::chain(&error))?.status;
    let status = status.ok_or("the answer has no token")?;
    let (token, expires) = status.token.zip(status.expiration_timestamp).ok_or("the answer has no token")?;
    Ok(Issued { renew_at: renew_at(now, expires.0), token, is_due: false })
}

/// When the larger part of its life is over.
fn renew_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    later(now, since(expires, now).mul_f64(RENEW_AFTER).min(RENEW_AT_LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_before_they_expire_and_each_day() {
        let at = |seconds| Timestamp::from_second(seconds).expect("small");
        for (expires, renewed) in [(3600, 2880), (600, 480), (1_000_000, 86_400), (0, 0)] {
            assert_eq!(renew_at(at(0), at(expires)), at(renewed));
        }
    }
}
