//! JSON Web Tokens (RFC 7519) as compact JWS (RFC 7515): making, taking apart, checking a signature.
//!
//! What the claims mean is not known here. An algorithm is accepted only for the kind of key it belongs
//! to, so a token can't choose how it is checked, and `none` is no algorithm.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaVerificationAlgorithm, KeyPair as _,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Larger tokens aren't looked at: ours have less than 2 KiB.
const MAX_LENGTH: usize = 64 << 10;

const RSA: [(&str, &RsaParameters); 3] = [
    ("RS256", &signature::RSA_PKCS1_2048_8192_SHA256),
    ("RS384", &signature::RSA_PKCS1_2048_8192_SHA384),
    ("RS512", &signature::RSA_PKCS1_2048_8192_SHA512),
];
/// Name, length of an uncompressed point, curve, algorithm.
type Curve = (&'static str, usize, &'static str, &'static EcdsaVerificationAlgorithm);
const ECDSA: [Curve; 2] = [
    ("ES256", 65, "P-256", &signature::ECDSA_P256_SHA256_FIXED),
    ("ES384", 97, "P-384", &signature::ECDSA_P384_SHA384_FIXED),
];

/// Why a key or a token can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It isn't three parts of base64url with JSON in the first two.
    #[error("the token is malformed")]
    Malformed,
    /// No key that we know made this signature.
    #[error("the token's signature is not by a known key")]
    Signature,
    /// The key is of a kind that isn't supported.
    #[error("the key is neither RSA nor ECDSA on P-256 or P-384")]
    Key,
}

/// Checks signatures. `Debug` shows its id.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    /// The `kid` of tokens that it checks: upstream's digest of the key, or what its owner says.
    pub id: String,
    material: Material,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    /// Modulus and exponent, big-endian.
    Rsa(Vec<u8>, Vec<u8>),
    /// An uncompressed point; its length tells the curve.
    Ecdsa(Vec<u8>),
}

/// Makes tokens.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    /// The other half.
    pub public: VerifyingKey,
}

/// A token, taken apart and not yet believed.
#[derive(Debug)]
pub struct Token<'a> {
    algorithm: String,
    key_id: Option<String>,
    /// What the token says.
    pub claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

impl SigningKey {
    /// The key in a PKCS #8 document; only ECDSA on P-256.
    ///
    /// # Errors
    /// It is another kind of key, or none.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, JwtError> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random);
        let pair = pair.map_err(|_| JwtError::Key)?;
        let point = pair.public_key().as_ref().to_vec();
        let id = key_id(&p256_info(&point));
        Ok(Self { pair, public: VerifyingKey { id, material: Material::Ecdsa(point) } })
    }

    /// A token that says `claims`.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "kid": self.public.id });
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.expect("the system has random numbers");
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

fn part(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

impl VerifyingKey {
    /// The key in a SubjectPublicKeyInfo, what PEM calls `PUBLIC KEY`.
    ///
    /// # Errors
    /// It is of a kind that isn't supported.
    pub fn from_info(der: &[u8]) -> Result<Self, JwtError> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| JwtError::Key)?;
        let material = match info.parsed().map_err(|_| JwtError::Key)? {
            PublicKey::RSA(key) => Material::Rsa(unsigned(key.modulus), unsigned(key.exponent)),
            PublicKey::EC(point) if is_point(point.data()) => Material::Ecdsa(point.data().to_vec()),
            _ => return Err(JwtError::Key),
        };
        Ok(Self { id: key_id(der), material })
    }

    /// The key in a JSON Web Key (RFC 7517).
    ///
    /// # Errors
    /// It is of a kind that isn't supported, or incomplete.
    pub fn from_jwk(jwk: &Value) -> Result<Self, JwtError> {
        let bytes = |field: &str| {
            let text = jwk[field].as_str().ok_or(JwtError::Key)?;
            BASE64.decode(text).map_err(|_| JwtError::Key)
        };
        let material = match jwk["kty"].as_str() {
            Some("RSA") => Material::Rsa(bytes("n")?, bytes("e")?),
            Some("EC") => Material::Ecdsa([vec![4], bytes("x")?, bytes("y")?].concat()),
            _ => return Err(JwtError::Key),
        };
        let id = jwk["kid"].as_str().unwrap_or_default().to_owned();
        match &material {
            Material::Ecdsa(point) if !is_point(point) => Err(JwtError::Key),
            _ => Ok(Self { id, material }),
        }
    }

    /// As a JSON Web Key.
    pub fn to_jwk(&self) -> Value {
        match &self.material {
            Material::Rsa(modulus, exponent) => json!({
                "use": "sig", "kty": "RSA", "kid": self.id, "alg": "RS256",
                "n": BASE64.encode(modulus), "e": BASE64.encode(exponent),
            }),
            Material::Ecdsa(point) => {
                let (x, y) = point[1..].split_at((point.len() - 1) / 2);
                let (algorithm, _, curve, _) = curve_of(point).expect("only points are kept");
                json!({
                    "use": "sig", "kty": "EC", "kid": self.id, "alg": algorithm, "crv": curve,
                    "x": BASE64.encode(x), "y": BASE64.encode(y),
                })
            }
        }
    }

    /// The algorithm of tokens by this key, as discovery lists it.
    pub fn algorithm(&self) -> &'static str {
        match &self.material {
            Material::Rsa(..) => "RS256",
            Material::Ecdsa(point) => curve_of(point).map_or("ES256", |(name, ..)| name),
        }
    }

    /// Whether this key made the signature.
    fn accepts(&self, token: &Token<'_>) -> bool {
        let signed = token.signed.as_bytes();
        match &self.material {
            Material::Rsa(n, e) => {
                let known = RSA.iter().find(|(name, _)| *name == token.algorithm);
                known.is_some_and(|(_, algorithm)| {
                    RsaPublicKeyComponents { n, e }.verify(algorithm, signed, &token.signature).is_ok()
                })
            }
            Material::Ecdsa(point) => {
                let known = curve_of(point).filter(|(name, ..)| *name == token.algorithm);
                known.is_some_and(|(.., algorithm)| {
                    UnparsedPublicKey::new(*algorithm, point).verify(signed, &token.signature).is_ok()
                })
            }
        }
    }
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VerifyingKey({} {})", self.algorithm(), self.id)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public.id)
    }
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &'a str) -> Result<Self, JwtError> {
        let (signed, signature) = text.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        if text.len() > MAX_LENGTH || claims.contains('.') {
            return Err(JwtError::Malformed);
        }
        let decode = |part: &str| BASE64.decode(part).map_err(|_| JwtError::Malformed);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwtError::Malformed)?;
        let claims: Value = serde_json::from_slice(&decode(claims)?).map_err(|_| JwtError::Malformed)?;
        Ok(Self { algorithm: header.alg, key_id: header.kid, claims, signed, signature: decode(signature)? })
    }

    /// The issuer that the token names; whether that is true is for [`Token::verify`].
    pub fn issuer(&self) -> &str {
        self.claims["iss"].as_str().unwrap_or_default()
    }

    /// The key that the token names.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Whether one of `keys` made the signature. A token that names its key is checked with that key only.
    ///
    /// # Errors
    /// None did.
    pub fn verify(&self, keys: &[VerifyingKey]) -> Result<(), JwtError> {
        let named = |key: &&VerifyingKey| self.key_id.as_deref().is_none_or(|id| key.id == id);
        let found = keys.iter().filter(named).any(|key| key.accepts(self));
        if found { Ok(()) } else { Err(JwtError::Signature) }
    }
}

