//! Static bearer tokens: a file of digests, one user a line.
//!
//! A line is `sha256:HEX,user,uid[,"group1,group2"]`, upstream's token file with the digest in the token's
//! place: whoever reads the file can't act as anybody. Tokens are random and long, so a plain digest
//! without salt is enough.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Identity;

const PREFIX: &str = "sha256:";

/// A token's SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
struct TokenDigest([u8; 32]);

/// The known tokens, as digests. `Debug` shows users only.
#[derive(Clone, Default)]
pub struct TokenTable {
    entries: Vec<(TokenDigest, Identity)>,
}

/// Why a token file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file is there but can't be read.
    #[error("read the token file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line isn't what it should be.
    #[error(
        "token file {} line {line}: {problem}; expected sha256:HEX,user,uid,\"group1,group2\"",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
}

impl TokenTable {
    /// Reads a token file; a missing one holds no tokens.
    ///
    /// # Errors
    /// A line that can't be read is refused rather than skipped: its user would be locked out silently.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(TokenError::Read { path: path.to_owned(), source }),
        };
        Self::parse(&text).map_err(|(line, problem)| TokenError::Line {
            path: path.to_owned(),
            line,
            problem,
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let entries = lines.map(|(number, line)| parse_line(line).map_err(|problem| (number, problem)));
        Ok(Self { entries: entries.collect::<Result<_, _>>()? })
    }

    /// Makes `token` known. The token itself isn't kept.
    pub fn insert(&mut self, token: &str, identity: Identity) {
        self.entries.push((TokenDigest::of(token), identity));
    }

    /// The line of a token file that makes `token` known.
    pub fn line(token: &str, identity: &Identity) -> String {
        let TokenDigest(bytes) = TokenDigest::of(token);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let uid = identity.uid.as_deref().unwrap_or_default();
        format!("{PREFIX}{hex},{},{uid},\"{}\"\n", identity.user, identity.groups.join(","))
    }

    /// Whose token it is. Looks at every entry and at every byte, so that the time tells nothing.
    pub fn find(&self, token: &str) -> Option<&Identity> {
        let digest = TokenDigest::of(token);
        self.entries.iter().fold(None, |found, (known, identity)| {
            if equal_in_constant_time(&known.0, &digest.0) { Some(identity) } else { found }
        })
    }
}

impl TokenDigest {
    fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// Whether two secrets are equal, in a time that tells nothing but their lengths. `black_box` keeps the compiler
/// from leaving the loop early.
pub(super) fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    a.len() == b.len() && difference == 0
}

fn parse_line(line: &str) -> Result<(TokenDigest, Identity), &'static str> {
    let mut fields = line.splitn(4, ',').map(str::trim);
    let digest = fields.next().and_then(|field| field.strip_prefix(PREFIX)).and_then(TokenDigest::from_hex);
    let digest = digest.ok_or("the first field is no sha256 digest in hexadecimal")?;
    let user = fields.next().filter(|user| !user.is_empty()).ok_or("the user is missing")?;
    let uid = fields.next().ok_or("the uid is missing (it may be empty)")?;
    let groups = fields.next().unwrap_or_default().trim_matches('"');
    let groups = groups.split(',').map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned);
    let identity = Identity {
        user: user.to_owned(),
        uid: (!uid.is_empty()).then(|| uid.to_owned()),
        groups: groups.collect(),
        ..Identity::default()
    };
    Ok((digest, identity))
}

impl std::fmt::Debug for TokenTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|(_, identity)| &identity.user)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_line_is_found_again_by_its_token_only() {
        let jane = Identity { uid: Some("7".into()), ..Identity::new("jane", &["dev", "ops"]) };
        let line = TokenTable::line("s3cret", &jane);
        assert!(!line.contains("s3cret"));
        let table = TokenTable::parse(&format!("# users\n\n{line}")).expect("valid");
        assert_eq!(table.find("s3cret"), Some(&jane));
        assert_eq!(table.find("s3cre"), None);
        assert_eq!(table.find(""), None);
        assert_eq!(format!("{table:?}"), "[\"jane\"]");
    }

    #[test]
    fn bad_lines_are_refused_by_number() {
        let digest = "sha256:".to_owned() + &"0".repeat(64);
        let cases = [
            ("clear,jane,1".to_owned(), "the first field is no sha256 digest in hexadecimal"),
            ("sha256:beef,jane,1".to_owned(), "the first field is no sha256 digest in hexadecimal"),
            (
                format!("sha256:{},jane,1", "é".repeat(32)),
                "the first field is no sha256 digest in hexadecimal",
            ),
            (digest.clone(), "the user is missing"),
            (format!("{digest},,1"), "the user is missing"),
            (format!("{digest},jane"), "the uid is missing (it may be empty)"),
        ];
        for (line, problem) in cases {
            assert_eq!(TokenTable::parse(&format!("\n{line}\n")).err(), Some((2, problem)), "{line}");
        }
    }

    #[test]
    fn a_missing_file_holds_no_tokens() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert!(
            TokenTable::load(&dir.path().join("tokens.csv")).expect("missing is fine").entries.is_empty()
        );
        fs::write(dir.path().join("bad.csv"), "x").expect("write");
        let error = TokenTable::load(&dir.path().join("bad.csv")).expect_err("bad line").to_string();
        assert!(error.contains("bad.csv line 1"), "{error}");
    }
}
