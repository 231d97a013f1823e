//! The name of an image: `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`.
//!
//! Short names are Docker Hub's, as everywhere: `busybox` is `docker.io/library/busybox:latest`.

use std::fmt;
use std::str::FromStr;

use crate::image::{Digest, ImageError};

/// The registry of names without one.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// An image's whole name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Host, and port if any.
    pub registry: String,
    /// Path in the registry, such as `library/busybox`.
    pub repository: String,
    /// `None` only where there is a digest.
    pub tag: Option<String>,
    /// Pins the contents.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Registry and repository.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository by contents.
    pub fn with_digest(&self, digest: &Digest) -> Self {
        Self { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }
}

/// Whether an image's name says where the image comes from, rather than leaving it to a default.
pub fn names_registry(text: &str) -> bool {
    text.split_once('/').is_some_and(|(host, _)| is_host(host))
}

/// A path's first part is a host if it can't be a directory's name.
fn is_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|why| ImageError::Reference { text: text.to_owned(), why })
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse()?)),
        None => (text, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
        _ => (rest, None),
    };
    let (registry, repository) = split_registry(name);
    check_repository(&repository)?;
    check_registry(registry)?;
    tag.iter().try_for_each(|tag| check_tag(tag))?;
    let tag = if digest.is_none() { tag.or_else(|| Some("latest".to_owned())) } else { tag };
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

/// The first part is a registry if it looks like a host; `index.docker.io` is Docker Hub's old name.
fn split_registry(name: &str) -> (&str, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((host, rest)) if is_host(host) => (host, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    match registry == DEFAULT_REGISTRY && !repository.contains('/') {
        true => (registry, format!("library/{repository}")),
        false => (registry, repository.to_owned()),
    }
}

fn check_repository(repository: &str) -> Result<(), String> {
    if repository.len() > 255 {
        return Err("the repository's name is longer than 255 characters".to_owned());
    }
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("invalid reference format: repository name must be lowercase".to_owned());
    }
    let good = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        part.bytes().all(|b| inner(b) || matches!(b, b'.' | b'_' | b'-'))
            && part.bytes().next().is_some_and(inner)
            && part.bytes().last().is_some_and(inner)
    };
    if repository.split('/').all(good) { Ok(()) } else { Err("invalid reference format".to_owned()) }
}

fn check_registry(registry: &str) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    if !registry.is_empty() && registry.bytes().all(good) {
        return Ok(());
    }
    Err("invalid reference format".to_owned())
}

fn check_tag(tag: &str) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let begins = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if begins && tag.len() <= 128 && tag.bytes().all(good) {
        return Ok(());
    }
    Err("invalid reference format".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_everywhere() {
        let digest = Digest::of(b"x").to_string();
        for (text, want) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("busybox:1.36", "docker.io/library/busybox:1.36".to_owned()),
            ("a/b", "docker.io/a/b:latest".to_owned()),
            ("index.docker.io/b", "docker.io/library/b:latest".to_owned()),
            ("localhost/b", "localhost/b:latest".to_owned()),
            ("127.0.0.1:5000/b", "127.0.0.1:5000/b:latest".to_owned()),
            ("registry.k8s.io/e2e/agnhost:2.53", "registry.k8s.io/e2e/agnhost:2.53".to_owned()),
            (&format!("busybox@{digest}"), format!("docker.io/library/busybox@{digest}")),
            (&format!("busybox:1@{digest}"), format!("docker.io/library/busybox@{digest}")),
        ] {
            assert_eq!(text.parse::<Reference>().expect(text).to_string(), want);
        }
    }

    #[test]
    fn a_registry_is_named_or_not() {
        for named in ["localhost/b", "127.0.0.1:5000/b", "registry.k8s.io/pause:3.10", "docker.io/library/b"]
        {
            assert!(names_registry(named), "{named}");
        }
        for short in ["busybox", "busybox:1.36", "a/b", "shop:1"] {
            assert!(!names_registry(short), "{short}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "invalid reference format"),
            ("Busybox", "invalid reference format: repository name must be lowercase"),
            ("a//b", "invalid reference format"),
            ("a:b c", "invalid reference format"),
            ("a/../b", "invalid reference format"),
            ("a@sha256:12", "\"sha256:12\" is not sha256: and 64 digits"),
        ] {
            let error = text.parse::<Reference>().expect_err(text);
            assert_eq!(error.to_string(), format!("couldn't parse image name {text:?}: {why}"));
        }
    }
}
