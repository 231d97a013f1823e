//! The continue token of a paged list: where to go on, and at which revision.
//!
//! The form is upstream's, base64url of `{"v":"meta.k8s.io/v1","rv":N,"start":"key\u0000"}`, with the key
//! relative to the list's place. Revision -1 means "newest": the pages before may have been another state.

use api::status::Status;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use store::kv::{KeyRange, Revision};

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continue {
    /// The state that the first page showed; `None` to go on with the newest.
    pub revision: Option<Revision>,
    /// The first key of the next page.
    pub start: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: String,
    rv: i64,
    start: String,
}

const VERSION: &str = "meta.k8s.io/v1";

impl Continue {
    /// Behind `last`, the last key of a page.
    pub fn after(last: &[u8], revision: Revision) -> Self {
        let start = [last, &[0]].concat().into();
        Self { revision: Some(revision), start }
    }

    /// The token for the same place in the newest state.
    pub fn inconsistent(&self) -> Self {
        Self { revision: None, start: self.start.clone() }
    }

    /// The token; `place` is the prefix of the list's keys.
    pub fn encode(&self, place: &[u8]) -> String {
        let start = self.start.strip_prefix(place).unwrap_or_default();
        let wire = Wire {
            v: VERSION.to_owned(),
            rv: self.revision.map_or(-1, |revision| i64::try_from(revision.0).unwrap_or(i64::MAX)),
            start: String::from_utf8_lossy(start).into_owned(),
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).expect("three plain fields encode"))
    }

    /// Reads a token for a list of `range`, all of whose keys begin with `place`.
    ///
    /// # Errors
    /// 400 if it is none, or leads out of the range.
    pub fn decode(token: &str, place: &[u8], range: &KeyRange) -> Result<Self, Status> {
        let bad = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|e| bad(&e.to_string()))?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))?;
        if wire.v != VERSION {
            return Err(bad(&format!("server does not recognize this encoded version {:?}", wire.v)));
        }
        let start: Bytes = [place, wire.start.as_bytes()].concat().into();
        if !range.contains(&start) {
            return Err(bad("it leads out of the list"));
        }
        let revision = match wire.rv {
            -1 => None,
            rv => Some(Revision(
                u64::try_from(rv)
                    .ok()
                    .filter(|rv| *rv > 0)
                    .ok_or_else(|| bad("incorrect encoded start resourceVersion"))?,
            )),
        };
        Ok(Self { revision, start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &[u8] = b"/registry/core/pods/";

    fn decoded(json: &str) -> Result<Continue, Status> {
        Continue::decode(&URL_SAFE_NO_PAD.encode(json), PLACE, &KeyRange::prefix(PLACE))
    }

    #[test]
    fn a_token_comes_back_as_it_was() {
        let token = Continue::after(b"/registry/core/pods/a/p", Revision(7));
        let text = token.encode(PLACE);
        let json = URL_SAFE_NO_PAD.decode(&text).expect("base64url");
        assert_eq!(json, br#"{"v":"meta.k8s.io/v1","rv":7,"start":"a/p\u0000"}"#);
        assert_eq!(decoded(std::str::from_utf8(&json).expect("text")), Ok(token.clone()));
        assert_eq!(
            decoded(r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"a/p\u0000"}"#),
            Ok(token.inconsistent())
        );
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let place = KeyRange::prefix(PLACE);
        for token in ["!", "e30", ""] {
            assert_eq!(Continue::decode(token, PLACE, &place).map_err(|s| s.code()), Err(400), "{token}");
        }
        for json in [
            r#"{"v":"other","rv":7,"start":"a"}"#,
            r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#,
            r#"{"v":"meta.k8s.io/v1","rv":-7,"start":"a"}"#,
        ] {
            assert_eq!(decoded(json).map_err(|s| s.code()), Err(400), "{json}");
        }
    }

    #[test]
    fn a_token_of_another_namespace_leads_nowhere() {
        let inside = KeyRange::prefix(&b"/registry/core/pods/a/"[..]);
        let token = Continue::after(b"/registry/core/pods/b/p", Revision(7)).encode(PLACE);
        assert_eq!(Continue::decode(&token, PLACE, &inside).map_err(|s| s.code()), Err(400));
    }
}
