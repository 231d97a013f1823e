//! NodeRestriction: what a node may write, as far as it can't be seen from a request's path.
//!
//! The node authorizer lets any node make tokens and write pods; here each is held to its own. Upstream's
//! rules and texts.

use api::object;
use api::status::Status;
use serde_json::Value;

use crate::auth::node::node_of;
use crate::error::Outcome;
use crate::verbs::Call;

fn forbidden(call: &Call<'_>, why: &str) -> Status {
    let resource = call.resource;
    Status::forbidden(&resource.plural, &resource.group, call.name(), why)
}

/// A new object: a pod that the node reports, itself, its lease.
pub fn create(call: &Call<'_>, new: &Value) -> Outcome<()> {
    let Some(node) = node_of(call.identity) else { return Ok(()) };
    let why = match (call.resource.group.as_str(), call.resource.plural.as_str()) {
        ("", "pods") => own_mirror(node, new),
        ("", "nodes") => own_node(node, new).or_else(|| labels_may_be_set(node, &Value::Null, new)),
        ("coordination.k8s.io", "leases") if object::name(new) != node => {
            Some("can only access lease with the same name as the requesting node".to_owned())
        }
        ("storage.k8s.io", "csinodes") if object::name(new) != node => {
            Some("can only access CSINode with the same name as the requesting node".to_owned())
        }
        _ => None,
    };
    why.map_or(Ok(()), |why| Err(forbidden(call, &why).into()))
}

/// A changed object: the status of a pod that runs on the node, or the node itself.
pub fn update(call: &Call<'_>, new: &Value, old: &Value) -> Outcome<()> {
    let Some(node) = node_of(call.identity) else { return Ok(()) };
    let why = match (call.resource.group.as_str(), call.resource.plural.as_str()) {
        ("", "pods") => own_pod_status(call, node, new, old),
        ("", "nodes") => own_node(node, new).or_else(|| own_node_change(node, new, old)),
        _ => None,
    };
    why.map_or(Ok(()), |why| Err(forbidden(call, &why).into()))
}

/// A deletion or an eviction: only of pods that run on the node.
pub fn delete(call: &Call<'_>, old: &Value) -> Outcome<()> {
    let Some(node) = node_of(call.identity) else { return Ok(()) };
    let is_pod = call.resource.group.is_empty() && call.resource.plural == "pods";
    if !is_pod || old["spec"]["nodeName"] == node {
        return Ok(());
    }
    let act = if call.info.subresource.as_deref() == Some("eviction") { "evict" } else { "delete" };
    Err(forbidden(call, &format!("node {node:?} can only {act} pods with spec.nodeName set to itself"))
        .into())
}

