//! Makes and recognises service-account tokens, against the objects as they are now.
//!
//! A signature is checked once, and remembered for a while; whether the account and what the token is bound
//! to are still there is asked at every request, of the cache. Only when the cache says no is the store
//! asked: the cache may be behind, as right after another member made the account.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::Identity;
use super::accounts::{Claims, Named, Reference, stands};
use super::jwt::Token;
use super::token_tracking::{self, Used};
use crate::pki::AccountKeys;
use crate::storage::{Storage, key};

/// Tokens whose signature is known to be good; beyond it all are forgotten and checked anew.
const REMEMBERED: usize = 4096;

/// What a cluster says of its service-account tokens.
#[derive(Clone, Debug)]
pub struct AccountPolicy {
    /// Who makes tokens: a URL. The first makes, all are accepted.
    pub issuers: Vec<String>,
    /// For whom tokens are that name no audience, and what a request to this server needs.
    pub audiences: Vec<String>,
}

impl Default for AccountPolicy {
    /// Upstream's values for a cluster that was asked nothing.
    fn default() -> Self {
        let issuer = "https://kubernetes.default.svc.cluster.local".to_owned();
        Self { issuers: vec![issuer.clone()], audiences: vec![issuer] }
    }
}

/// Makes and recognises tokens.
pub struct AccountTokens {
    keys: AccountKeys,
    policy: AccountPolicy,
    storage: Arc<Storage>,
    /// By the token's digest.
    believed: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
    /// Who notes that tokens in Secrets are used.
    uses: Option<mpsc::Sender<Used>>,
}

impl AccountTokens {
    /// With these keys, over these objects.
    pub fn new(keys: AccountKeys, policy: AccountPolicy, storage: Arc<Storage>) -> Self {
        Self { keys, policy, storage, believed: Mutex::default(), uses: None }
    }

    /// Tells `uses` which Secrets' tokens are used.
    pub fn telling(self, uses: mpsc::Sender<Used>) -> Self {
        Self { uses: Some(uses), ..self }
    }

    /// A token that says `claims`.
    pub fn sign(&self, claims: &Claims) -> String {
        let claims = serde_json::to_value(claims).expect("claims are JSON");
        self.keys.signing.sign(&claims)
    }

    /// The keys that tokens are checked with.
    pub fn keys(&self) -> &AccountKeys {
        &self.keys
    }

    /// Who makes tokens, and for whom.
    pub fn policy(&self) -> &AccountPolicy {
        &self.policy
    }

    /// Whether tokens of this issuer are ours.
    pub fn issues(&self, issuer: &str) -> bool {
        self.policy.issuers.iter().any(|own| own == issuer)
    }

    /// Whose token it is, and for which of `audiences`.
    ///
    /// # Errors
    /// Why it is no longer, or never was, good.
    pub async fn recognise(
        &self,
        text: &str,
        token: &Token<'_>,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<(Identity, Vec<String>), String> {
        let claims = self.believe(text, token)?;
        claims.check(audiences, now)?;
        for (named, meant) in claims.references() {
            self.check(&claims.kubernetes.namespace, named, meant, now).await?;
        }
        self.track(&claims, now)?;
        let met = claims.aud.iter().filter(|own| audiences.contains(own)).cloned().collect();
        Ok((claims.identity(), met))
    }

    /// The claims, if one of our keys signed them.
    fn believe(&self, text: &str, token: &Token<'_>) -> Result<Arc<Claims>, String> {
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        if let Some(known) = self.believed.lock().get(&digest) {
            return Ok(known.clone());
        }
        token.verify(&self.keys.accepted).map_err(|error| error.to_string())?;
        let claims: Claims = serde_json::from_value(token.claims.clone())
            .map_err(|error| format!("the token's claims can't be read: {error}"))?;
        let claims = Arc::new(claims);
        let mut believed = self.believed.lock();
        if believed.len() >= REMEMBERED {
            believed.clear();
        }
        believed.insert(digest, claims.clone());
        Ok(claims)
    }

    /// A token without an end lies in a Secret, which says whether it still counts and when it was used.
    fn track(&self, claims: &Claims, now: Timestamp) -> Result<(), String> {
        let binding = &claims.kubernetes;
        let Some(secret) = binding.secret.as_ref().filter(|_| claims.exp.is_none()) else { return Ok(()) };
        let key = key::of_core("secrets", &binding.namespace, &secret.name);
        let found = self.storage.cache.get(&key).and_then(|stored| stored.to_value().ok());
        let account = &binding.serviceaccount.name;
        // What the cache doesn't know yet is new, and so not noted.
        if found.map_or(Ok(true), |found| token_tracking::judge(&found, account, now))?
            && let Some(uses) = &self.uses
        {
            let used = Used { namespace: binding.namespace.clone(), secret: secret.name.clone() };
            // Full: its next use is noted.
            let _ = uses.try_send(used);
        }
        Ok(())
    }

    /// One object that the token names is there.
    async fn check(
        &self,
        namespace: &str,
        named: Named,
        meant: &Reference,
        now: Timestamp,
    ) -> Result<(), String> {
        let namespace = if named == Named::Node { "" } else { namespace };
        let key = key::of_core(named.plural(), namespace, &meant.name);
        let cached = self.storage.cache.get(&key).and_then(|stored| stored.to_value().ok());
        if stands(named, meant, cached.as_ref(), now).is_ok() {
            return Ok(());
        }
        let stored = self.storage.read(&key).await.map_err(|error| error.into_status().message)?;
        let newest = stored.and_then(|stored| stored.to_value().ok());
        stands(named, meant, newest.as_ref(), now)
    }
}
