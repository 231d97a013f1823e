//! What is recorded: an `audit.k8s.io/v1` Policy, whose first matching rule decides.
//!
//! The levels that record bodies are taken for Metadata: bodies would bring Secrets into a file.

use std::path::Path;

use serde::Deserialize;

use crate::auth::Identity;
use crate::request::RequestInfo;

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what and the outcome.
    #[serde(alias = "Request", alias = "RequestResponse")]
    Metadata,
}

/// The rules, the first that matches decides; what none matches is not recorded.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    #[serde(default)]
    rules: Vec<Rule>,
}

/// Empty lists match everything.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    level: Level,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Resources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// Why a policy can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file can't be read.
    #[error("read the audit policy {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no policy.
    #[error("the audit policy {path} is no audit.k8s.io/v1 Policy")]
    Parse {
        /// The file.
        path: String,
        /// Where it is wrong.
        #[source]
        source: serde_yaml::Error,
    },
}

/// Everything that changes something; no reads, and nothing that components do all the time.
const DEFAULT: &str = "
rules:
- {level: None, resources: [{group: coordination.k8s.io, resources: [leases]}, {resources: [events]}, {group: events.k8s.io, resources: [events]}]}
- {level: None, users: ['system:node:*'], resources: [{resources: [nodes/status, pods/status]}]}
- {level: Metadata, verbs: [create, update, patch, delete, deletecollection]}
";

impl Default for Policy {
    fn default() -> Self {
        serde_yaml::from_str(DEFAULT).expect("the built-in policy is one")
    }
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// It can't be read or isn't a policy.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let shown = || path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| PolicyError::Read { path: shown(), source })?;
        serde_yaml::from_str(&text).map_err(|source| PolicyError::Parse { path: shown(), source })
    }

    /// How much of the request is recorded.
    pub fn level(&self, who: &Identity, info: &RequestInfo) -> Level {
        self.rules.iter().find(|rule| rule.matches(who, info)).map_or(Level::None, |rule| rule.level)
    }
}

impl Rule {
    fn matches(&self, who: &Identity, info: &RequestInfo) -> bool {
        any(&self.users, |user| fits(user, &who.user))
            && any(&self.user_groups, |group| who.groups.contains(group))
            && any(&self.verbs, |verb| verb == info.verb.as_str())
            && self.matches_target(info)
    }

    fn matches_target(&self, info: &RequestInfo) -> bool {
        let on_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        match info.is_resource {
            false => !on_resources && any(&self.urls, |url| fits(url, &info.path)),
            true if !self.urls.is_empty() && !on_resources => false,
            true => {
                let namespace = info.namespace.as_deref().unwrap_or_default();
                any(&self.namespaces, |wanted| wanted == namespace)
                    && any(&self.resources, |resources| resources.match_with(info))
            }
        }
    }
}

impl Resources {
    fn match_with(&self, info: &RequestInfo) -> bool {
        let path = info.resource_path();
        let is = |wanted: &String| {
            *wanted == path
                || *wanted == "*"
                || wanted.strip_suffix("/*").is_some_and(|of| of == info.plural && info.subresource.is_some())
                || wanted.strip_prefix("*/").is_some_and(|sub| info.subresource.as_deref() == Some(sub))
        };
        self.group == info.group
            && any(&self.resources, is)
            && any(&self.resource_names, |name| info.name.as_deref() == Some(name))
    }
}

fn any<T>(wanted: &[T], matches: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(matches)
}

/// Equal, or with the same beginning if a star ends the pattern.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => text.starts_with(prefix),
        None => pattern == text,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::registry::Registry;

    fn level(policy: &Policy, user: &str, line: &str) -> Level {
        let (method, path) = line.split_once(' ').expect("method and path");
        let method: Method = method.parse().expect("a method");
        let info = RequestInfo::parse(&method, path, "", &Registry::builtin());
        policy.level(&Identity::new(user, &["dev"]), &info)
    }

    #[test]
    fn by_default_what_changes_something_is_recorded() {
        let policy = Policy::default();
        let cases = [
            ("jane", "DELETE /api/v1/namespaces/a/pods/p", Level::Metadata),
            ("jane", "GET /api/v1/namespaces/a/secrets/s", Level::None),
            ("jane", "PUT /apis/coordination.k8s.io/v1/namespaces/a/leases/l", Level::None),
            ("system:node:n", "PATCH /api/v1/namespaces/a/pods/p/status", Level::None),
            ("jane", "PATCH /api/v1/namespaces/a/pods/p/status", Level::Metadata),
            ("jane", "GET /metrics", Level::None),
        ];
        for (user, line, expected) in cases {
            assert_eq!(level(&policy, user, line), expected, "{user} {line}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
            - {level: None, users: [joe]}\n\
            - {level: RequestResponse, resources: [{resources: [secrets, 'pods/*'], resourceNames: [s, p]}], namespaces: [a]}\n\
            - {level: Metadata, nonResourceURLs: ['/metrics*']}\n";
        let policy: Policy = serde_yaml::from_str(text).expect("a policy");
        let cases = [
            ("joe", "GET /api/v1/namespaces/a/secrets/s", Level::None),
            ("jane", "GET /api/v1/namespaces/a/secrets/s", Level::Metadata),
            ("jane", "GET /api/v1/namespaces/a/pods/p/log", Level::Metadata),
            ("jane", "GET /api/v1/namespaces/a/pods/p", Level::None),
            ("jane", "GET /api/v1/namespaces/b/secrets/s", Level::None),
            ("jane", "GET /api/v1/namespaces/a/secrets/t", Level::None),
            ("jane", "GET /metrics/slis", Level::Metadata),
            ("jane", "GET /version", Level::None),
        ];
        for (user, line, expected) in cases {
            assert_eq!(level(&policy, user, line), expected, "{user} {line}");
        }
    }
}
