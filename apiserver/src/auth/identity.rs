//! Users, as authentication finds them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use x509_parser::x509::AttributeTypeAndValue;

/// The user of requests without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of requests without credentials.
pub const UNAUTHENTICATED_GROUP: &str = "system:unauthenticated";
/// The group of everybody with credentials.
pub const AUTHENTICATED_GROUP: &str = "system:authenticated";

/// An authenticated user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User name.
    pub user: String,
    /// Unique id of the user, if the authenticator knows one.
    pub uid: Option<String>,
    /// Groups, in the order the authenticator gave them.
    pub groups: Vec<String>,
    /// Further attributes.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// A user in groups, without uid.
    pub fn new(user: impl Into<String>, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Self { user: user.into(), groups, ..Self::default() }
    }

    /// Whoever shows no credentials.
    pub fn anonymous() -> Self {
        Self::new(ANONYMOUS, &[UNAUTHENTICATED_GROUP])
    }

    /// The user of a certificate that TLS has verified: common name and organizations. `None` if it names
    /// nobody.
    pub fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next().and_then(text).filter(|user| !user.is_empty())?;
        let groups = subject.iter_organization().filter_map(text).collect();
        Some(Self { user, groups, ..Self::default() })
    }

    /// The same user as a member of `system:authenticated`.
    pub fn authenticated(mut self) -> Self {
        if self.user != ANONYMOUS && !self.groups.iter().any(|group| group == AUTHENTICATED_GROUP) {
            self.groups.push(AUTHENTICATED_GROUP.to_owned());
        }
        self
    }

    /// Whether the user is in `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// As `authentication.k8s.io` writes a UserInfo.
    pub fn to_user_info(&self) -> Value {
        let mut info = json!({ "username": self.user, "groups": self.groups });
        if let Some(uid) = &self.uid {
            info["uid"] = json!(uid);
        }
        if !self.extra.is_empty() {
            info["extra"] = json!(self.extra);
        }
        info
    }
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    attribute.as_str().ok().map(str::to_owned)
}