fn own_mirror(node: &str, pod: &Value) -> Option<String> {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    if object::annotation(pod, MIRROR).is_none() {
        return Some(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    let own = pod["spec"]["nodeName"] == node;
    (!own).then(|| format!("node {node:?} can only create pods with spec.nodeName set to itself"))
}

fn own_pod_status(call: &Call<'_>, node: &str, new: &Value, old: &Value) -> Option<String> {
    if call.info.subresource.as_deref() != Some("status") {
        return Some(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        ));
    }
    if old["spec"]["nodeName"] != node {
        return Some(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let same = object::labels(new) == object::labels(old);
    (!same).then(|| format!("node {node:?} cannot update labels through pod status"))
}

fn own_node(node: &str, object: &Value) -> Option<String> {
    let name = object::name(object);
    (name != node).then(|| format!("node {node:?} is not allowed to modify node {name:?}"))
}

fn own_node_change(node: &str, new: &Value, old: &Value) -> Option<String> {
    if new["spec"]["taints"] != old["spec"]["taints"] {
        return Some(format!("node {node:?} is not allowed to modify taints"));
    }
    if new["metadata"]["ownerReferences"] != old["metadata"]["ownerReferences"] {
        return Some(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    labels_may_be_set(node, old, new)
}

/// Labels by which workloads are kept from nodes aren't the node's to set.
fn labels_may_be_set(node: &str, old: &Value, new: &Value) -> Option<String> {
    let (before, after) = (object::labels(old), object::labels(new));
    let changed = before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key));
    let mut refused: Vec<&str> = changed.map(String::as_str).filter(|key| !is_nodes_own(key)).collect();
    refused.sort_unstable();
    refused.dedup();
    if refused.is_empty() {
        return None;
    }
    let verb = if old.is_null() { "set the following labels" } else { "modify labels" };
    Some(format!("node {node:?} is not allowed to {verb}: {}", refused.join(", ")))
}

/// Whether a node may set this label on itself: any outside of Kubernetes' domains, and those that tell what it
/// is. Those below `node-restriction.kubernetes.io` are for administrators, to rely on.
fn is_nodes_own(label: &str) -> bool {
    const KNOWN: [&str; 15] = [
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "node.kubernetes.io/windows-build",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/rack",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.kubernetes.io/zone",
        "failure-domain.kubernetes.io/region",
    ];
    let Some((domain, _)) = label.split_once('/') else { return true };
    let below =
        |root: &str| domain == root || domain.strip_suffix(root).is_some_and(|rest| rest.ends_with('.'));
    let restricted = below("node-restriction.kubernetes.io");
    let kubernetes = below("kubernetes.io") || below("k8s.io");
    let kubelets = below("kubelet.kubernetes.io") || below("node.kubernetes.io");
    !restricted && (!kubernetes || kubelets || KNOWN.contains(&label))
}

/// A node gets tokens for pods that run on it, for the audiences that they ask for.
pub fn token_request(call: &Call<'_>, request: &Value, bound: Option<&Value>) -> Outcome<()> {
    let Some(node) = node_of(call.identity) else { return Ok(()) };
    let spec = &request["spec"];
    let refuse = |why: String| Err(forbidden(call, &why).into());
    let Some(pod) = bound.filter(|_| spec["boundObjectRef"]["kind"] == "Pod") else {
        return refuse("node requested token not bound to a pod".to_owned());
    };
    if spec["boundObjectRef"]["uid"].as_str().unwrap_or_default().is_empty() {
        return refuse("node requested token with a pod binding without a uid".to_owned());
    }
    if pod["spec"]["nodeName"] != node {
        return refuse("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    let own = &call.server.authenticator.accounts().policy().audiences;
    let audiences = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let unknown = audiences.into_iter().find(|wanted| {
        !own.iter().any(|own| own == wanted) && !projected_audiences(pod).any(|asked| asked == *wanted)
    });
    match unknown {
        None => Ok(()),
        Some(audience) => refuse(format!(
            "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            object::name(pod)
        )),
    }
}

/// The audiences of the tokens that a pod mounts.
fn projected_audiences(pod: &Value) -> impl Iterator<Item = &str> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let sources = volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    sources.filter_map(|source| source["serviceAccountToken"]["audience"].as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_labels_itself_with_what_it_is_only() {
        let own = [
            "team",
            "example.com/team",
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
            "node.kubernetes.io/instance-type",
            "sub.kubelet.kubernetes.io/x",
            "notkubernetes.io/x",
        ];
        let others = [
            "node-role.kubernetes.io/control-plane",
            "node-restriction.kubernetes.io/pci",
            "kubernetes.io/x",
            "sub.k8s.io/x",
            "my.node-restriction.kubernetes.io/x",
        ];
        assert_eq!(own.into_iter().find(|label| !is_nodes_own(label)), None);
        assert_eq!(others.into_iter().find(|label| is_nodes_own(label)), None);
    }

    #[test]
    fn taints_and_foreign_labels_are_for_others() {
        let node = |labels: Value, taints: Value| json!({"metadata": {"name": "n1", "labels": labels}, "spec": {"taints": taints}});
        let plain = node(json!({"a": "b"}), json!([]));
        let judge = |new: Value| own_node_change("n1", &new, &plain).unwrap_or_default();
        assert_eq!(judge(node(json!({"a": "c"}), json!([]))), "");
        assert_eq!(
            judge(node(json!({"a": "b"}), json!([{"key": "x"}]))),
            "node \"n1\" is not allowed to modify taints"
        );
        assert_eq!(
            judge(node(json!({"a": "b", "node-restriction.kubernetes.io/x": "y"}), json!([]))),
            "node \"n1\" is not allowed to modify labels: node-restriction.kubernetes.io/x"
        );
        assert_eq!(
            own_node("n1", &json!({"metadata": {"name": "n2"}})),
            Some("node \"n1\" is not allowed to modify node \"n2\"".to_owned())
        );
    }
}
