//! Which objects a node needs: those that its pods refer to.
//!
//! A value, fed with every change of a pod. What a bound pod refers to can't change, so a pod is read once, when
//! it gets its node, and forgotten when it is deleted.

use std::collections::HashMap;

use serde_json::Value;

/// An object in a pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Needed {
    /// Plural name of its resource, in the core group.
    pub resource: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What pods need, by node.
#[derive(Debug, Default)]
pub struct NodeGraph {
    /// By the pod's storage key.
    pods: HashMap<Vec<u8>, (String, Vec<Needed>)>,
    /// How many pods need it, by node.
    uses: HashMap<String, HashMap<Needed, usize>>,
}

impl NodeGraph {
    /// Whether a pod of `node` needs this.
    pub fn needs(&self, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let Some(needed) = self.uses.get(node) else { return false };
        let of_resource = RESOURCES.into_iter().find(|own| *own == resource);
        of_resource.is_some_and(|resource| {
            needed.contains_key(&Needed { resource, namespace: namespace.to_owned(), name: name.to_owned() })
        })
    }

    /// Takes in a pod's newest state as it is stored. Most changes are of a status, and cost a lookup.
    pub fn update(&mut self, key: &[u8], stored: &[u8]) {
        const BOUND: &[u8] = b"\"nodeName\":\"";
        if self.pods.contains_key(key) || !stored.windows(BOUND.len()).any(|window| window == BOUND) {
            return;
        }
        let Ok(pod) = api::pluck::only(stored, &["/metadata/namespace", "/metadata/name", "/spec"]) else {
            return;
        };
        let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) else { return };
        let needed = needed(&pod);
        let uses = self.uses.entry(node.to_owned()).or_default();
        for each in &needed {
            *uses.entry(each.clone()).or_default() += 1;
        }
        self.pods.insert(key.to_vec(), (node.to_owned(), needed));
    }

    /// Forgets a pod that was deleted.
    pub fn delete(&mut self, key: &[u8]) {
        let Some((node, needed)) = self.pods.remove(key) else { return };
        let Some(uses) = self.uses.get_mut(&node) else { return };
        for each in needed {
            if let Some(count) = uses.get_mut(&each) {
                *count -= 1;
                if *count == 0 {
                    uses.remove(&each);
                }
            }
        }
        if uses.is_empty() {
            self.uses.remove(&node);
        }
    }
}

const SECRETS: &str = "secrets";
const CONFIG_MAPS: &str = "configmaps";
const CLAIMS: &str = "persistentvolumeclaims";
const ACCOUNTS: &str = "serviceaccounts";
const RESOURCES: [&str; 4] = [SECRETS, CONFIG_MAPS, CLAIMS, ACCOUNTS];

/// Where a volume names an object.
const IN_VOLUME: [(&str, &str); 9] = [
    (SECRETS, "/secret/secretName"),
    (CONFIG_MAPS, "/configMap/name"),
    (CLAIMS, "/persistentVolumeClaim/claimName"),
    (SECRETS, "/csi/nodePublishSecretRef/name"),
    (SECRETS, "/flexVolume/secretRef/name"),
    (SECRETS, "/cephfs/secretRef/name"),
    (SECRETS, "/rbd/secretRef/name"),
    (SECRETS, "/iscsi/secretRef/name"),
    (SECRETS, "/azureFile/secretName"),
];
const IN_PROJECTION: [(&str, &str); 2] = [(SECRETS, "/secret/name"), (CONFIG_MAPS, "/configMap/name")];
const IN_ENV: [(&str, &str); 2] =
    [(SECRETS, "/valueFrom/secretKeyRef/name"), (CONFIG_MAPS, "/valueFrom/configMapKeyRef/name")];
const IN_ENV_FROM: [(&str, &str); 2] = [(SECRETS, "/secretRef/name"), (CONFIG_MAPS, "/configMapRef/name")];

