//! URLs and their parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Answer;
use crate::cel::value::Value;

use Value::{Bool, String as Text};

/// A URL in its parts, each as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// All of it.
    pub text: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    /// Reads an absolute URL or an absolute path. Errors: a text.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("URL parse error during conversion from string: parse {text:?}: invalid URI for request")
        };
        if text.chars().any(|c| c.is_control() || c == ' ') || text.is_empty() {
            return Err(wrong());
        }
        let without_fragment = text.split('#').next().unwrap_or_default();
        let (before, query) = without_fragment.split_once('?').unwrap_or((without_fragment, ""));
        let (scheme, rest) = match before.split_once("://") {
            _ if before.starts_with('/') => ("", before),
            Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
            _ => return Err(wrong()),
        };
        let (host, path) = match scheme.is_empty() {
            true => ("", rest),
            false => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        };
        let host = host.rsplit('@').next().unwrap_or(host);
        let owned = |part: &str| part.to_owned();
        Ok(Self {
            text: owned(text),
            scheme: owned(scheme),
            host: owned(host),
            path: owned(path),
            query: owned(query),
        })
    }

    fn hostname(&self) -> &str {
        match self.host.strip_prefix('[') {
            Some(inner) => inner.split(']').next().unwrap_or(inner),
            None => self.host.split(':').next().unwrap_or_default(),
        }
    }

    fn port(&self) -> &str {
        let after = self.host.rsplit(']').next().unwrap_or(&self.host);
        after.rsplit_once(':').map_or("", |(_, port)| port)
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

pub(super) fn call<'v>(name: &str, args: &[Value<'v>]) -> Option<Answer<'v>> {
    let text = |part: &str| Ok(Value::text(part.to_owned()));
    Some(match (name, args) {
        ("url", [Text(given)]) => Url::parse(given).map(|url| Value::Url(Arc::new(url))),
        ("isURL", [Text(given)]) => Ok(Bool(Url::parse(given).is_ok())),
        ("getScheme", [Value::Url(url)]) => text(&url.scheme),
        ("getHost", [Value::Url(url)]) => text(&url.host),
        ("getHostname", [Value::Url(url)]) => text(url.hostname()),
        ("getPort", [Value::Url(url)]) => text(url.port()),
        ("getEscapedPath", [Value::Url(url)]) => text(&url.path),
        ("getQuery", [Value::Url(url)]) => Ok(query(&url.query)),
        _ => return None,
    })
}

fn query<'v>(text: &str) -> Value<'v> {
    let mut values: BTreeMap<String, Vec<Value<'v>>> = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        values.entry(decoded(key)).or_default().push(Value::text(decoded(value)));
    }
    Value::map(values.into_iter().map(|(key, values)| (Value::text(key), Value::list(values))).collect())
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |rest: &std::str::Bytes<'_>| {
            let pair: Vec<u8> = rest.clone().take(2).collect();
            u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok().filter(|_| pair.len() == 2)
        };
        match (byte, hex(&rest)) {
            (b'+', _) => bytes.push(b' '),
            (b'%', Some(value)) => {
                bytes.push(value);
                rest.nth(1);
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
