//! Requirements on labels: node selectors, node affinity terms and the label selectors of spread rules.
//!
//! Selectors are compiled into sorted, hashable values so that equal ones of different pods are one key of
//! a table. `api::selector` parses query strings; here only objects are read, and `Gt`/`Lt` exist, too.

use crate::object::PodSpec;
use api::k8s::api::core::v1 as core;
use api::k8s::apimachinery::pkg::apis::meta::v1 as meta;
use std::collections::BTreeMap;

/// Labels of a node or a pod.
pub type Labels = BTreeMap<String, String>;

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    key: Box<str>,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Test {
    In(Vec<Box<str>>),
    NotIn(Vec<Box<str>>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
    /// An operator or operand nobody understands: matches nothing, as upstream treats a parse error.
    Never,
}

/// A conjunction of requirements; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector(Vec<Requirement>);

/// One term of a node selector: labels and fields must all match; the empty term matches no node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeTerm {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

/// What a pod requires of a node's labels and name: its `nodeSelector` and its required node affinity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequiredNode {
    selector: Selector,
    /// `Some` terms are alternatives: one must match.
    terms: Option<Vec<NodeTerm>>,
}

impl Requirement {
    /// `key in (values)`.
    pub fn is_in(key: &str, values: &[&str]) -> Self {
        Requirement { key: key.into(), test: Test::In(boxed(values.iter().copied())) }
    }

    /// `key notin (values)`.
    pub fn not_in(key: &str, values: &[&str]) -> Self {
        Requirement { key: key.into(), test: Test::NotIn(boxed(values.iter().copied())) }
    }

    fn new(key: &str, operator: &str, values: &[String]) -> Self {
        let set = || boxed(values.iter().map(String::as_str));
        let number = || values.first().and_then(|value| value.parse().ok());
        let test = match operator {
            "In" => Test::In(set()),
            "NotIn" => Test::NotIn(set()),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::Absent,
            "Gt" => number().map_or(Test::Never, Test::Greater),
            "Lt" => number().map_or(Test::Never, Test::Less),
            _ => Test::Never,
        };
        Requirement { key: key.into(), test }
    }

    /// Whether a label (or field) with this value, or its absence, satisfies the requirement.
    fn accepts(&self, value: Option<&str>) -> bool {
        let contained = |set: &[Box<str>], value: &str| set.iter().any(|one| **one == *value);
        match (&self.test, value) {
            (Test::In(set), Some(value)) => contained(set, value),
            (Test::NotIn(set), Some(value)) => !contained(set, value),
            (Test::Exists, Some(_)) => true,
            (Test::Greater(bound), Some(value)) => value.parse::<i64>().is_ok_and(|number| number > *bound),
            (Test::Less(bound), Some(value)) => value.parse::<i64>().is_ok_and(|number| number < *bound),
            (Test::NotIn(_) | Test::Absent, None) => true,
            _ => false,
        }
    }

    fn matches(&self, labels: &Labels) -> bool {
        self.accepts(labels.get(&*self.key).map(String::as_str))
    }
}

/// Values sorted, so that equal sets are equal values.
fn boxed<'a>(values: impl Iterator<Item = &'a str>) -> Vec<Box<str>> {
    let mut values: Vec<Box<str>> = values.map(Into::into).collect();
    values.sort();
    values
}

impl Selector {
    /// The conjunction of `requirements`, in canonical order.
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort();
        Selector(requirements)
    }

    /// The selector of an API object; an absent one selects nothing (`None`).
    pub fn of(selector: Option<&meta::LabelSelector>) -> Option<Self> {
        let selector = selector?;
        let labels = selector.match_labels.iter().flatten();
        let expressions = selector.match_expressions.iter().flatten();
        let requirements = labels
            .map(|(key, value)| Requirement::is_in(key, &[value.as_str()]))
            .chain(expressions.map(|one| {
                Requirement::new(&one.key, &one.operator, one.values.as_deref().unwrap_or_default())
            }))
            .collect();
        Some(Selector::new(requirements))
    }

    /// This selector narrowed by `more`.
    pub fn and(mut self, more: impl IntoIterator<Item = Requirement>) -> Self {
        self.0.extend(more);
        self.0.sort();
        self
    }

    /// Whether it requires nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every requirement holds for `labels`.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

impl NodeTerm {
    /// The term of an API object.
    pub fn of(term: &core::NodeSelectorTerm) -> Self {
        NodeTerm {
            labels: requirements(term.match_expressions.as_deref()),
            fields: requirements(term.match_fields.as_deref()),
        }
    }

    /// Whether the node called `name` with these labels matches. `metadata.name` is the only field there is.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        let empty = self.labels.is_empty() && self.fields.is_empty();
        let field = |one: &Requirement| one.accepts((&*one.key == "metadata.name").then_some(name));
        !empty && self.labels.iter().all(|one| one.matches(labels)) && self.fields.iter().all(field)
    }
}

fn requirements(list: Option<&[core::NodeSelectorRequirement]>) -> Vec<Requirement> {
    let compile = |one: &core::NodeSelectorRequirement| {
        Requirement::new(&one.key, &one.operator, one.values.as_deref().unwrap_or_default())
    };
    list.unwrap_or_default().iter().map(compile).collect()
}

impl RequiredNode {
    /// What `spec` requires of its node.
    pub fn of(spec: &PodSpec) -> Self {
        let labels = spec.node_selector.iter().flatten();
        let selector = labels.map(|(key, value)| Requirement::is_in(key, &[value.as_str()])).collect();
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required =
            affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
        RequiredNode {
            selector: Selector::new(selector),
            terms: required.map(|one| one.node_selector_terms.iter().map(NodeTerm::of).collect()),
        }
    }

    /// Whether the node called `name` with these labels is acceptable.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        let alternative = |terms: &Vec<NodeTerm>| terms.iter().any(|term| term.matches(name, labels));
        self.selector.matches(labels) && self.terms.as_ref().is_none_or(alternative)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(operator: &str, values: &[&str]) -> Requirement {
        let values: Vec<String> = values.iter().map(|value| value.to_string()).collect();
        Requirement::new("k", operator, &values)
    }

    #[test]
    fn each_operator_accepts_what_upstream_accepts() {
        let table: &[(&str, &[&str], Option<&str>, bool)] = &[
            ("In", &["a", "b"], Some("b"), true),
            ("In", &["a"], None, false),
            ("NotIn", &["a"], Some("a"), false),
            ("NotIn", &["a"], None, true),
            ("Exists", &[], Some(""), true),
            ("Exists", &[], None, false),
            ("DoesNotExist", &[], None, true),
            ("DoesNotExist", &[], Some("x"), false),
            ("Gt", &["4"], Some("5"), true),
            ("Gt", &["4"], Some("4"), false),
            ("Lt", &["4"], Some("-1"), true),
            ("Lt", &["four"], Some("3"), false),
            ("Gt", &["4"], Some("many"), false),
            ("Near", &["4"], Some("4"), false),
        ];
        for (operator, values, label, expected) in table {
            let got = requirement(operator, values).accepts(*label);
            assert_eq!(got, *expected, "{operator} {values:?} on {label:?}");
        }
    }

    #[test]
    fn an_empty_node_term_matches_no_node_but_an_empty_selector_matches_all() {
        let term = NodeTerm { labels: vec![], fields: vec![] };
        assert!(!term.matches("n1", &Labels::new()));
        assert!(Selector::default().matches(&Labels::new()));
    }
}
