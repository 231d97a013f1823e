//! Who owns whom, over all kinds: objects by uid, and their dependents.
//!
//! The graph is as old as the informers that feed it. It tells after each change which objects are worth
//! another look; it decides nothing.

use crate::plan::Target;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::ApiResource;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

/// Remembered uids that are known to be gone; beyond it the oldest would be confirmed anew. Upstream: 500.
const ABSENT: usize = 10_000;

/// One object, reduced to what ownership is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its kind; shared by all objects of the graph that have it.
    pub kind: Arc<ApiResource>,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its identity in the graph.
    pub uid: Arc<str>,
    /// The state it was seen in.
    pub version: Option<String>,
    /// Whom it belongs to.
    pub owners: Vec<OwnerReference>,
    /// What holds its deletion back.
    pub finalizers: Vec<String>,
    /// Its deletion has begun.
    pub deleting: bool,
}

impl Node {
    /// The node of an object with this metadata.
    pub fn of(kind: &ApiResource, metadata: &ObjectMeta) -> Node {
        let metadata = metadata.clone();
        Node {
            kind: Arc::new(kind.clone()),
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default().into(),
            version: metadata.resource_version,
            owners: metadata.owner_references.unwrap_or_default(),
            finalizers: metadata.finalizers.unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
        }
    }

    /// True if it carries this finalizer.
    pub fn has_finalizer(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|own| own == finalizer)
    }

    /// The object in the state it was seen in.
    pub fn target(&self) -> Target {
        Target {
            kind: ApiResource::clone(&self.kind),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.to_string(),
            version: self.version.clone(),
        }
    }

    /// True if `reference`, seen in an object of `namespace`, really means this object. The version of the
    /// group doesn't matter: one object is served in several.
    pub fn answers_to(&self, reference: &OwnerReference, namespace: &str) -> bool {
        *self.uid == *reference.uid
            && self.name == reference.name
            && self.kind.kind == reference.kind
            && self.kind.group == group_of(&reference.api_version)
            && (self.namespace.is_empty() || self.namespace == namespace)
    }

    fn blocks(&self, owner: &str) -> bool {
        self.owners
            .iter()
            .any(|reference| reference.uid == owner && reference.block_owner_deletion == Some(true))
    }
}

/// All objects and who depends on whom.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<Arc<str>, Node>,
    dependents: HashMap<String, BTreeSet<Arc<str>>>,
    kinds: HashMap<(String, String), (Arc<ApiResource>, bool)>,
    absent: BTreeSet<String>,
    absent_order: VecDeque<String>,
}

impl Graph {
    /// A graph of these kinds; the flag says whether a kind is namespaced.
    pub fn new(kinds: impl IntoIterator<Item = (ApiResource, bool)>) -> Graph {
        let by_kind = |(kind, namespaced): (ApiResource, bool)| {
            ((kind.group.clone(), kind.kind.clone()), (Arc::new(kind), namespaced))
        };
        Graph { kinds: kinds.into_iter().map(by_kind).collect(), ..Graph::default() }
    }

    /// Takes in a kind that came later, or comes in another version; gives the objects that name an owner of
    /// it, about which nothing could be said before.
    pub fn learn(&mut self, kind: ApiResource, namespaced: bool) -> Vec<String> {
        let names = |reference: &OwnerReference| {
            group_of(&reference.api_version) == kind.group && reference.kind == kind.kind
        };
        let waiting = self.nodes.values().filter(|node| node.owners.iter().any(names));
        let waiting = waiting.map(|node| node.uid.to_string()).collect();
        self.kinds.insert((kind.group.clone(), kind.kind.clone()), (Arc::new(kind), namespaced));
        waiting
    }

    /// The object with this uid.
    pub fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The kind that a reference names, and whether it is namespaced.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<&(Arc<ApiResource>, bool)> {
        self.kinds.get(&(group_of(api_version).to_owned(), kind.to_owned()))
    }

