//! RBAC: a live view of the four kinds, and what it allows.
//!
//! The view is fed by the watch cache and is a value: the same updates give the same answers. Bindings only
//! add rights, so nothing here can refuse what another binding allows.

use std::collections::{BTreeMap, HashMap};

use api::selector::LabelSelector;
use serde_json::Value;

use super::rules::{Rule, Subject};
use super::{Attributes, Decision, Identity};

/// The group of the four kinds.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles and bindings as they are now.
#[derive(Debug, Default)]
pub struct RbacView {
    /// By namespace and name.
    roles: HashMap<(String, String), Vec<Rule>>,
    cluster_roles: BTreeMap<String, ClusterRole>,
    /// By namespace, then name.
    role_bindings: HashMap<String, BTreeMap<String, Binding>>,
    cluster_role_bindings: BTreeMap<String, Binding>,
}

#[derive(Debug)]
struct ClusterRole {
    rules: Vec<Rule>,
    labels: BTreeMap<String, String>,
    /// Roles with these labels lend their rules.
    aggregates: Vec<LabelSelector>,
}

#[derive(Debug)]
struct Binding {
    subjects: Vec<Subject>,
    role: RoleRef,
}

/// What a binding grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRef {
    /// Whether a ClusterRole is meant.
    pub cluster: bool,
    /// Its name.
    pub name: String,
}

impl RoleRef {
    /// Reads `roleRef` of a binding.
    pub fn of(binding: &Value) -> Self {
        let reference = &binding["roleRef"];
        Self {
            cluster: reference["kind"] == "ClusterRole",
            name: reference["name"].as_str().unwrap_or_default().to_owned(),
        }
    }

    const fn kind(&self) -> &'static str {
        if self.cluster { "ClusterRole" } else { "Role" }
    }
}

impl RbacView {
    /// Takes in the newest state of an object; other kinds are ignored.
    pub fn update(&mut self, kind: &str, object: &Value) {
        let (namespace, name) = key_of(object);
        match kind {
            "Role" => drop(self.roles.insert((namespace, name), Rule::list_of(object))),
            "ClusterRole" => drop(self.cluster_roles.insert(name, ClusterRole::of(object))),
            "RoleBinding" => {
                let binding = Binding::of(object, &namespace);
                self.role_bindings.entry(namespace).or_default().insert(name, binding);
            }
            "ClusterRoleBinding" => drop(self.cluster_role_bindings.insert(name, Binding::of(object, ""))),
            _ => {}
        }
    }

    /// Forgets an object that was deleted; of `object` only kind, namespace and name are looked at.
    pub fn delete(&mut self, kind: &str, object: &Value) {
        let (namespace, name) = key_of(object);
        match kind {
            "Role" => drop(self.roles.remove(&(namespace, name))),
            "ClusterRole" => drop(self.cluster_roles.remove(&name)),
            "RoleBinding" => {
                if let Some(bindings) = self.role_bindings.get_mut(&namespace) {
                    bindings.remove(&name);
                }
            }
            "ClusterRoleBinding" => drop(self.cluster_role_bindings.remove(&name)),
            _ => {}
        }
    }

    /// Whether some binding allows the act. A refusal's reason names roles that are bound but missing.
    pub fn authorize(&self, who: &Identity, act: &Attributes<'_>) -> Decision {
        let mut missing = Vec::new();
        for grant in self.grants(who, act.namespace) {
            match self.held(grant.role, grant.namespace) {
                Some(rules) if rules.iter().any(|rule| rule.allows(act)) => {
                    return Decision::allow(grant.reason());
                }
                Some(_) => {}
                None => missing.push(grant.missing()),
            }
        }
        match missing.as_slice() {
            [] => Decision::refuse(String::new()),
            [one] => Decision::refuse(format!("RBAC: {one}")),
            several => Decision::refuse(format!("RBAC: [{}]", several.join(", "))),
        }
    }

    /// All rules that `who` holds in `namespace` (cluster-wide ones only, if it is empty).
    pub fn rules_of(&self, who: &Identity, namespace: &str) -> Vec<Rule> {
        let grants = self.grants(who, namespace);
        grants.filter_map(|grant| self.rules(grant.role, grant.namespace)).flatten().collect()
    }

