//! RBAC rules and subjects as values: what one rule allows, whom one subject means, what a rule covers.
//!
//! Knows nothing of bindings or of where rules are stored.

use serde_json::Value;

use super::Attributes;
use super::Identity;
use super::accounts::user_name;

const ALL: &str = "*";

/// One PolicyRule. Everything in it is a set of alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Verbs.
    pub verbs: Vec<String>,
    /// API groups.
    pub groups: Vec<String>,
    /// Resources, `resource/subresource`, `*` or `*/subresource`.
    pub resources: Vec<String>,
    /// Names; none means every name.
    pub names: Vec<String>,
    /// Paths, possibly ending in `*`.
    pub urls: Vec<String>,
}

/// Whom a binding means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One user, or one service account by its user name.
    User(String),
    /// Everybody in a group.
    Group(String),
}

impl Rule {
    /// Reads the `rules` of a Role or ClusterRole; what is no rule is left out.
    pub fn list_of(role: &Value) -> Vec<Self> {
        role["rules"].as_array().map(|rules| rules.iter().map(Self::of).collect()).unwrap_or_default()
    }

    fn of(value: &Value) -> Self {
        Self {
            verbs: strings(&value["verbs"]),
            groups: strings(&value["apiGroups"]),
            resources: strings(&value["resources"]),
            names: strings(&value["resourceNames"]),
            urls: strings(&value["nonResourceURLs"]),
        }
    }

    /// Whether the rule allows the act.
    pub fn allows(&self, act: &Attributes<'_>) -> bool {
        if !has(&self.verbs, act.verb) {
            return false;
        }
        if act.is_resource {
            has(&self.groups, act.group) && self.allows_resource(act) && self.allows_name(act.name)
        } else {
            self.urls.iter().any(|url| url_matches(url, act.path))
        }
    }

    fn allows_resource(&self, act: &Attributes<'_>) -> bool {
        self.resources.iter().any(|rule| resource_matches(rule, act.resource, act.subresource))
    }

    fn allows_name(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|allowed| allowed == name)
    }

    /// Splits a rule into rules with at most one verb, group, resource, name or path each: whoever holds
    /// every part holds the whole.
    pub fn parts(&self) -> Vec<Self> {
        let mut parts = Vec::new();
        for verb in &self.verbs {
            for url in &self.urls {
                parts.push(Self { verbs: vec![verb.clone()], urls: vec![url.clone()], ..Self::default() });
            }
            for group in &self.groups {
                for resource in &self.resources {
                    self.push_resource_parts(verb, group, resource, &mut parts);
                }
            }
        }
        parts
    }

    fn push_resource_parts(&self, verb: &str, group: &str, resource: &str, parts: &mut Vec<Self>) {
        let part = Self {
            verbs: vec![verb.to_owned()],
            groups: vec![group.to_owned()],
            resources: vec![resource.to_owned()],
            ..Self::default()
        };
        if self.names.is_empty() {
            parts.push(part);
            return;
        }
        parts.extend(self.names.iter().map(|name| Self { names: vec![name.clone()], ..part.clone() }));
    }

    /// Whether this rule alone allows everything that `part`, one of [`Rule::parts`], allows.
    pub fn covers(&self, part: &Self) -> bool {
        part.verbs.iter().all(|verb| has(&self.verbs, verb))
            && part.groups.iter().all(|group| has(&self.groups, group))
            && part.resources.iter().all(|resource| self.covers_resource(resource))
            && self.covers_names(&part.names)
            && part.urls.iter().all(|url| self.urls.iter().any(|own| url_covers(own, url)))
    }

    fn covers_resource(&self, resource: &str) -> bool {
        let (name, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        self.resources
            .iter()
            .any(|own| own == ALL || own == resource || resource_matches(own, name, subresource))
    }

    fn covers_names(&self, names: &[String]) -> bool {
        self.names.is_empty() || (!names.is_empty() && names.iter().all(|name| self.names.contains(name)))
    }
}

