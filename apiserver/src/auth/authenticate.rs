//! From a connection and its headers to an identity.
//!
//! A client certificate comes first, then a bearer token; without credentials the user is
//! `system:anonymous`. Wrong credentials are refused, never taken for none.

use std::sync::Arc;

use api::bootstrap_token::BootstrapToken;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;

use super::bootstrap_token;
use super::jwt::Token;
use super::oidc::Oidc;
use super::{AccountTokens, Identity, TokenTable};
use crate::peer::Peer;
use crate::pki::MASTERS_GROUP;
use crate::storage::{Storage, key};

/// Knows the credentials that the server accepts.
pub struct Authenticator {
    tokens: TokenTable,
    accounts: AccountTokens,
    storage: Arc<Storage>,
    provider: Option<Arc<Oidc>>,
}

/// Whose a token is, and for whom it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// Who shows it.
    pub identity: Identity,
    /// Which of the audiences that were asked for it is meant for.
    pub audiences: Vec<String>,
}

/// Credentials were shown, and they are nobody's. Answered with 401; why is told to TokenReviews only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[invalid bearer token, {0}]")]
pub struct BadCredentials(String);

impl Authenticator {
    /// Accepts client certificates that TLS has verified, these tokens, and those in the store.
    pub fn new(tokens: TokenTable, accounts: AccountTokens, storage: Arc<Storage>) -> Self {
        Self { tokens, accounts, storage, provider: None }
    }

    /// The same, which also accepts the tokens of an OpenID Connect provider.
    #[must_use]
    pub fn with_provider(mut self, provider: Option<Arc<Oidc>>) -> Self {
        self.provider = provider;
        self
    }

    /// Makes service-account tokens.
    pub fn accounts(&self) -> &AccountTokens {
        &self.accounts
    }

    /// Who sent a request.
    ///
    /// # Errors
    /// The credentials are nobody's.
    pub async fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Result<Identity, BadCredentials> {
        let certificates = match peer {
            Peer::Admin => return Ok(Identity::new("system:admin", &[MASTERS_GROUP]).authenticated()),
            Peer::InProcess(identity) => return Ok(identity.clone().authenticated()),
            Peer::Tls { certs, .. } => certs,
        };
        if let Some(leaf) = certificates.first() {
            let nobody = || BadCredentials("the client certificate names nobody".to_owned());
            return Ok(Identity::from_certificate(leaf).ok_or_else(nobody)?.authenticated());
        }
        match bearer_token(headers)? {
            Some(token) => Ok(self.by_token(token, &self.accounts.policy().audiences).await?.identity),
            None => Ok(Identity::anonymous()),
        }
    }

    /// Whose token it is, if it is meant for one of `audiences`; also the answer to a TokenReview.
    ///
    /// # Errors
    /// It is nobody's.
    pub async fn by_token(&self, token: &str, audiences: &[String]) -> Result<Recognised, BadCredentials> {
        let (identity, audiences) = match Token::parse(token) {
            Ok(parsed) if self.accounts.issues(parsed.issuer()) => {
                self.accounts.recognise(token, &parsed, audiences, Timestamp::now()).await
            }
            _ => self.of_this_server(token, audiences).await,
        }
        .map_err(BadCredentials)?;
        Ok(Recognised { identity: identity.authenticated(), audiences })
    }

