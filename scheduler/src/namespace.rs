//! Labels of namespaces, by which rules about other pods may choose whom they are about.

use crate::selector::Labels;
use api::k8s::api::core::v1::Namespace;
use std::collections::HashMap;
use std::sync::Arc;

/// A namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct NamespaceInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
}

/// All namespaces.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(HashMap<Arc<str>, Labels>);

impl NamespaceInfo {
    /// Reads an API object.
    pub fn of(namespace: &Namespace) -> Self {
        NamespaceInfo {
            name: namespace.metadata.name.as_deref().unwrap_or_default().into(),
            labels: namespace.metadata.labels.clone().unwrap_or_default(),
        }
    }
}

impl Namespaces {
    /// The labels of a namespace; one that isn't known has none, as upstream has it.
    pub fn labels(&self, name: &str) -> &Labels {
        static NONE: Labels = Labels::new();
        self.0.get(name).unwrap_or(&NONE)
    }

    /// Takes note of a namespace. False if nothing is different.
    pub fn set(&mut self, namespace: NamespaceInfo) -> bool {
        let changed = *self.labels(&namespace.name) != namespace.labels;
        self.0.insert(namespace.name, namespace.labels);
        changed
    }

    /// Forgets a namespace. False if it had no labels anyway.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some_and(|labels| !labels.is_empty())
    }
}
