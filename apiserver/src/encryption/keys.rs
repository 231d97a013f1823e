//! The keys that seal values at rest, in a file of one key a line.
//!
//! A line is `ID BASE64`, 32 bytes in base64. The first key seals, all open. To change keys, put a new line at
//! the top of every member's file and restart the members one after the other: a member that meets a value
//! under an id that it doesn't know reads its file again, and each seals anew at its start what lies under
//! another key than the first. When all have started, the old line can go.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parking_lot::RwLock;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

const PREFIX: &[u8] = b"k8s:enc:aesgcm:v1:";
const KEY_LENGTH: usize = 32;

/// The keys, and the file that they come from.
pub struct EncryptionKeys {
    path: PathBuf,
    ring: RwLock<Arc<KeyRing>>,
}

/// What a file says.
struct KeyRing(Vec<(String, LessSafeKey)>);

/// Why a key file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It can't be read.
    #[error("read the encryption keys {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line isn't what it should be.
    #[error(
        "encryption keys {} line {line}: {problem}; expected ID BASE64, where ID is of a-z, 0-9 and - and BASE64 \
         is {KEY_LENGTH} bytes. Without its keys no Secret can be read: restore the file from a backup",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1; one behind the last if there is no key at all.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Why a value can't be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Its key isn't in the file.
    #[error("it is sealed with key {id:?}, which is not in {}: add the key's line to that file (a backup needs the \
         file of its cluster)", path.display())]
    UnknownKey {
        /// The key's id.
        id: String,
        /// The key file.
        path: PathBuf,
    },
    /// It was changed, or put at another place, or its key is another of the same id.
    #[error("it was changed since it was sealed with key {0:?}, or that key is another one now")]
    Damaged(String),
}

impl EncryptionKeys {
    /// The text of a file with one new key. Its id is random: a value of another cluster, as from a backup, is
    /// known by it.
    pub fn new_file() -> String {
        let (mut id, mut key) = ([0; 4], [0; KEY_LENGTH]);
        random(&mut id);
        random(&mut key);
        format!("key-{:08x} {}\n", u32::from_be_bytes(id), STANDARD.encode(key))
    }

    /// Reads the keys.
    ///
    /// # Errors
    /// The file can't be used; the error names the line.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        Ok(Self { path: path.to_owned(), ring: RwLock::new(Arc::new(KeyRing::load(path)?)) })
    }

    /// The sealed form of a value that is to lie at `key`.
    pub fn seal(&self, key: &[u8], value: &[u8]) -> Bytes {
        let ring = self.ring.read().clone();
        let (id, cipher) = &ring.0[0];
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce);
        let mut out = Vec::with_capacity(PREFIX.len() + id.len() + 1 + NONCE_LEN + value.len() + 16);
        out.extend_from_slice(PREFIX);
        out.extend_from_slice(id.as_bytes());
        out.push(b':');
        out.extend_from_slice(&nonce);
        let mut text = value.to_vec();
        let sealed =
            cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(key), &mut text);
        sealed.expect("a value is far below the cipher's limit of 64 GiB");
        out.extend_from_slice(&text);
        out.into()
    }

    /// What was sealed; a value that never was is given back as it is.
    ///
    /// # Errors
    /// Its key is unknown, or it was changed.
    pub fn open(&self, key: &[u8], value: &Bytes) -> Result<Bytes, OpenError> {
        let Some((id, sealed)) = parts(value) else { return Ok(value.clone()) };
        let ring = self.ring_with(&id)?;
        let (_, cipher) = ring.0.iter().find(|(own, _)| *own == id).expect("the ring was chosen for the id");
        let damaged = || OpenError::Damaged(id.clone());
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut text = text.to_vec();
        let opened = cipher.open_in_place(nonce, Aad::from(key), &mut text).map_err(|_| damaged())?;
        let length = opened.len();
        text.truncate(length);
        Ok(text.into())
    }

    /// Whether a value should be sealed anew: it never was, or with another key than the first.
    pub fn is_stale(&self, value: &[u8]) -> bool {
        let ring = self.ring.read();
        parts(value).is_none_or(|(id, _)| id != ring.0[0].0)
    }

    /// Keys with this one among them. Another member may have begun to use it: then the file knows it by now.
    fn ring_with(&self, id: &str) -> Result<Arc<KeyRing>, OpenError> {
        let knows = |ring: &KeyRing| ring.0.iter().any(|(own, _)| own == id);
        let ring = self.ring.read().clone();
        if knows(&ring) {
            return Ok(ring);
        }
        let unknown = || OpenError::UnknownKey { id: id.to_owned(), path: self.path.clone() };
        let fresh = KeyRing::load(&self.path).map_err(|error| {
            tracing::warn!(%error, "the encryption keys can't be read again");
            unknown()
        })?;
        let fresh = Arc::new(fresh);
        *self.ring.write() = fresh.clone();
        if knows(&fresh) { Ok(fresh) } else { Err(unknown()) }
    }
}