    /// A token that names no audience is meant for this server.
    async fn of_this_server(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(Identity, Vec<String>), String> {
        let own = &self.accounts.policy().audiences;
        let met: Vec<String> = own.iter().filter(|own| audiences.contains(own)).cloned().collect();
        if met.is_empty() {
            return Err(format!("token audiences {own:?} is invalid for the target audiences {audiences:?}"));
        }
        if let Some(identity) = self.tokens.find(token) {
            return Ok((identity.clone(), met));
        }
        if let (Some(provider), Ok(parsed)) = (&self.provider, Token::parse(token))
            && provider.issues(parsed.issuer())
        {
            return Ok((provider.recognise(&parsed, Timestamp::now()).await?, met));
        }
        let Ok(bootstrap) = token.parse::<BootstrapToken>() else {
            return Err("the token is unknown".to_owned());
        };
        let key = key::of_core("secrets", api::bootstrap_token::NAMESPACE, &bootstrap.secret_name());
        // Not from the cache: a token that was just made, or revoked, counts at once. They are shown rarely.
        let stored = self.storage.read(&key).await.map_err(|error| error.into_status().message)?;
        let stored = stored.and_then(|stored| stored.to_value().ok());
        Ok((bootstrap_token::identity(&bootstrap, stored.as_ref(), Timestamp::now())?, met))
    }
}

/// Another scheme than Bearer isn't for us and counts as no credentials, as upstream.
fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, BadCredentials> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let value = value.to_str().map_err(|_| BadCredentials("the header is not plain text".to_owned()))?.trim();
    let Some((scheme, token)) = value.split_once(' ') else { return Ok(None) };
    Ok(scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty()))
}

#[cfg(test)]
mod tests {
    use store::model::Model;

    use super::*;
    use crate::auth::AccountPolicy;
    use crate::config::Config;
    use crate::pki::Pki;

    fn authenticator() -> Authenticator {
        let dir = tempfile::tempdir().expect("temporary directory");
        let config = Config::new(Arc::new(Pki::load_or_create(dir.path()).expect("authorities")));
        let cache = Arc::new(crate::storage::cache::Cache::new(
            config.limits,
            Box::new(crate::rbac_feed::RbacFeed::new(Arc::default())),
        ));
        let storage = Arc::new(Storage::new(Arc::new(Model::new()), cache, &config));
        let keys = config.pki.account_keys().clone();
        let accounts = AccountTokens::new(keys, AccountPolicy::default(), storage.clone());
        let mut tokens = TokenTable::default();
        tokens.insert("good", Identity::new("jane", &["dev"]));
        Authenticator::new(tokens, accounts, storage)
    }

    async fn ask(authorization: Option<&str>) -> String {
        let peer = Peer::Tls { certs: Vec::new(), addr: ([127, 0, 0, 1], 1).into() };
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().expect("header"));
        }
        match authenticator().authenticate(&headers, &peer).await {
            Ok(identity) => format!("{} {}", identity.user, identity.groups.join(",")),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn bearer_tokens_and_their_absence() {
        let anonymous = "system:anonymous system:unauthenticated";
        let cases = [
            (None, anonymous),
            (Some("Bearer good"), "jane dev,system:authenticated"),
            (Some("bearer  good "), "jane dev,system:authenticated"),
            (Some("Bearer bad"), "[invalid bearer token, the token is unknown]"),
            (Some("Bearer e30.e30.e30"), "[invalid bearer token, the token is unknown]"),
            (
                Some("Bearer abcdef.0123456789abcdef"),
                "[invalid bearer token, the bootstrap token is unknown]",
            ),
            (Some("Basic Z29vZA=="), anonymous),
            (Some("Bearer"), anonymous),
        ];
        for (header, expected) in cases {
            assert_eq!(ask(header).await, expected, "{header:?}");
        }
    }

    #[tokio::test]
    async fn a_token_is_for_its_audience_only() {
        let authenticator = authenticator();
        let by = |audience: &str| vec![audience.to_owned()];
        assert!(authenticator.by_token("good", &by("elsewhere")).await.is_err());
        let own = by("https://kubernetes.default.svc.cluster.local");
        assert_eq!(authenticator.by_token("good", &own).await.expect("known").audiences, own);
    }

    #[tokio::test]
    async fn a_certificate_that_names_nobody_is_refused() {
        let peer = Peer::Tls { certs: vec![b"junk".to_vec().into()], addr: ([127, 0, 0, 1], 1).into() };
        assert!(authenticator().authenticate(&HeaderMap::new(), &peer).await.is_err());
    }

    #[tokio::test]
    async fn a_part_of_the_process_is_who_it_says() {
        let peer = Peer::InProcess(Identity::new("system:kube-scheduler", &[]));
        let identity = authenticator().authenticate(&HeaderMap::new(), &peer).await.expect("known");
        assert_eq!(identity.groups, ["system:authenticated"]);
    }
}
