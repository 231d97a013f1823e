//! The key space of the API: the only place where a storage key is built or read.
//!
//! ```text
//! /registry/GROUP/PLURAL/NAME             an object of the cluster
//! /registry/GROUP/PLURAL/NAMESPACE/NAME   an object in a namespace
//! /allocated/nodeports/PORT               whose a node port is
//! /allocated/rooms/NODE                   which of the schedulers that share the node bound last to it
//! ```
//! GROUP is `core` for the core group. Names and namespaces never hold a slash (a request path can't
//! carry one and validation refuses it), so no key of one resource lies in the range of another.

use bytes::Bytes;
use store::kv::KeyRange;

use crate::registry::resource::Resource;

/// Everything that the API keeps.
pub const ROOT: &str = "/registry/";

/// A place in the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// All objects of a resource.
    Resource(&'a Resource),
    /// All objects of a resource in a namespace.
    Namespace(&'a Resource, &'a str),
    /// One object; the namespace is ignored for resources of the cluster.
    Object(&'a Resource, &'a str, &'a str),
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.storage_name() == other.storage_name()
    }
}

impl Eq for Resource {}

impl Key<'_> {
    /// The key, or for the first two the prefix of all keys there.
    pub fn to_bytes(self) -> Bytes {
        match self {
            Self::Resource(resource) => resource_prefix(resource).into(),
            Self::Namespace(resource, namespace) => {
                format!("{}{namespace}/", resource_prefix(resource)).into()
            }
            Self::Object(resource, namespace, name) if resource.namespaced => {
                debug_assert!(!namespace.contains('/') && !name.contains('/'), "a name is one path segment");
                format!("{}{namespace}/{name}", resource_prefix(resource)).into()
            }
            Self::Object(resource, _, name) => format!("{}{name}", resource_prefix(resource)).into(),
        }
    }

    /// The keys of all objects at this place.
    pub fn range(self) -> KeyRange {
        match self {
            Self::Object(..) => KeyRange::key(self.to_bytes()),
            _ => KeyRange::prefix(self.to_bytes()),
        }
    }
}

fn resource_prefix(resource: &Resource) -> String {
    let (group, plural) = resource.storage_name();
    format!("{ROOT}{}/{plural}/", if group.is_empty() { "core" } else { group })
}

/// The key of an object of the core group, for parts that know no registry; `namespace` is empty for objects
/// of the cluster.
pub fn of_core(plural: &str, namespace: &str, name: &str) -> Bytes {
    let place = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    format!("{ROOT}core/{plural}/{place}{name}").into()
}

/// Where it is recorded whose a node port is: beside the objects, so that nobody takes it for one.
pub fn node_port(port: u16) -> Bytes {
    format!("/allocated/nodeports/{port}").into()
}

/// Where it is recorded which scheduler bound last to a node, among those that share nodes.
pub fn room(node: &str) -> Bytes {
    format!("/allocated/rooms/{node}").into()
}

/// The prefix of the resource that `key` belongs to; `None` if it isn't one of ours.
pub fn prefix_of(key: &[u8]) -> Option<&[u8]> {
    let rest = key.strip_prefix(ROOT.as_bytes())?;
    let mut slashes = rest.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let end = slashes.nth(1)?;
    Some(&key[..ROOT.len() + end + 1])
}

/// Namespace (empty for objects of the cluster) and name in `key`.
pub fn names_of(key: &[u8]) -> (&str, &str) {
    let inside = prefix_of(key).map_or(key, |prefix| &key[prefix.len()..]);
    let inside = std::str::from_utf8(inside).unwrap_or_default();
    inside.split_once('/').unwrap_or(("", inside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    #[test]
    fn keys_are_built_and_read_back() {
        let registry = Registry::builtin();
        let find = |group, plural| registry.find(group, "v1", plural).expect("built in");
        let (pods, nodes, roles) =
            (find("", "pods"), find("", "nodes"), find("rbac.authorization.k8s.io", "roles"));
        let cases = [
            (Key::Object(&pods, "a", "p"), "/registry/core/pods/a/p", ("a", "p")),
            (Key::Object(&nodes, "", "n"), "/registry/core/nodes/n", ("", "n")),
            (
                Key::Object(&roles, "a", "x:y"),
                "/registry/rbac.authorization.k8s.io/roles/a/x:y",
                ("a", "x:y"),
            ),
        ];
        for (key, expected, names) in cases {
            let bytes = key.to_bytes();
            assert_eq!(bytes, expected.as_bytes());
            assert_eq!(names_of(&bytes), names);
        }
        assert_eq!(of_core("pods", "a", "p"), Key::Object(&pods, "a", "p").to_bytes());
        assert_eq!(of_core("nodes", "", "n"), Key::Object(&nodes, "", "n").to_bytes());
        assert_eq!(prefix_of(b"/registry/core/pods/a/p"), Some(&b"/registry/core/pods/"[..]));
        assert_eq!(prefix_of(b"/other/core/pods/a/p"), None);
        assert!(Key::Namespace(&pods, "a").range().contains(b"/registry/core/pods/a/p"));
        assert!(!Key::Namespace(&pods, "a").range().contains(b"/registry/core/pods/ab/p"));
    }
}
