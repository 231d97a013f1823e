//! Who calls: the name in the client's certificate and the program it says it is.

use std::sync::Arc;

use http::HeaderMap;
use store::kv::Origin;

/// Who makes a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The common name of the client's certificate; empty without one.
    pub user: String,
    /// The first word of the user agent.
    pub agent: String,
}

/// The caller of a connection's next call. All calls of a connection usually come from one program, so
/// its name is kept rather than made anew for each.
pub struct Callers {
    last: Arc<Caller>,
}

impl Caller {
    /// For the journal: who did `verb`.
    pub fn origin(&self, verb: &str) -> Origin {
        Origin { user: self.user.clone(), agent: self.agent.clone(), verb: verb.into(), cause: None }
    }
}

impl Callers {
    /// A connection of `user`.
    pub fn new(user: String) -> Self {
        Self { last: Arc::new(Caller { user, agent: String::new() }) }
    }

    /// The caller of a call with these headers.
    pub fn of(&mut self, headers: &HeaderMap) -> Arc<Caller> {
        let agent = headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        let agent = agent.and_then(|agent| agent.split(' ').next()).unwrap_or_default();
        if self.last.agent != agent {
            self.last = Arc::new(Caller { user: self.last.user.clone(), agent: agent.into() });
        }
        self.last.clone()
    }
}

/// The common name of a certificate's subject; empty if it has none or can't be read.
pub fn common_name(certificate: &[u8]) -> String {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
        return String::new();
    };
    let mut names = certificate.subject().iter_common_name();
    names.next().and_then(|name| name.as_str().ok()).unwrap_or_default().into()
}