/// What a pod refers to, each once.
fn needed(pod: &Value) -> Vec<Needed> {
    let spec = &pod["spec"];
    let mut found: Vec<(&'static str, &str)> = Vec::new();
    found.extend(named(&spec["serviceAccountName"]).map(|name| (ACCOUNTS, name)));
    found.extend(
        items(&spec["imagePullSecrets"]).filter_map(|secret| Some((SECRETS, named(&secret["name"])?))),
    );
    for volume in items(&spec["volumes"]) {
        found.extend(at(volume, &IN_VOLUME));
        found.extend(items(&volume["projected"]["sources"]).flat_map(|source| at(source, &IN_PROJECTION)));
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(&spec[list]) {
            found.extend(items(&container["env"]).flat_map(|var| at(var, &IN_ENV)));
            found.extend(items(&container["envFrom"]).flat_map(|from| at(from, &IN_ENV_FROM)));
        }
    }
    let namespace = api::object::namespace(pod);
    let own = |(resource, name): (&'static str, &str)| Needed {
        resource,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let mut needed: Vec<Needed> = found.into_iter().map(own).collect();
    let ephemeral = items(&spec["volumes"]).filter(|volume| volume["ephemeral"].is_object());
    needed.extend(ephemeral.map(|volume| {
        let name = format!("{}-{}", api::object::name(pod), volume["name"].as_str().unwrap_or_default());
        Needed { resource: CLAIMS, namespace: namespace.to_owned(), name }
    }));
    needed.sort();
    needed.dedup();
    needed
}

fn at<'a>(
    value: &'a Value,
    places: &'static [(&'static str, &'static str)],
) -> impl Iterator<Item = (&'static str, &'a str)> {
    places.iter().filter_map(|(resource, pointer)| Some((*resource, named(value.pointer(pointer)?)?)))
}

fn named(value: &Value) -> Option<&str> {
    value.as_str().filter(|name| !name.is_empty())
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(node: &str, secret: &str) -> Vec<u8> {
        let mut pod = json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "serviceAccountName": "robot",
                "imagePullSecrets": [{"name": "pull"}],
                "volumes": [
                    {"name": "a", "secret": {"secretName": secret}},
                    {"name": "b", "projected": {"sources": [{"configMap": {"name": "ca"}}]}},
                    {"name": "c", "ephemeral": {}},
                    {"name": "d", "persistentVolumeClaim": {"claimName": "disk"}},
                ],
                "initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "init"}}}]}],
                "containers": [{"envFrom": [{"configMapRef": {"name": "env"}}]}],
            },
        });
        if !node.is_empty() {
            pod["spec"]["nodeName"] = json!(node);
        }
        pod.to_string().into_bytes()
    }

    #[test]
    fn a_node_needs_what_its_pods_refer_to_as_long_as_they_are_there() {
        let mut graph = NodeGraph::default();
        let all = [
            ("serviceaccounts", "robot"),
            ("secrets", "pull"),
            ("secrets", "tls"),
            ("configmaps", "ca"),
            ("persistentvolumeclaims", "web-c"),
            ("persistentvolumeclaims", "disk"),
            ("secrets", "init"),
            ("configmaps", "env"),
        ];
        graph.update(b"1", &pod("", "tls"));
        assert!(!graph.needs("n1", "secrets", "shop", "tls"), "it isn't bound");
        graph.update(b"1", &pod("n1", "tls"));
        graph.update(b"2", &pod("n1", "other"));
        for (resource, name) in all {
            assert!(graph.needs("n1", resource, "shop", name), "{resource} {name}");
            assert!(!graph.needs("n2", resource, "shop", name), "another node: {resource} {name}");
            assert!(!graph.needs("n1", resource, "yard", name), "another namespace: {resource} {name}");
        }
        assert!(!graph.needs("n1", "configmaps", "shop", "tls"), "another kind");
        graph.delete(b"1");
        assert!(!graph.needs("n1", "secrets", "shop", "tls"));
        assert!(graph.needs("n1", "secrets", "shop", "pull"), "the other pod needs it, too");
        graph.delete(b"2");
        graph.delete(b"2");
        assert!(graph.uses.is_empty() && graph.pods.is_empty(), "nothing is left");
    }
}
