//! Bootstrap tokens, `ID.SECRET`: what a machine shows before it has a certificate, and what tells it that a cluster
//! it doesn't know yet is the one whose token it has.
//!
//! A token is a Secret `kube-system/bootstrap-token-ID`. The ConfigMap `kube-public/cluster-info` is signed with each
//! (`jws-kubeconfig-ID`, a detached JWS), so that who has the secret can trust what everybody may read. Formats are
//! upstream's (`k8s.io/cluster-bootstrap`), so that kubeadm's tokens are good here and ours there.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use ring::hmac;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::pem::parse_x509_pem;

/// Where the Secrets lie.
pub const NAMESPACE: &str = "kube-system";
/// The type of the Secrets.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// The group in which a token puts a new machine unless somebody says otherwise; it may ask for a node's certificate.
pub const DEFAULT_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
/// The group of tokens by which machines become members of the control plane.
pub const CONTROL_PLANE_GROUP: &str = "system:bootstrappers:amoeba:control-plane";
/// Where what is signed lies.
pub const INFO_NAMESPACE: &str = "kube-public";
/// The ConfigMap that is signed.
pub const INFO_NAME: &str = "cluster-info";
/// The field of it that is signed: a kubeconfig without credentials.
pub const INFO_KUBECONFIG: &str = "kubeconfig";
/// What stands before a token's id in the field that holds its signature.
pub const INFO_SIGNATURE: &str = "jws-kubeconfig-";

const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// A token that has the form of one. `Debug` doesn't show its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    /// The part that everybody may know.
    pub id: String,
    secret: String,
}

/// What a token is for, how long, and what is said of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenTerms {
    /// When it ends; `None` is never.
    pub expiration: Option<Timestamp>,
    /// For people.
    pub description: String,
    /// It signs `cluster-info`.
    pub signing: bool,
    /// It authenticates to the API server.
    pub authentication: bool,
    /// Groups of who shows it, besides `system:bootstrappers`.
    pub groups: Vec<String>,
}

fn is_plain(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

impl FromStr for BootstrapToken {
    type Err = String;

    /// The error doesn't repeat what was given: it may be nearly a secret.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('.');
        let token = parts.filter(|(id, secret)| is_plain(id, ID_LENGTH) && is_plain(secret, SECRET_LENGTH));
        let (id, secret) = token.ok_or(
            "the bootstrap token was not of the form \"\\\\A([a-z0-9]{6})\\\\.([a-z0-9]{16})\\\\z\", \
             such as abcdef.0123456789abcdef; `amoeba token create` makes one",
        )?;
        Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
    }
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootstrapToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl BootstrapToken {
    /// From random bytes, one a character; 36 characters don't divide 256, which costs a tenth of a bit.
    pub fn from_random(bytes: [u8; ID_LENGTH + SECRET_LENGTH]) -> Self {
        const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let text: String = bytes.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % 36])).collect();
        let (id, secret) = text.split_at(ID_LENGTH);
        Self { id: id.to_owned(), secret: secret.to_owned() }
    }

    /// `ID.SECRET`, as it is shown to the API server.
    pub fn shown(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// The part that must stay between cluster and machine.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The name of its Secret.
    pub fn secret_name(&self) -> String {
        format!("bootstrap-token-{}", self.id)
    }

    /// The group of who shows this one and no other, among those of [`CONTROL_PLANE_GROUP`].
    pub fn own_group(&self) -> String {
        format!("{CONTROL_PLANE_GROUP}:{}", self.id)
    }

    /// The Secret of the authorities that are handed over to who has the token, and the key that they are sealed with.
    pub fn authorities_name(&self) -> String {
        format!("amoeba-authorities-{}", self.id)
    }

    /// The token in a Secret, if it holds one.
    pub fn of_secret(secret: &Value) -> Option<Self> {
        let of_type = (secret["type"] == SECRET_TYPE).then_some(secret)?;
        format!("{}.{}", field(of_type, "token-id"), field(of_type, "token-secret")).parse().ok()
    }

    /// The Secret that makes it known to a cluster.
    pub fn to_secret(&self, terms: &TokenTerms) -> Value {
        let mut data = vec![("token-id", self.id.clone()), ("token-secret", self.secret.clone())];
        let text =
            [("description", terms.description.clone()), ("auth-extra-groups", terms.groups.join(","))];
        data.extend(text.into_iter().filter(|(_, value)| !value.is_empty()));
        data.extend(terms.expiration.map(|end| ("expiration", crate::time::rfc3339(end))));
        let uses = [("signing", terms.signing), ("authentication", terms.authentication)];
        let uses = uses.into_iter().filter(|(_, is_used)| *is_used);
        let uses = uses.map(|(usage, _)| (format!("usage-bootstrap-{usage}"), "true".to_owned()));
        let data = data.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(uses);
        let data = data.map(|(name, value)| (name, json!(STANDARD.encode(value))));
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self.secret_name(), "namespace": NAMESPACE},
            "type": SECRET_TYPE,
            "data": data.collect::<serde_json::Map<_, _>>(),
        })
    }

    /// The signature of `content` with this token: a JWS (HS256) whose payload is left out, as RFC 7515 has it in
    /// its appendix F.
    pub fn sign(&self, content: &str) -> String {
        let header = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, self.id);
        let header = URL_SAFE_NO_PAD.encode(header);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
    }

    /// Whether `signature` is this token's of `content`. Who asks isn't the one who might guess, so time tells
    /// nobody anything.
    pub fn verifies(&self, content: &str, signature: &str) -> bool {
        self.sign(content) == signature
    }
}

