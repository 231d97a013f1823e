//! The keys of service-account tokens: one that signs, and all that are accepted.
//!
//! `sa.key` signs. Every `sa*.pub` in the directory is accepted, so that tokens outlive their key: to change
//! it, rename `sa.pub` (to `sa-old.pub`, say), remove `sa.key`, restart the members one after the other with
//! the same files, and remove the old public key when its tokens have expired.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::KeyPair;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;

use super::{PkiError, damaged, files};
use crate::auth::jwt::{SigningKey, VerifyingKey};

/// The keys of service-account tokens.
#[derive(Clone, Debug)]
pub struct AccountKeys {
    /// Signs new tokens.
    pub signing: Arc<SigningKey>,
    /// Accepted; the signing key's other half comes first.
    pub accepted: Vec<VerifyingKey>,
}

impl AccountKeys {
    /// Loads the keys from `dir`, or makes the first one.
    ///
    /// # Errors
    /// A file that can't be used is named, never overwritten.
    pub(super) fn load_or_create(dir: &Path) -> Result<Self, PkiError> {
        let (private, public) = (dir.join("sa.key"), dir.join("sa.pub"));
        if !private.exists() {
            create(&private)?;
        }
        let (pem, signing) = load_signing(&private)?;
        if !public.exists() {
            files::write_public(&public, pem.public_key_pem().as_bytes())?;
        }
        let mut accepted = vec![signing.public.clone()];
        for path in public_files(dir)? {
            let key = load_public(&path)?;
            if !accepted.contains(&key) {
                accepted.push(key);
            }
        }
        Ok(Self { signing: Arc::new(signing), accepted })
    }
}

fn create(private: &Path) -> Result<(), PkiError> {
    let subject = "service-account tokens".to_owned();
    let key = KeyPair::generate().map_err(|source| PkiError::Sign { subject, source })?;
    files::create_private(private, key.serialize_pem().as_bytes())
}

fn load_signing(path: &Path) -> Result<(KeyPair, SigningKey), PkiError> {
    let pem = files::read(path)?;
    let pair = KeyPair::from_pem(&pem).map_err(|_| damaged(path, "it holds no PEM private key"))?;
    let signing = SigningKey::from_pkcs8(&pair.serialize_der())
        .map_err(|_| damaged(path, "it holds no ECDSA key on P-256, which signs tokens here"))?;
    Ok((pair, signing))
}

fn load_public(path: &Path) -> Result<VerifyingKey, PkiError> {
    let pem = files::read(path)?;
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| damaged(path, "it holds no PEM public key"))?;
    VerifyingKey::from_info(&der).map_err(|error| damaged(path, &error.to_string()))
}

fn public_files(dir: &Path) -> Result<Vec<PathBuf>, PkiError> {
    let failed = |source| PkiError::Io { action: "list the directory", path: dir.to_owned(), source };
    let entries = fs::read_dir(dir).map_err(failed)?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("sa") && name.ends_with(".pub") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::jwt::Token;

    #[test]
    fn tokens_outlive_the_key_that_signed_them() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| dir.path().join(name);
        let first = AccountKeys::load_or_create(dir.path()).expect("made");
        let token = first.signing.sign(&json!({}));
        fs::rename(path("sa.pub"), path("sa-old.pub")).expect("renamed");
        fs::remove_file(path("sa.key")).expect("removed");
        let second = AccountKeys::load_or_create(dir.path()).expect("made anew");
        assert_ne!(first.signing.public, second.signing.public);
        let token = Token::parse(&token).expect("a token");
        assert_eq!(token.verify(&second.accepted), Ok(()));
        fs::remove_file(path("sa-old.pub")).expect("removed");
        let third = AccountKeys::load_or_create(dir.path()).expect("loaded");
        assert_eq!(third.signing.public, second.signing.public, "a key is made once");
        assert!(token.verify(&third.accepted).is_err());
    }

    #[test]
    fn a_damaged_key_is_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        AccountKeys::load_or_create(dir.path()).expect("made");
        fs::write(dir.path().join("sa-2.pub"), "junk").expect("written");
        let error = AccountKeys::load_or_create(dir.path()).expect_err("damaged").to_string();
        assert!(error.contains("sa-2.pub is damaged: it holds no PEM public key"), "{error}");
    }
}
