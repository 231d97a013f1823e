//! What a client is warned of while its request is served: the `Warning` headers of the answer, also of a refusal.
//!
//! Upstream's `k8s.io/apiserver/pkg/endpoints/filters/warning.go` gives the limits.

use http::Response;
use http::header::{HeaderName, HeaderValue};
use parking_lot::Mutex;

use crate::body::Body;

const WARNING: HeaderName = HeaderName::from_static("warning");
/// All warnings of an answer, in characters; beyond it each is cut.
const MOST: usize = 4 << 10;
/// What is left of each then.
const EACH: usize = 256;

/// The warnings of a request, each said once, in the order in which they came up.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// Warns of something. A request that is tried again comes by here again.
    pub fn add(&self, text: impl Into<String>) {
        let (text, mut all) = (text.into(), self.0.lock());
        if !text.is_empty() && !all.contains(&text) {
            all.push(text);
        }
    }

    /// Warns of several things.
    pub fn extend(&self, texts: impl IntoIterator<Item = String>) {
        texts.into_iter().for_each(|text| self.add(text));
    }

    /// Puts a header for each on the answer.
    pub fn put_on(&self, response: &mut Response<Body>) {
        for text in within_limits(&self.0.lock()) {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                response.headers_mut().append(WARNING, value);
            }
        }
    }
}

/// As they are if they fit; else shortened, and as many as fit then.
fn within_limits(all: &[String]) -> Vec<String> {
    let length = |text: &String| text.chars().count();
    if all.iter().map(length).sum::<usize>() <= MOST {
        return all.to_vec();
    }
    let mut left = MOST;
    let mut kept = Vec::new();
    for text in all {
        if left == 0 {
            break;
        }
        let short: String = text.chars().take(EACH).collect();
        left = left.saturating_sub(length(&short));
        kept.push(short);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_said_once_and_quoted() {
        let warnings = Warnings::default();
        warnings.extend(["a \"b\"\n\\c".to_owned(), String::new(), "d".to_owned()]);
        warnings.add("a \"b\"\n\\c");
        let mut response = Response::new(Body::empty());
        warnings.put_on(&mut response);
        let said: Vec<&HeaderValue> = response.headers().get_all(WARNING).iter().collect();
        assert_eq!(said, [r#"299 - "a \"b\" \\c""#, r#"299 - "d""#]);
    }

    #[test]
    fn many_are_cut() {
        let few = vec!["é".repeat(4096)];
        assert_eq!(within_limits(&few), few);
        let many: Vec<String> = (0..40).map(|number| format!("{number}{}", "é".repeat(300))).collect();
        let kept = within_limits(&many);
        assert_eq!((kept.len(), kept[0].chars().count()), (16, EACH));
    }
}