    /// The rules of a role, if it exists; those of an aggregating one include what it aggregates.
    pub fn rules(&self, role: &RoleRef, namespace: &str) -> Option<Vec<Rule>> {
        self.held(role, namespace).map(|rules| rules.into_iter().cloned().collect())
    }

    /// The same where they are: every request asks for them, and a big role has a hundred.
    fn held(&self, role: &RoleRef, namespace: &str) -> Option<Vec<&Rule>> {
        if !role.cluster {
            let rules = self.roles.get(&(namespace.to_owned(), role.name.clone()))?;
            return Some(rules.iter().collect());
        }
        self.cluster_roles.get(&role.name)?;
        let mut names = vec![role.name.as_str()];
        let mut rules = Vec::new();
        // Roles that are lent from may aggregate themselves, even in a circle: each is taken once.
        for next in 0.. {
            let Some(cluster_role) = names.get(next).and_then(|name| self.cluster_roles.get(*name)) else {
                break;
            };
            rules.extend(&cluster_role.rules);
            let lending = self.cluster_roles.iter().filter(|(_, other)| cluster_role.is_lent_by(other));
            for (name, _) in lending {
                if !names.contains(&name.as_str()) {
                    names.push(name);
                }
            }
        }
        Some(rules)
    }

    fn grants<'a>(&'a self, who: &'a Identity, namespace: &'a str) -> impl Iterator<Item = Grant<'a>> {
        let cluster_wide = self.cluster_role_bindings.iter().map(|(name, binding)| (name, binding, ""));
        let local = self.role_bindings.get(namespace).filter(|_| !namespace.is_empty());
        let local = local.into_iter().flatten().map(move |(name, binding)| (name, binding, namespace));
        cluster_wide.chain(local).filter_map(move |(name, binding, namespace)| {
            let subject = binding.subjects.iter().find(|subject| subject.means(who))?;
            Some(Grant { binding: name, namespace, role: &binding.role, subject })
        })
    }
}

/// A binding that means the user.
struct Grant<'a> {
    binding: &'a str,
    /// Empty for a ClusterRoleBinding.
    namespace: &'a str,
    role: &'a RoleRef,
    subject: &'a Subject,
}

impl Grant<'_> {
    fn reason(&self) -> String {
        let binding = match self.namespace {
            "" => format!("ClusterRoleBinding \"{}\"", self.binding),
            namespace => format!("RoleBinding \"{}/{namespace}\"", self.binding),
        };
        let subject = match self.subject {
            Subject::User(name) => format!("User \"{name}\""),
            Subject::Group(name) => format!("Group \"{name}\""),
        };
        format!("RBAC: allowed by {binding} of {} \"{}\" to {subject}", self.role.kind(), self.role.name)
    }

    fn missing(&self) -> String {
        format!("{}.{GROUP} \"{}\" not found", self.role.kind().to_lowercase(), self.role.name)
    }
}

impl ClusterRole {
    fn of(object: &Value) -> Self {
        let selectors = object["aggregationRule"]["clusterRoleSelectors"].as_array();
        let selectors = selectors.map(Vec::as_slice).unwrap_or_default();
        Self {
            rules: Rule::list_of(object),
            labels: labels_of(object),
            aggregates: selectors.iter().filter_map(selector_of).collect(),
        }
    }

    fn is_lent_by(&self, other: &Self) -> bool {
        self.aggregates.iter().any(|selector| selector.matches(&other.labels))
    }
}

impl Binding {
    fn of(object: &Value, namespace: &str) -> Self {
        let subjects = object["subjects"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            subjects: subjects.iter().filter_map(|subject| Subject::of(subject, namespace)).collect(),
            role: RoleRef::of(object),
        }
    }
}

/// A selector that can't be read selects nothing: a mistake must not widen a role.
fn selector_of(value: &Value) -> Option<LabelSelector> {
    LabelSelector::from_value(value).ok()
}

fn labels_of(object: &Value) -> BTreeMap<String, String> {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn key_of(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}
