//! From a connection and its headers to an identity.
//!
//! A client certificate comes first, then a bearer token; without credentials the user is
//! `system:anonymous`. Wrong credentials are refused, never taken for none.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::{Identity, TokenTable};
use crate::peer::Peer;

/// Knows the credentials that the server accepts.
#[derive(Clone, Debug, Default)]
pub struct Authenticator {
    tokens: TokenTable,
}

/// Credentials were shown, and they are nobody's. Answered with 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unauthorized")]
pub struct BadCredentials;

impl Authenticator {
    /// Accepts client certificates that TLS has verified, and these tokens.
    pub fn new(tokens: TokenTable) -> Self {
        Self { tokens }
    }

    /// Who sent a request.
    ///
    /// # Errors
    /// The credentials are nobody's.
    pub fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Result<Identity, BadCredentials> {
        let certificates = match peer {
            Peer::InProcess(identity) => return Ok(identity.clone().authenticated()),
            Peer::Tls { certs, .. } => certs,
        };
        if let Some(leaf) = certificates.first() {
            let identity = Identity::from_certificate(leaf).ok_or(BadCredentials)?;
            return Ok(identity.authenticated());
        }
        match bearer_token(headers)? {
            Some(token) => self.by_token(token).ok_or(BadCredentials),
            None => Ok(Identity::anonymous()),
        }
    }

    /// Whose token it is; also the answer to a TokenReview.
    pub fn by_token(&self, token: &str) -> Option<Identity> {
        self.tokens.find(token).cloned().map(Identity::authenticated)
    }
}

/// Another scheme than Bearer isn't for us and counts as no credentials, as upstream.
fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, BadCredentials> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let value = value.to_str().map_err(|_| BadCredentials)?.trim();
    let Some((scheme, token)) = value.split_once(' ') else { return Ok(None) };
    Ok(scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(authorization: Option<&str>) -> String {
        let mut tokens = TokenTable::default();
        tokens.insert("good", Identity::new("jane", &["dev"]));
        let peer = Peer::Tls { certs: Vec::new(), addr: ([127, 0, 0, 1], 1).into() };
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().expect("header"));
        }
        match Authenticator::new(tokens).authenticate(&headers, &peer) {
            Ok(identity) => format!("{} {}", identity.user, identity.groups.join(",")),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn bearer_tokens_and_their_absence() {
        let anonymous = "system:anonymous system:unauthenticated";
        let cases = [
            (None, anonymous),
            (Some("Bearer good"), "jane dev,system:authenticated"),
            (Some("bearer  good "), "jane dev,system:authenticated"),
            (Some("Bearer bad"), "Unauthorized"),
            (Some("Basic Z29vZA=="), anonymous),
            (Some("Bearer"), anonymous),
        ];
        for (header, expected) in cases {
            assert_eq!(ask(header), expected, "{header:?}");
        }
    }

    #[test]
    fn a_certificate_that_names_nobody_is_refused() {
        let peer = Peer::Tls { certs: vec![b"junk".to_vec().into()], addr: ([127, 0, 0, 1], 1).into() };
        let refused = Authenticator::default().authenticate(&HeaderMap::new(), &peer);
        assert_eq!(refused, Err(BadCredentials));
    }

    #[test]
    fn a_part_of_the_process_is_who_it_says() {
        let peer = Peer::InProcess(Identity::new("system:kube-scheduler", &[]));
        let identity = Authenticator::default().authenticate(&HeaderMap::new(), &peer).expect("known");
        assert_eq!(identity.groups, ["system:authenticated"]);
    }
}
