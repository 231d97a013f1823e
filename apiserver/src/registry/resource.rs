//! One row of the registry: everything that is said about a resource, as data.

use std::fmt;
use std::sync::Arc;

use crate::registry::custom::Custom;
use crate::registry::strategy::Strategy;
use crate::request::Verb;
use crate::table::Column;

/// A resource of the API: built in, or made at run time from a custom resource definition.
#[derive(Clone)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version in the group.
    pub version: String,
    /// Kind of one object.
    pub kind: String,
    /// Kind of a list of them.
    pub list_kind: String,
    /// Plural name: the path segment.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Short names that kubectl understands.
    pub short_names: Vec<String>,
    /// Categories such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What can be done.
    pub verbs: Verbs,
    /// Further paths below an object.
    pub subresources: Vec<Subresource>,
    /// Fields that a field selector may name, besides `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Vec<SelectableField>,
    /// Columns of its table.
    pub columns: Vec<Column>,
    /// Name of its schema among the OpenAPI definitions.
    pub definition: String,
    /// How it is stored, if not as it is served: Events of two groups are the same objects.
    pub stored_as: Option<Home>,
    /// What is special about it.
    pub strategy: Arc<dyn Strategy>,
    /// What its definition says, if it was made at run time.
    pub custom: Option<Arc<Custom>>,
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        group_version(&self.group, &self.version)
    }

    /// `pods` or `deployments.apps`, as messages name a resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Whether status is written through its own path only.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Group and plural of the storage key.
    pub fn storage_name(&self) -> (&str, &str) {
        match &self.stored_as {
            Some(home) => (&home.group, &home.plural),
            None => (&self.group, &self.plural),
        }
    }
}

/// The row as which another row's objects are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its group.
    pub group: String,
    /// Its version.
    pub version: String,
    /// Its plural name.
    pub plural: String,
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({}/{})", self.api_version(), self.plural)
    }
}

/// `v1` or `apps/v1`.
pub fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// A path below an object, such as `pods/NAME/log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// The path segment.
    pub name: String,
    /// Group of the kind that is read and written there.
    pub group: String,
    /// Version of that kind.
    pub version: String,
    /// The kind itself.
    pub kind: String,
    /// What can be done.
    pub verbs: Verbs,
    /// Which code serves it.
    pub action: SubresourceAction,
}

/// What a subresource does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubresourceAction {
    /// The object, of which only `status` is written.
    Status,
    /// An `autoscaling/v1` Scale; the pointers say where the object keeps its numbers.
    Scale,
    /// Puts a pod on a node.
    Binding,
    /// Deletes a pod if that is allowed now.
    Eviction,
    /// A pod of which only `spec.ephemeralContainers` is written.
    EphemeralContainers,
    /// A pod of which only what its containers may use is written.
    Resize,
    /// A namespace of which only `spec.finalizers` is written.
    Finalize,
    /// The log of a container, read from its node.
    Log,
    /// Makes a token of a service account.
    Token,
    /// A stream between the client and a pod, by way of its node.
    Stream(crate::node_proxy::Stream),
    /// Whatever is asked of what listens there.
    Proxy,
}

/// A field that selectors may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectableField {
    /// The name in the selector, e.g. `spec.nodeName`.
    pub label: String,
    /// Where the value is, as a JSON pointer.
    pub pointer: String,
}

/// A set of verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verbs(u16);

impl Verbs {
    /// By name, as discovery lists them.
    const ORDINARY: [Verb; 8] = [
        Verb::Create,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ];
    /// The eight verbs of an ordinary resource.
    pub const ALL: Self = Self::of(&Self::ORDINARY);
    /// Those of an ordinary subresource.
    pub const GET_PATCH_UPDATE: Self = Self::of(&[Verb::Get, Verb::Patch, Verb::Update]);
    /// Only `create`.
    pub const CREATE: Self = Self::of(&[Verb::Create]);
    /// Only `get`.
    pub const GET: Self = Self::of(&[Verb::Get]);
    /// Only `update`.
    pub const UPDATE: Self = Self::of(&[Verb::Update]);

    /// The set of these verbs.
    pub const fn of(verbs: &[Verb]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < verbs.len() {
            bits |= 1 << verbs[i] as u16;
            i += 1;
        }
        Self(bits)
    }

    /// This set without `verb`.
    pub const fn without(self, verb: Verb) -> Self {
        Self(self.0 & !(1 << verb as u16))
    }

    /// Whether `verb` is in the set.
    pub const fn contains(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u16) != 0
    }

    /// The verbs in the order discovery lists them (by name).
    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Self::ORDINARY.into_iter().filter(move |verb| self.contains(*verb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_verbs_holds_what_was_put_in() {
        let verbs = Verbs::ALL.without(Verb::DeleteCollection);
        assert!(verbs.contains(Verb::Watch) && !verbs.contains(Verb::DeleteCollection));
        assert_eq!(
            verbs.iter().map(Verb::as_str).collect::<Vec<_>>().join(","),
            "create,delete,get,list,patch,update,watch"
        );
        assert!(!Verbs::default().contains(Verb::Get));
    }
}
