//! The files of the authorities, sealed for a machine that is to become a member, as `kubeadm init phase
//! upload-certs` does.
//!
//! Always holds: the key ([`CertificateKey`]) never comes into the cluster, so who reads what lies there learns
//! nothing; only files of [`is_shared`] leave a directory or come into one; each is sealed together with its name, so
//! that none passes for another; who has an authority keeps it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use super::{PkiError, files};

/// The authorities whose certificate and key all members have.
const AUTHORITIES: [&str; 4] = ["ca", "peer-ca", "etcd-ca", "front-proxy-ca"];
/// Is written last: who has it has all.
const LAST: &str = "ca.crt";
const KEY_LENGTH: usize = 32;

/// The key under which authorities travel: 64 hexadecimal digits. `Debug` doesn't show it.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateKey([u8; KEY_LENGTH]);

/// The files of one cluster's authorities, by their names.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities(BTreeMap<String, Vec<u8>>);

/// Why sealed files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Another key, or somebody has changed them.
    #[error("{0} can't be opened: the certificate key is another one, or the file was changed")]
    Sealed(String),
    /// It isn't one of those that members share.
    #[error("{0:?} is no file of the authorities")]
    Stranger(String),
    /// There is no authority among them.
    #[error("ca.crt is not among the files")]
    Incomplete,
    /// They belong to another cluster than the one that was met.
    #[error("ca.crt is another authority than that of cluster-info")]
    OtherCluster,
    /// This machine is of a cluster already.
    #[error(
        "{0} holds the authorities of another cluster: remove it, or choose another directory (--pki-dir), to join"
    )]
    Occupied(String),
    /// They can't be read or written.
    #[error(transparent)]
    Files(#[from] PkiError),
}

impl CertificateKey {
    /// A new one.
    pub fn random() -> Self {
        Self(random())
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.0).expect("a key has the cipher's length"))
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    bytes
}

impl fmt::Display for CertificateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateKey")
    }
}

impl FromStr for CertificateKey {
    type Err = &'static str;

    /// The error doesn't repeat what was given: it may be nearly a secret.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            "a certificate key has 64 hexadecimal digits (`amoeba token create --control-plane` makes one)";
        if text.len() != 2 * KEY_LENGTH || !text.is_ascii() {
            return Err(wrong);
        }
        let mut key = [0; KEY_LENGTH];
        for (n, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).map_err(|_| wrong)?;
        }
        Ok(Self(key))
    }
}

/// Whether all members have this file in common.
fn is_shared(name: &str) -> bool {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    is_plain
        && match name.rsplit_once('.') {
            Some((stem, "crt" | "key")) if AUTHORITIES.contains(&stem) => true,
            Some((stem, "key" | "pub")) if stem.starts_with("sa") => true,
            _ => name == "encryption.keys" || name == "tokens.csv",
        }
}