impl KeyRing {
    fn load(path: &Path) -> Result<Self, KeyFileError> {
        let text = fs::read_to_string(path)
            .map_err(|source| KeyFileError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|(line, problem)| KeyFileError::Line {
            path: path.to_owned(),
            line,
            problem,
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut keys: Vec<(String, LessSafeKey)> = Vec::new();
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (id, key) = parse_line(line).map_err(|problem| (number, problem))?;
            if keys.iter().any(|(other, _)| *other == id) {
                return Err((number, "its id is taken by a line above"));
            }
            keys.push((id, key));
        }
        if keys.is_empty() { Err((text.lines().count() + 1, "there is no key")) } else { Ok(Self(keys)) }
    }
}

fn parse_line(line: &str) -> Result<(String, LessSafeKey), &'static str> {
    let (id, key) = line.split_once(char::is_whitespace).ok_or("it has no two parts")?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !id.bytes().all(plain) {
        return Err("the id has other characters");
    }
    let key = STANDARD.decode(key.trim()).map_err(|_| "the key is no base64")?;
    let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| "the key has another length")?;
    Ok((id.to_owned(), LessSafeKey::new(key)))
}

/// The key's id and what is behind it; `None` if the value isn't sealed.
fn parts(value: &[u8]) -> Option<(String, &[u8])> {
    let rest = value.strip_prefix(PREFIX)?;
    let end = rest.iter().position(|byte| *byte == b':')?;
    Some((String::from_utf8_lossy(&rest[..end]).into_owned(), &rest[end + 1..]))
}

fn random(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the system has random numbers");
}

impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ring = self.ring.read();
        let ids: Vec<&str> = ring.0.iter().map(|(id, _)| id.as_str()).collect();
        write!(f, "EncryptionKeys({} {ids:?})", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_key(id: &str) -> String {
        let file = EncryptionKeys::new_file();
        format!("{id} {}", file.split_once(' ').expect("two parts").1)
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("keys");
        fs::write(&path, text).expect("written");
        (dir, path)
    }

    #[test]
    fn what_was_sealed_opens_at_its_place_only() {
        let (_dir, path) = file(&one_key("key1"));
        let keys = EncryptionKeys::load(&path).expect("a key");
        let (one, two) = (keys.seal(b"a", b"text"), keys.seal(b"a", b"text"));
        assert_ne!(one, two, "each has its own nonce");
        assert!(!one.windows(4).any(|window| window == b"text"));
        assert_eq!(keys.open(b"a", &one), Ok(Bytes::from_static(b"text")));
        assert_eq!(keys.open(b"b", &one), Err(OpenError::Damaged("key1".to_owned())));
        for at in PREFIX.len() + 5..one.len() {
            let mut changed = one.to_vec();
            changed[at] ^= 1;
            assert!(keys.open(b"a", &changed.into()).is_err(), "byte {at}");
        }
        for end in PREFIX.len() + 5..one.len() {
            assert!(keys.open(b"a", &one.slice(..end)).is_err(), "cut at {end}");
        }
        let plain = Bytes::from_static(b"{}");
        assert_eq!(keys.open(b"a", &plain), Ok(plain.clone()));
        assert!(keys.is_stale(&plain) && !keys.is_stale(&one));
    }

    #[test]
    fn a_new_key_seals_and_the_old_one_still_opens() {
        let (_dir, path) = file(&one_key("key1"));
        let before = EncryptionKeys::load(&path).expect("a key");
        let old = before.seal(b"a", b"text");
        let text = fs::read_to_string(&path).expect("there");
        fs::write(&path, one_key("key2") + &text).expect("written");
        let after = EncryptionKeys::load(&path).expect("two keys");
        assert!(after.is_stale(&old));
        assert_eq!(after.open(b"a", &old), Ok(Bytes::from_static(b"text")));
        let new = after.seal(b"a", b"text");
        assert_eq!(before.open(b"a", &new), Ok(Bytes::from_static(b"text")), "the file is read again");
        fs::write(&path, text).expect("written");
        let lost = EncryptionKeys::load(&path).expect("one key").open(b"a", &new).expect_err("unknown");
        assert_eq!(lost, OpenError::UnknownKey { id: "key2".to_owned(), path });
    }

    #[test]
    fn bad_files_are_refused_by_line() {
        let key = STANDARD.encode([7; KEY_LENGTH]);
        let cases = [
            (String::new(), 1, "there is no key"),
            ("# none\n".to_owned(), 2, "there is no key"),
            (key.clone(), 1, "it has no two parts"),
            (format!("\nA {key}"), 2, "the id has other characters"),
            (format!("a {key}!"), 1, "the key is no base64"),
            ("a AAAA".to_owned(), 1, "the key has another length"),
            (format!("a {key}\na {key}"), 2, "its id is taken by a line above"),
        ];
        for (text, line, problem) in cases {
            assert_eq!(KeyRing::parse(&text).err(), Some((line, problem)), "{text}");
        }
        let (_dir, path) = file("a AAAA");
        let error = EncryptionKeys::load(&path).expect_err("too short").to_string();
        assert!(error.contains("line 1: the key has another length") && !error.contains("AAAA"), "{error}");
    }
}
