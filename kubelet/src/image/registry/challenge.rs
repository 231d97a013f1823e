//! What a registry wants to know before it answers: `WWW-Authenticate`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::image::registry::Login;

/// How to say who we are.
#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from a service.
    Bearer {
        /// The service's URL.
        realm: String,
        /// For whom the token shall be.
        service: String,
        /// For what.
        scope: String,
    },
}

impl Challenge {
    /// The header's first challenge; `None` if it is of neither kind.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        let value = |name: &str| parameter(rest, name).unwrap_or_default();
        let realm = parameter(rest, "realm")?;
        let bearer = Self::Bearer { realm, service: value("service"), scope: value("scope") };
        scheme.eq_ignore_ascii_case("bearer").then_some(bearer)
    }
}

/// `name="value"`; a comma may stand within the quotes.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_start_matches([',', ' ']);
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value.to_owned());
        }
        rest = next;
    }
    None
}

/// Where to ask for a token.
pub fn token_url(realm: &str, service: &str, scope: &str) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let separator = if realm.contains('?') { '&' } else { '?' };
    let scope = if scope.is_empty() { String::new() } else { format!("&scope={}", encoded(scope)) };
    format!("{realm}{separator}service={}{scope}", encoded(service))
}

/// The token in the service's answer.
pub fn token(answer: &[u8]) -> Result<String, String> {
    let answer: serde_json::Value =
        serde_json::from_slice(answer).map_err(|error| format!("the token service's answer: {error}"))?;
    let found = ["token", "access_token"].iter().find_map(|name| answer[name].as_str());
    found.map(str::to_owned).ok_or_else(|| "the token service's answer has no token".to_owned())
}

/// As `Authorization` has it.
pub fn basic(login: &Login) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", login.user, login.password)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_as_registries_write_them() {
        assert_eq!(Challenge::parse("Basic realm=\"Registry\""), Some(Challenge::Basic));
        let text = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",\
                    scope=\"repository:library/busybox:pull,push\"";
        let Some(Challenge::Bearer { realm, service, scope }) = Challenge::parse(text) else {
            panic!("{text}")
        };
        assert_eq!(scope, "repository:library/busybox:pull,push");
        let want = "https://auth.docker.io/token?service=registry%2Edocker%2Eio&\
                    scope=repository%3Alibrary%2Fbusybox%3Apull%2Cpush";
        assert_eq!(token_url(&realm, &service, &scope), want);
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer"), None);
    }

    #[test]
    fn tokens_under_either_name() {
        assert_eq!(token(b"{\"token\":\"a\"}"), Ok("a".to_owned()));
        assert_eq!(token(b"{\"access_token\":\"b\"}"), Ok("b".to_owned()));
        assert!(token(b"{}").is_err());
    }
}