impl Subject {
    /// Reads one subject of a binding in `namespace` (empty for a ClusterRoleBinding).
    pub fn of(value: &Value, namespace: &str) -> Option<Self> {
        let name = value["name"].as_str()?;
        match value["kind"].as_str()? {
            "User" => Some(Self::User(name.to_owned())),
            "Group" => Some(Self::Group(name.to_owned())),
            "ServiceAccount" => {
                let namespace = value["namespace"].as_str().unwrap_or(namespace);
                Some(Self::User(user_name(namespace, name)))
            }
            _ => None,
        }
    }

    /// Whether it means this user.
    pub fn means(&self, who: &Identity) -> bool {
        match self {
            Self::User(name) => *name == who.user,
            Self::Group(name) => who.groups.contains(name),
        }
    }
}

/// Reads the strings of a JSON list.
pub fn strings(value: &Value) -> Vec<String> {
    let texts = value.as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

fn has(set: &[String], item: &str) -> bool {
    set.iter().any(|own| own == ALL || own == item)
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    match (rule.split_once('/'), subresource) {
        _ if rule == ALL => true,
        (None, "") => rule == resource,
        (None, _) => false,
        (Some((_, _)), "") => false,
        (Some((own, sub)), subresource) => (own == ALL || own == resource) && sub == subresource,
    }
}

fn url_matches(rule: &str, path: &str) -> bool {
    rule == ALL || rule == path || rule.strip_suffix(ALL).is_some_and(|prefix| path.starts_with(prefix))
}

fn url_covers(own: &str, other: &str) -> bool {
    own == ALL || own == other || own.strip_suffix(ALL).is_some_and(|prefix| other.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn resources_match_as_upstream() {
        let cases = [
            ("*", "pods", "", true),
            ("*", "pods", "log", true),
            ("pods", "pods", "", true),
            ("pods", "pods", "log", false),
            ("pods/log", "pods", "log", true),
            ("pods/log", "pods", "", false),
            ("*/scale", "deployments", "scale", true),
            ("*/scale", "deployments", "", false),
            ("*/scale", "deployments", "status", false),
            ("pod", "pods", "", false),
        ];
        for (rule, resource, sub, expected) in cases {
            assert_eq!(resource_matches(rule, resource, sub), expected, "{rule} {resource}/{sub}");
        }
    }

    #[test]
    fn paths_match_as_upstream() {
        let cases = [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/ping", false),
            ("/healthz/*", "/healthz/ping", true),
            ("/healthz/*", "/healthz", false),
            ("/api*", "/apis/apps", true),
            ("*", "/anything", true),
        ];
        for (rule, path, expected) in cases {
            assert_eq!(url_matches(rule, path), expected, "{rule} {path}");
        }
    }

    fn words(choices: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
        let one = proptest::sample::select(choices).prop_map(str::to_owned);
        proptest::collection::vec(one, 1..3)
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let names = proptest::collection::vec(proptest::sample::select(&["a", "b"][..]), 0..2);
        let parts = (
            words(&["get", "list", "*"]),
            words(&["", "apps", "*"]),
            words(&["pods", "pods/log", "*/log", "*"]),
            names,
        );
        parts.prop_map(|(verbs, groups, resources, names)| Rule {
            verbs,
            groups,
            resources,
            names: names.into_iter().map(str::to_owned).collect(),
            urls: Vec::new(),
        })
    }

    proptest! {
        /// The oracle is the set of acts: covering must never claim more than what is allowed.
        #[test]
        fn what_covers_a_rule_allows_all_that_it_allows(own in rule(), other in rule()) {
            let covered = other.parts().iter().all(|part| own.covers(part));
            for verb in ["get", "list", "watch"] {
                for group in ["", "apps", "batch"] {
                    for (resource, subresource) in [("pods", ""), ("pods", "log"), ("nodes", "log"), ("nodes", "")] {
                        for name in ["", "a", "b", "c"] {
                            let act = Attributes {
                                verb, group, resource, subresource, name, is_resource: true,
                                ..Attributes::default()
                            };
                            prop_assert!(!covered || !other.allows(&act) || own.allows(&act), "{act:?}");
                        }
                    }
                }
            }
        }

        #[test]
        fn a_rule_covers_itself(rule in rule()) {
            prop_assert!(rule.parts().iter().all(|part| rule.covers(part)));
        }
    }
}
