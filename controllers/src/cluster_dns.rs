//! The endpoints of Service `kube-system/kube-dns`: the node agents answer names themselves, each at the address of
//! its pods' bridge, which is the first one of the node's range.
//!
//! A Service with a selector is somebody's own DNS, whose endpoints are the slice controller's.

use crate::{
    endpoint_slice::{MANAGED_BY, SERVICE_NAME},
    node_lifecycle::ready_of,
    node_ranges::ranges_of,
    owner,
    plan::{Action, Part, Plan, Target, difference, to_value},
};
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{ResourceExt, core::ApiResource};
use serde_json::{Value, json};

/// Where the Service and its slice are.
pub const NAMESPACE: &str = "kube-system";
/// What both are called.
pub const NAME: &str = "kube-dns";
/// The most endpoints that a slice may have.
const MOST: usize = 1000;

/// What to do for the slice, beside the Service and all nodes.
pub fn reconcile<'a>(
    service: Option<&Service>,
    slice: Option<&EndpointSlice>,
    nodes: impl Iterator<Item = &'a Node>,
) -> Plan {
    let mut plan = Plan::nothing();
    match (service.filter(|service| !has_selector(service)), slice) {
        (None, Some(slice)) if is_ours(slice) => plan.delete(Target::of(slice), "the nodes don't serve it"),
        (Some(service), None) => plan.push(Action::Create {
            kind: ApiResource::erase::<EndpointSlice>(&()),
            object: wanted(service, nodes),
            announce: None,
            reason: "the nodes answer names".to_owned(),
        }),
        (Some(service), Some(slice)) if is_ours(slice) => {
            let wanted = json!({"endpoints": wanted(service, nodes)["endpoints"]});
            let present = json!({"endpoints": to_value(&slice.endpoints)});
            if let Some(patch) = difference(&present, &wanted) {
                plan.patch(Target::of(slice), Part::Whole, patch, "other nodes answer names");
            }
        }
        _ => {}
    }
    plan
}

fn has_selector(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.selector.iter().flatten().next().is_some())
}

/// Who keeps the slice.
const MANAGER: &str = "cluster-dns.amoeba.dev";

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

fn wanted<'a>(service: &Service, nodes: impl Iterator<Item = &'a Node>) -> Value {
    let mut endpoints: Vec<Value> = nodes.filter_map(endpoint).collect();
    endpoints.sort_by_key(|endpoint| endpoint["nodeName"].to_string());
    endpoints.truncate(MOST);
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {SERVICE_NAME: NAME, MANAGED_BY: MANAGER},
            "ownerReferences": [owner::controller_reference(service)],
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ],
    })
}

/// Where a node answers; it doesn't if it isn't ready, or if its pods have its own network.
fn endpoint(node: &Node) -> Option<Value> {
    let range = ranges_of(node).into_iter().find(|range| !range.is_ipv6())?;
    let conditions = json!({"ready": true, "serving": true, "terminating": false});
    (ready_of(node) == Some("True")).then(|| {
        json!({"addresses": [range.nth(1).to_string()], "conditions": conditions, "nodeName": node.name_any()})
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    fn service(selector: Value) -> Service {
        read(
            json!({"metadata": {"name": NAME, "namespace": NAMESPACE, "uid": "u"}, "spec": {"selector": selector}}),
        )
    }

    fn node(name: &str, ready: &str, range: Option<&str>) -> Node {
        read(json!({
            "metadata": {"name": name},
            "spec": {"podCIDR": range},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
    }

    #[test]
    fn ready_nodes_with_a_range_answer() {
        let own = service(json!(null));
        let nodes = [
            node("b", "True", Some("10.244.2.0/24")),
            node("a", "True", Some("10.244.1.0/24")),
            node("c", "Unknown", Some("10.244.3.0/24")),
            node("d", "True", None),
        ];
        let plan = reconcile(Some(&own), None, nodes.iter());
        let [Action::Create { object, .. }] = plan.actions.as_slice() else { panic!("{plan}") };
        let told = |endpoint: &Value| format!("{} {}", endpoint["nodeName"], endpoint["addresses"]);
        let told: Vec<String> = object["endpoints"].as_array().expect("a list").iter().map(told).collect();
        assert_eq!(told, [r#""a" ["10.244.1.1"]"#, r#""b" ["10.244.2.1"]"#]);

        let slice: EndpointSlice = read(object.clone());
        assert!(reconcile(Some(&own), Some(&slice), nodes.iter()).actions.is_empty(), "nothing changed");
        let plan = reconcile(Some(&own), Some(&slice), nodes[1..].iter());
        assert!(plan.to_string().starts_with("patch endpointslices kube-system/kube-dns"), "{plan}");
        let others = service(json!({"k8s-app": "kube-dns"}));
        let plan = reconcile(Some(&others), Some(&slice), nodes.iter());
        assert!(plan.to_string().starts_with("delete endpointslices kube-system/kube-dns"), "{plan}");
        assert!(reconcile(Some(&others), None, nodes.iter()).actions.is_empty(), "it is theirs");
    }
}