impl TokenTerms {
    /// What a token's Secret says; an end that can't be read is one that has come.
    pub fn of_secret(secret: &Value) -> Self {
        let expiration = field(secret, "expiration");
        let end = || crate::time::parse(&expiration).unwrap_or(Timestamp::UNIX_EPOCH);
        let groups = field(secret, "auth-extra-groups");
        Self {
            expiration: (!expiration.is_empty()).then(end),
            description: field(secret, "description"),
            signing: field(secret, "usage-bootstrap-signing") == "true",
            authentication: field(secret, "usage-bootstrap-authentication") == "true",
            groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.expiration.is_some_and(|end| end <= now)
    }
}

/// A field of a Secret, decoded; empty if it isn't there or no text.
pub fn field(secret: &Value, name: &str) -> String {
    let bytes = secret["data"][name].as_str().and_then(|text| STANDARD.decode(text).ok());
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// The digest of an authority's public key, `sha256:HEX`, by which a machine recognises it: kubeadm's
/// `--discovery-token-ca-cert-hash`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPin(String);

impl KeyPin {
    /// Of the certificate in `pem`.
    ///
    /// # Errors
    /// If it is no certificate.
    pub fn of_certificate(pem: &str) -> Result<Self, String> {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|_| "it is no PEM certificate")?;
        let certificate = pem.parse_x509().map_err(|_| "it is no X.509 certificate")?;
        let digest = Sha256::digest(certificate.public_key().raw);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(format!("sha256:{hex}")))
    }
}

impl FromStr for KeyPin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let is_digest = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then(|| Self(text.to_ascii_lowercase())).ok_or_else(|| {
            format!("invalid public key hash {text:?}: expected \"sha256:\" and 64 hexadecimal digits")
        })
    }
}

impl fmt::Display for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> BootstrapToken {
        "abcdef.0123456789abcdef".parse().expect("a token")
    }

    #[test]
    fn other_texts_are_no_tokens_and_arent_repeated() {
        for text in ["", "abcdef", "abcdef.", "abcde.0123456789abcdef", "abcdef.0123456789ABCDEF", "a.b.c"] {
            let refused = text.parse::<BootstrapToken>().expect_err(text);
            assert!(refused.contains("was not of the form"), "{refused}");
        }
        assert!(!format!("{:?}", token()).contains("0123456789"));
    }

    #[test]
    fn a_secret_holds_a_token_and_its_terms() {
        let terms = TokenTerms {
            expiration: Some(Timestamp::from_second(1_000_000).expect("a time")),
            description: "for the rack".to_owned(),
            signing: true,
            authentication: false,
            groups: vec![DEFAULT_GROUP.to_owned()],
        };
        let secret = token().to_secret(&terms);
        assert_eq!(secret["metadata"]["name"], "bootstrap-token-abcdef");
        assert_eq!(BootstrapToken::of_secret(&secret), Some(token()));
        assert_eq!(TokenTerms::of_secret(&secret), terms);
        assert!(terms.has_ended(Timestamp::from_second(1_000_000).expect("a time")));
        assert!(!terms.has_ended(Timestamp::from_second(999_999).expect("a time")));
        let other = json!({"type": "Opaque", "data": secret["data"]});
        assert_eq!(BootstrapToken::of_secret(&other), None);
    }

    #[test]
    fn an_end_that_cant_be_read_has_come() {
        let secret = json!({"data": {"expiration": STANDARD.encode("some day")}});
        assert!(TokenTerms::of_secret(&secret).has_ended(Timestamp::from_second(1).expect("a time")));
        assert!(!TokenTerms::default().has_ended(Timestamp::MAX), "no end is never");
    }

    /// The expected values are those of upstream's tests (`k8s.io/cluster-bootstrap/token/jws`).
    #[test]
    fn signatures_are_those_of_upstream() {
        let secret = "my voice is my passcode".to_owned();
        let token = BootstrapToken { id: "joshua".to_owned(), secret };
        let content = "Hello from the other side. I must have called a thousand times.";
        let head = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..";
        let signature = format!("{head}VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8");
        assert_eq!(token.sign(content), signature);
        assert_eq!(token.sign(""), format!("{head}7Ui1ALizW4jXphVUB7xUqC9vLYLL9RZeOFfVLoB7Tgk"));
        assert!(token.verifies(content, &signature));
        assert!(!token.verifies(content, &format!("{signature}foo")) && !token.verifies("Hello", &signature));
    }

    #[test]
    fn pins_are_digests() {
        let hex = "0123456789abcdef".repeat(4);
        assert!(format!("sha256:{hex}").parse::<KeyPin>().is_ok());
        for text in ["", "sha256:", &hex, &format!("md5:{hex}"), "sha256:zz"] {
            let refused = text.parse::<KeyPin>().expect_err(text);
            assert!(refused.contains("invalid public key hash"), "{refused}");
        }
        assert!(KeyPin::of_certificate("junk").is_err());
    }
}