    /// Objects that name `uid` as an owner and mean it.
    pub fn dependents<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Node> + 'a {
        let owner = self.nodes.get(uid);
        let means = move |node: &&Node| {
            owner.is_none_or(|owner| {
                node.owners.iter().any(|reference| owner.answers_to(reference, &node.namespace))
            })
        };
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|dependent| self.nodes.get(dependent))
            .filter(means)
    }

    /// True if any object names `uid` as an owner.
    pub fn has_dependents(&self, uid: &str) -> bool {
        self.dependents(uid).next().is_some()
    }

    /// Dependents that a foreground deletion of `uid` waits for.
    pub fn blocking_dependents<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Node> + 'a {
        self.dependents(uid).filter(move |node| node.blocks(uid))
    }

    /// Notes that the server has no object with this uid.
    pub fn confirm_absent(&mut self, uid: &str) {
        if self.absent.insert(uid.to_owned()) {
            self.absent_order.push_back(uid.to_owned());
        }
        if self.absent_order.len() > ABSENT
            && let Some(oldest) = self.absent_order.pop_front()
        {
            self.absent.remove(&oldest);
        }
    }

    /// True if the server has been asked for `uid` and has none.
    pub fn is_absent(&self, uid: &str) -> bool {
        self.absent.contains(uid)
    }

    /// Takes in an object as it is now; returns the uids to look at again.
    pub fn apply(&mut self, mut node: Node) -> Vec<String> {
        if let Some((kind, _)) = self.kinds.get(&(node.kind.group.clone(), node.kind.kind.clone()))
            && *kind == node.kind
        {
            node.kind = kind.clone();
        }
        let old = self.detach(&node.uid);
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(node.uid.clone());
        }
        let mut affected = vec![node.uid.to_string()];
        // Dependents of an owner that waits for them have to go; it has to know who no longer blocks it.
        if node.deleting {
            affected.extend(self.dependents_of(&node.uid));
        }
        let former = old.map(|old| old.owners).unwrap_or_default();
        affected.extend(former.into_iter().map(|owner| owner.uid));
        affected.extend(node.owners.iter().map(|owner| owner.uid.clone()).filter(|uid| self.waits(uid)));
        self.nodes.insert(node.uid.clone(), node);
        affected
    }

    /// Forgets an object that is gone; returns the uids to look at again.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut affected = self.dependents_of(uid);
        if let Some(old) = self.detach(uid) {
            affected.extend(old.owners.into_iter().map(|owner| owner.uid));
        }
        affected
    }

    fn dependents_of(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().map(|dependent| dependent.to_string()).collect()
    }

    fn waits(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| node.deleting)
    }

    fn detach(&mut self, uid: &str) -> Option<Node> {
        let old = self.nodes.remove(uid)?;
        for owner in &old.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        Some(old)
    }
}

fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::garbage_collector::reconcile;
    use kube::core::GroupVersionKind;

    #[test]
    fn who_has_an_owner_of_an_unknown_kind_waits_until_the_kind_is_known() {
        let gvk = |group, kind| ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let mut graph = Graph::new([(gvk("", "ConfigMap"), true)]);
        let owner = OwnerReference {
            api_version: "example.com/v1".into(),
            kind: "CronTab".into(),
            name: "gone".into(),
            uid: "u-gone".into(),
            ..OwnerReference::default()
        };
        let metadata = ObjectMeta {
            name: Some("c".into()),
            namespace: Some("default".into()),
            uid: Some("u-c".into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        graph.apply(Node::of(&gvk("", "ConfigMap"), &metadata));
        assert!(reconcile("u-c", &graph).actions.is_empty(), "nothing can be said of its owner");
        assert_eq!(graph.learn(gvk("example.com", "CronTab"), true), ["u-c"]);
        assert!(!reconcile("u-c", &graph).actions.is_empty(), "the server is asked for the owner");
    }
}