impl Authorities {
    /// Those in a directory.
    ///
    /// # Errors
    /// [`HandoverError::Files`], or there are none.
    pub fn read(dir: &Path) -> Result<Self, HandoverError> {
        let failed = |source| PkiError::Io { action: "read", path: dir.to_owned(), source };
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_shared(&name) {
                all.insert(name, fs::read(entry.path()).map_err(failed)?);
            }
        }
        Self::complete(all)
    }

    fn complete(all: BTreeMap<String, Vec<u8>>) -> Result<Self, HandoverError> {
        if all.contains_key(LAST) { Ok(Self(all)) } else { Err(HandoverError::Incomplete) }
    }

    /// Each file sealed with its name: nonce, text, tag.
    pub fn seal(&self, key: &CertificateKey) -> BTreeMap<String, Vec<u8>> {
        let cipher = key.cipher();
        let seal = |(name, text): (&String, &Vec<u8>)| {
            let (nonce, mut sealed) = (random::<NONCE_LEN>(), text.clone());
            let unique = Nonce::assume_unique_for_key(nonce);
            let done = cipher.seal_in_place_append_tag(unique, Aad::from(name.as_bytes()), &mut sealed);
            done.expect("a file is far below the cipher's limit of 64 GiB");
            (name.clone(), [&nonce[..], &sealed].concat())
        };
        self.0.iter().map(seal).collect()
    }

    /// What was sealed with this key.
    ///
    /// # Errors
    /// Another key, changed, incomplete, or more than authorities.
    pub fn open(sealed: &BTreeMap<String, Vec<u8>>, key: &CertificateKey) -> Result<Self, HandoverError> {
        let cipher = key.cipher();
        let mut all = BTreeMap::new();
        for (name, bytes) in sealed {
            if !is_shared(name) {
                return Err(HandoverError::Stranger(name.clone()));
            }
            let wrong = || HandoverError::Sealed(name.clone());
            let (nonce, text) = bytes.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
            let mut text = text.to_vec();
            let opened = cipher.open_in_place(nonce, Aad::from(name.as_bytes()), &mut text);
            let length = opened.map_err(|_| wrong())?.len();
            text.truncate(length);
            all.insert(name.clone(), text);
        }
        Self::complete(all)
    }

    /// Puts them into a directory, readable by its owner only where they are secret.
    ///
    /// # Errors
    /// They aren't those of the cluster whose authority is `ca_pem`, or others are there.
    pub fn settle(&self, dir: &Path, ca_pem: &str) -> Result<(), HandoverError> {
        let own = &self.0[LAST];
        if own.trim_ascii() != ca_pem.as_bytes().trim_ascii() {
            return Err(HandoverError::OtherCluster);
        }
        if fs::read(dir.join(LAST)).is_ok_and(|there| there != *own) {
            return Err(HandoverError::Occupied(dir.display().to_string()));
        }
        files::ensure_private_dir(dir)?;
        let is_public = |name: &str| name.ends_with(".crt") || name.ends_with(".pub");
        let mut order: Vec<_> = self.0.iter().collect();
        order.sort_by_key(|(name, _)| (*name == LAST, is_public(name)));
        for (name, text) in order {
            let path = dir.join(name);
            if is_public(name) {
                files::write_public(&path, text)?
            } else {
                files::write_private(&path, text)?
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::pki::Pki;

    fn made(dir: &Path) -> (Authorities, String) {
        let pki = Pki::load_or_create(dir).expect("made");
        pki.write_etcd_client(dir).expect("written");
        (Authorities::read(dir).expect("read"), pki.ca_pem().to_owned())
    }

    #[test]
    fn a_new_member_has_the_same_authorities() {
        let (old, new) =
            (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let (authorities, ca) = made(old.path());
        let key: CertificateKey = CertificateKey::random().to_string().parse().expect("a key");
        let sealed = authorities.seal(&key);
        assert!(!sealed.contains_key("etcd-client.key"), "it opens the store, and is made anew");
        let opened = Authorities::open(&sealed, &key).expect("opened");
        let dir = new.path().join("pki");
        opened.settle(&dir, &ca).expect("written");
        opened.settle(&dir, &ca).expect("again is no harm");
        assert_eq!(Pki::load_or_create(&dir).expect("used").ca_pem(), ca);
        for name in sealed.keys() {
            let [before, after] = [old.path(), &dir].map(|dir| dir.join(name));
            assert!(fs::read(&before).expect("read") == fs::read(&after).expect("read"), "{name}");
            let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
            assert_eq!(mode(&before), mode(&after), "{name}");
        }
    }

    #[test]
    fn what_is_not_whole_or_not_ours_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let (authorities, ca) = made(dir.path());
        let key = CertificateKey::random();
        let sealed = authorities.seal(&key);
        let refused = |sealed: &BTreeMap<String, Vec<u8>>, key: &CertificateKey| {
            Authorities::open(sealed, key).err().expect("refused").to_string()
        };
        assert!(refused(&sealed, &CertificateKey::random()).contains("certificate key is another one"));
        let mut swapped = sealed.clone();
        let other = swapped["peer-ca.key"].clone();
        swapped.insert("ca.key".to_owned(), other);
        assert!(refused(&swapped, &key).starts_with("ca.key can't be opened"));
        let mut short = sealed.clone();
        short.insert("ca.key".to_owned(), vec![1; 3]);
        assert!(refused(&short, &key).starts_with("ca.key can't be opened"));
        let mut more = sealed.clone();
        more.insert("../x.key".to_owned(), Vec::new());
        assert!(refused(&more, &key).contains("is no file of the authorities"));
        let mut less = sealed.clone();
        less.remove(LAST);
        assert!(refused(&less, &key).contains("not among"));
        let another = tempfile::tempdir().expect("a directory");
        let (_, other_ca) = made(another.path());
        assert!(matches!(authorities.settle(dir.path(), &other_ca), Err(HandoverError::OtherCluster)));
        assert!(matches!(authorities.settle(another.path(), &ca), Err(HandoverError::Occupied(_))));
        assert!(Authorities::read(&dir.path().join("none")).is_err());
    }

    #[test]
    fn keys_are_digits_and_arent_shown() {
        let key = CertificateKey::random();
        assert_eq!(key.to_string().len(), 64);
        assert!(!format!("{key:?}").contains(&key.to_string()[..8]));
        for text in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            let refused = text.parse::<CertificateKey>().expect_err("no key");
            assert!(refused.contains("64 hexadecimal digits"), "{text}");
        }
        for (name, shared) in [
            ("ca.crt", true),
            ("front-proxy-ca.key", true),
            ("sa-old.pub", true),
            ("encryption.keys", true),
            ("etcd-client.key", false),
            ("ca.tmp-12", false),
            ("sa/../x.key", false),
            ("", false),
        ] {
            assert_eq!(is_shared(name), shared, "{name}");
        }
    }
}