/// How upstream names a key: the digest of its SubjectPublicKeyInfo.
fn key_id(info: &[u8]) -> String {
    BASE64.encode(Sha256::digest(info))
}

/// The SubjectPublicKeyInfo of a P-256 point: RFC 5480 leaves nothing else open.
fn p256_info(point: &[u8]) -> Vec<u8> {
    const HEAD: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
        0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    [&HEAD, point].concat()
}

fn curve_of(point: &[u8]) -> Option<&'static Curve> {
    ECDSA.iter().find(|(_, length, ..)| *length == point.len())
}

fn is_point(point: &[u8]) -> bool {
    point.first() == Some(&4) && curve_of(point).is_some()
}

/// A DER integer without the zero that keeps it positive.
fn unsigned(integer: &[u8]) -> Vec<u8> {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    integer[zeros..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        let pair = rcgen::KeyPair::generate().expect("a key");
        SigningKey::from_pkcs8(&pair.serialize_der()).expect("P-256")
    }

    #[test]
    fn what_was_signed_is_believed_and_nothing_else() {
        let (ours, other) = (key(), key());
        let text = ours.sign(&json!({ "iss": "a", "n": 1 }));
        let token = Token::parse(&text).expect("a token");
        assert_eq!((token.issuer(), &token.claims["n"]), ("a", &json!(1)));
        assert_eq!(token.verify(&[other.public.clone(), ours.public.clone()]), Ok(()));
        assert_eq!(token.verify(&[other.public]), Err(JwtError::Signature));
        let (head, signature) = text.rsplit_once('.').expect("three parts");
        let (head, _) = head.split_once('.').expect("three parts");
        let forged = format!("{head}.{}.{signature}", part(&json!({ "iss": "a", "n": 2 })));
        let forged = Token::parse(&forged).expect("well-formed");
        assert_eq!(forged.verify(&[ours.public]), Err(JwtError::Signature));
    }

    #[test]
    fn a_token_cant_choose_how_it_is_checked() {
        let keys = [key().public];
        for algorithm in ["none", "HS256", "RS256", "ES384", ""] {
            let header = part(&json!({ "alg": algorithm }));
            let text = format!("{header}.{}.", part(&json!({ "iss": "a" })));
            let token = Token::parse(&text).expect("well-formed");
            assert_eq!(token.verify(&keys), Err(JwtError::Signature), "{algorithm}");
        }
    }

    #[test]
    fn what_is_no_token_is_malformed() {
        let long = format!("{}.e30.", "A".repeat(MAX_LENGTH));
        for text in ["", "a", "a.b", "a.b.c", "e30.e30.", "e30.e30.e30.e30", "é.é.é", &long] {
            assert_eq!(Token::parse(text).err(), Some(JwtError::Malformed), "{text:.20}");
        }
    }

    #[test]
    fn a_key_is_the_same_in_every_form() {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let ours = SigningKey::from_pkcs8(&pair.serialize_der()).expect("P-256").public;
        let info = VerifyingKey::from_info(&p256_info(pair.public_key_raw())).expect("P-256");
        assert_eq!(info, ours);
        assert_eq!(VerifyingKey::from_jwk(&ours.to_jwk()).expect("a JWK"), ours);
        assert_eq!(VerifyingKey::from_jwk(&json!({ "kty": "oct", "k": "AAAA" })), Err(JwtError::Key));
        assert_eq!(VerifyingKey::from_jwk(&json!({ "kty": "EC", "x": "AA", "y": "AA" })), Err(JwtError::Key));
    }
}
