//! URL paths of the Kubernetes API and their queries.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::kinds::Kind;

/// What RFC 3986 calls unreserved stays readable; everything else is escaped, so that a name given by a
/// user can't become a second path segment or a query.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `text` as one segment of a path or one part of a query.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The collection of `kind`: in `namespace`, or in all of them.
pub fn collection(kind: &Kind, namespace: Option<&str>) -> String {
    let mut path = match kind.group.as_str() {
        "" => format!("/api/{}", kind.version),
        group => format!("/apis/{group}/{}", kind.version),
    };
    if let Some(namespace) = namespace.filter(|_| kind.namespaced) {
        // Writing to a String can't fail.
        let _ = write!(path, "/namespaces/{}", escape(namespace));
    }
    let _ = write!(path, "/{}", kind.plural);
    path
}

/// One object of `kind`.
pub fn object(kind: &Kind, namespace: &str, name: &str) -> String {
    format!("{}/{}", collection(kind, Some(namespace)), escape(name))
}

/// A query string under construction; empty values are left out.
#[derive(Clone, Debug, Default)]
pub struct Query(String);

impl Query {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `name=value`, unless the value is empty.
    pub fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        if !value.as_ref().is_empty() {
            let _ = write!(self.0, "{}{name}={}", self.separator(), escape(value.as_ref()));
        }
        self
    }

    /// Adds `name=value` if there is a value.
    pub fn with_some(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// `path` with this query behind it.
    pub fn on(&self, path: &str) -> String {
        format!("{path}{}", self.0)
    }

    fn separator(&self) -> char {
        if self.0.is_empty() { '?' } else { '&' }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::kinds::testing::kind;

    #[test]
    fn paths_of_core_and_named_groups() {
        assert_eq!(collection(&kind("pods"), Some("a")), "/api/v1/namespaces/a/pods");
        assert_eq!(collection(&kind("pods"), None), "/api/v1/pods");
        assert_eq!(object(&kind("deployments"), "a", "b"), "/apis/apps/v1/namespaces/a/deployments/b");
        assert_eq!(object(&kind("nodes"), "ignored", "n1"), "/api/v1/nodes/n1");
    }

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(object(&kind("pods"), "a", "../b?c"), "/api/v1/namespaces/a/pods/..%2Fb%3Fc");
    }

    #[test]
    fn queries_escape_values_and_skip_empty_ones() {
        let query =
            Query::new().with("labelSelector", "a in (b,c)").with("x", "").with_some("limit", Some("5"));
        assert_eq!(query.on("/p"), "/p?labelSelector=a%20in%20%28b%2Cc%29&limit=5");
        assert_eq!(Query::new().on("/p"), "/p");
    }
}
