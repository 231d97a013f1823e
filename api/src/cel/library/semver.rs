//! Semantic versions.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::Answer;
use crate::cel::value::Value;

use Value::{Bool, Int, Semver as V, String as Text};

/// A semantic version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<String>,
    build: String,
}

impl Semver {
    /// Reads a version; a lenient one may lack its last numbers or begin with `v`. `None` if it is none.
    fn parse(text: &str, lenient: bool) -> Option<Self> {
        let text = if lenient { text.trim_start_matches('v') } else { text };
        let (text, build) = text.split_once('+').unwrap_or((text, ""));
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let mut numbers = [0; 3];
        let parts: Vec<&str> = core.split('.').collect();
        if parts.len() > 3 || !lenient && parts.len() < 3 {
            return None;
        }
        for (number, part) in numbers.iter_mut().zip(&parts) {
            let padded = part.len() > 1 && part.starts_with('0') && !lenient;
            *number = part.parse().ok().filter(|_| !padded && part.chars().all(|c| c.is_ascii_digit()))?;
        }
        let pre: Vec<String> = pre.into_iter().flat_map(|pre| pre.split('.')).map(str::to_owned).collect();
        let word =
            |part: &String| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        pre.iter().all(word).then(|| Self { numbers, pre, build: build.to_owned() })
    }

    fn precedes(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let pairs = self.pre.iter().zip(&other.pre).map(|(a, b)| identifiers(a, b));
                pairs.fold(Ordering::Equal, Ordering::then).then(self.pre.len().cmp(&other.pre.len()))
            }
        })
    }
}

fn identifiers(a: &str, b: &str) -> Ordering {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        if !self.pre.is_empty() {
            write!(f, "-{}", self.pre.join("."))?;
        }
        if self.build.is_empty() { Ok(()) } else { write!(f, "+{}", self.build) }
    }
}

pub(super) fn call<'v>(name: &str, args: &[Value<'v>]) -> Option<Answer<'v>> {
    let parse = |text: &str, lenient: bool| {
        Semver::parse(text, lenient).ok_or_else(|| format!("semver parse error on {text:?}"))
    };
    Some(match (name, args) {
        ("semver", [Text(text)]) => parse(text, false).map(|version| V(Arc::new(version))),
        ("semver", [Text(text), Bool(lenient)]) => parse(text, *lenient).map(|version| V(Arc::new(version))),
        ("isSemver", [Text(text)]) => Ok(Bool(parse(text, false).is_ok())),
        ("isSemver", [Text(text), Bool(lenient)]) => Ok(Bool(parse(text, *lenient).is_ok())),
        ("major" | "minor" | "patch", [V(version)]) => {
            let index = ["major", "minor", "patch"].iter().position(|part| *part == name).unwrap_or(0);
            i64::try_from(version.numbers[index]).map(Int).map_err(|_| "integer overflow".to_owned())
        }
        ("isLessThan", [V(a), V(b)]) => Ok(Bool(a.precedes(b) == Ordering::Less)),
        ("isGreaterThan", [V(a), V(b)]) => Ok(Bool(a.precedes(b) == Ordering::Greater)),
        ("compareTo", [V(a), V(b)]) => Ok(Int(a.precedes(b) as i64)),
        _ => return None,
    })
}
