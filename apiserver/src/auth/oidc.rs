//! Tokens of an OpenID Connect provider: whose they are, by the claims that the configuration names.
//!
//! Rules and defaults are those of kube-apiserver's `--oidc-*` flags, but for names that begin with `system:`: no
//! provider makes somebody a part of the system here.

mod keys;

use jiff::Timestamp;
use serde_json::Value;

use super::Identity;
use super::jwt::Token;
use keys::Keys;

pub use keys::{KeySetError, KeySource};

/// How far clocks may differ, in seconds.
const LEEWAY_SECONDS: i64 = 10;

/// What is said of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcPolicy {
    /// Who makes the tokens: `iss`.
    pub issuer: String,
    /// For whom they must be meant: among `aud`.
    pub client_id: String,
    /// Which claim is the user, upstream's default is `sub`.
    pub username_claim: String,
    /// In front of every user.
    pub username_prefix: String,
    /// Which claim holds the groups, if any does.
    pub groups_claim: Option<String>,
    /// In front of every group.
    pub groups_prefix: String,
    /// Where the provider's keys are.
    pub keys: KeySource,
}

/// Recognises a provider's tokens.
#[derive(Debug)]
pub struct Oidc {
    policy: OidcPolicy,
    keys: Keys,
}

impl Oidc {
    /// Reads the provider's keys if they are in a file.
    ///
    /// # Errors
    /// There are none, or it can't be said whom to ask.
    pub fn load(policy: OidcPolicy) -> Result<Self, KeySetError> {
        Ok(Self { keys: Keys::load(&policy.keys, &policy.issuer)?, policy })
    }

    /// Whether tokens of this issuer are the provider's.
    pub fn issues(&self, issuer: &str) -> bool {
        self.policy.issuer == issuer
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// It isn't the provider's, isn't for us, isn't good now, or names nobody.
    pub async fn recognise(&self, token: &Token<'_>, now: Timestamp) -> Result<Identity, String> {
        let keys = self.keys.for_token(token).await;
        if keys.is_empty() {
            return Err("oidc: authenticator not initialized".to_owned());
        }
        token.verify(&keys).map_err(|error| format!("oidc: {error}"))?;
        identity(&self.policy, &token.claims, now.as_second()).map_err(|why| format!("oidc: {why}"))
    }
}

/// Whom the claims name, if they are for us and good now.
fn identity(policy: &OidcPolicy, claims: &Value, now: i64) -> Result<Identity, String> {
    if !texts(&claims["aud"]).contains(&policy.client_id) {
        return Err(format!("expected audience {:?} got {:?}", policy.client_id, texts(&claims["aud"])));
    }
    let end = claims["exp"].as_f64().ok_or("the token has no expiry")? as i64;
    if now - LEEWAY_SECONDS > end {
        return Err("token is expired".to_owned());
    }
    if claims["nbf"].as_f64().is_some_and(|start| now + LEEWAY_SECONDS < start as i64) {
        return Err("token is not valid yet".to_owned());
    }
    let claim = &policy.username_claim;
    let user = claims[claim].as_str().filter(|user| !user.is_empty());
    let user = user.ok_or_else(|| format!("the token has no claim {claim:?} that names the user"))?;
    if claim == "email" && claims["email_verified"].as_bool() == Some(false) {
        return Err("email not verified".to_owned());
    }
    let groups = policy.groups_claim.as_ref().map(|claim| texts(&claims[claim])).unwrap_or_default();
    let groups: Vec<String> = groups.iter().map(|group| format!("{}{group}", policy.groups_prefix)).collect();
    let user = format!("{}{user}", policy.username_prefix);
    if let Some(name) = groups.iter().chain([&user]).find(|name| name.starts_with("system:")) {
        return Err(format!("{name:?} is a name of the system: set a prefix for users and groups"));
    }
    Ok(Identity { user, groups, ..Identity::default() })
}

/// One text, or many.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;
    use crate::auth::jwt::SigningKey;

    fn policy(keys_file: PathBuf) -> OidcPolicy {
        OidcPolicy {
            issuer: "https://id.example".to_owned(),
            client_id: "cluster".to_owned(),
            username_claim: "email".to_owned(),
            username_prefix: "oidc:".to_owned(),
            groups_claim: Some("groups".to_owned()),
            groups_prefix: "oidc:".to_owned(),
            keys: KeySource::File(keys_file),
        }
    }

    fn judge(change: Value) -> String {
        let mut claims =
            json!({"aud": "cluster", "exp": 2000, "email": "jane@example.com", "groups": ["dev"]});
        for (claim, value) in change.as_object().into_iter().flatten() {
            claims[claim] = value.clone();
        }
        match identity(&policy(PathBuf::new()), &claims, 1500) {
            Ok(identity) => format!("{} {}", identity.user, identity.groups.join(",")),
            Err(why) => why,
        }
    }

    #[test]
    fn claims_name_who_it_is() {
        assert_eq!(judge(json!({})), "oidc:jane@example.com oidc:dev");
        assert_eq!(
            judge(json!({"aud": ["a", "cluster"], "groups": "ops"})),
            "oidc:jane@example.com oidc:ops"
        );
        assert_eq!(judge(json!({"aud": "other"})), r#"expected audience "cluster" got ["other"]"#);
        assert_eq!(judge(json!({"exp": 1400})), "token is expired");
        assert_eq!(judge(json!({"exp": null})), "the token has no expiry");
        assert_eq!(judge(json!({"nbf": 1600})), "token is not valid yet");
        assert_eq!(judge(json!({"email": ""})), "the token has no claim \"email\" that names the user");
        assert_eq!(judge(json!({"email_verified": false})), "email not verified");
        let bare = OidcPolicy { groups_prefix: String::new(), ..policy(PathBuf::new()) };
        let claims = json!({"aud": "cluster", "exp": 2000, "email": "j", "groups": ["system:masters"]});
        assert!(identity(&bare, &claims, 1500).expect_err("of the system").contains("system:masters"));
    }

    #[tokio::test]
    async fn new_keys_are_found_when_a_token_names_one() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("keys.json");
        let key = || {
            SigningKey::from_pkcs8(&rcgen::KeyPair::generate().expect("a key").serialize_der())
                .expect("P-256")
        };
        let (first, second) = (key(), key());
        let write = |key: &SigningKey| {
            fs::write(&path, json!({"keys": [{"kty": "oct"}, key.public.to_jwk()]}).to_string())
        };
        assert!(matches!(Oidc::load(policy(path.clone())), Err(KeySetError::Read { .. })));
        fs::write(&path, "{}").expect("written");
        assert!(matches!(Oidc::load(policy(path.clone())), Err(KeySetError::NoKeys(_))));
        write(&first).expect("written");
        let oidc = Oidc::load(policy(path.clone())).expect("a key");
        let claims = json!({"iss": "https://id.example", "aud": "cluster", "exp": 2000, "email": "jane"});
        let now = Timestamp::from_second(1500).expect("a time");
        let judge = async |key: &SigningKey| {
            let text = key.sign(&claims);
            let token = Token::parse(&text).expect("a token");
            oidc.recognise(&token, now).await.map(|identity| identity.user)
        };
        assert_eq!(judge(&first).await, Ok("oidc:jane".to_owned()));
        assert!(judge(&second).await.is_err());
        write(&second).expect("written");
        assert_eq!(judge(&second).await, Ok("oidc:jane".to_owned()));
        assert!(judge(&first).await.is_err(), "an old key ends with the file");
    }
}
