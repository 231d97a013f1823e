//! EndpointSlices of Services with a selector: where the Service's pods are, and in which condition.
//!
//! Upstream's `pkg/controller/endpointslice` gives the rules.

use crate::{
    expectations::Pending,
    plan::Plan,
    pod::{self, Pod},
    slice_packing::{Group, Publisher, address_type},
    trigger_time::Triggers,
};
use k8s_openapi::{
    api::{
        core::v1::{Node, ObjectReference, Service, ServicePort},
        discovery::v1::{
            Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
        },
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use std::{collections::BTreeMap, sync::Arc};

/// Label of slices: the Service that they are for.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label of slices: who keeps them up to date.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Label of slices and Endpoints of a Service without an address of its own.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// This controller.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Label of nodes: where they are.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// What a reconcile sees beside its object.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// All pods of the namespace.
    pub pods: Vec<Arc<Pod>>,
    /// The Service's slices of this controller.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// All nodes, for their zones.
    pub nodes: Vec<Arc<Node>>,
    /// Our own writes that `slices` doesn't show yet.
    pub pending: Pending,
}

/// What to do for `service` now.
pub fn reconcile(service: &Service, view: &Snapshot) -> Plan {
    let mut plan = Plan::nothing();
    let selects = selector(service).is_some() && service.metadata.deletion_timestamp.is_none();
    // A slice that isn't seen yet would be made twice: names are given by the server.
    if !selects || view.pending.unseen(&view.slices) > 0 {
        return plan;
    }
    let alive: Vec<Arc<EndpointSlice>> =
        view.slices.iter().filter(|slice| slice.metadata.deletion_timestamp.is_none()).cloned().collect();
    let publisher = Publisher {
        owner: service,
        service: service.name_any(),
        manager: MANAGER,
        labels: inherited_labels(service),
        triggers: Some(Triggers::of(service, &view.pods)),
    };
    publisher.publish(groups(service, view), &alive, &mut plan);
    plan
}

/// The Service's selector; none if somebody else says where it leads.
pub fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName"))?;
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// True if the pod's labels fit.
pub fn selects(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    selector.iter().all(|(name, value)| pod.labels().get(name) == Some(value))
}

/// True for a Service without an address of its own.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// The Service's labels, and whether it is headless.
pub fn inherited_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

fn groups(service: &Service, view: &Snapshot) -> Vec<Group> {
    let (Some(spec), Some(selector)) = (&service.spec, selector(service)) else { return Vec::new() };
    let zones: BTreeMap<String, String> = view
        .nodes
        .iter()
        .filter_map(|node| Some((node.name_any(), node.labels().get(ZONE)?.clone())))
        .collect();
    let mut groups: Vec<Group> = Vec::new();
    for family in families(service) {
        let before = groups.len();
        for pod in view.pods.iter().filter(|pod| selects(selector, pod) && !pod::is_terminal(pod)) {
            let Some(endpoint) = endpoint(service, pod, family, &zones) else { continue };
            let ports: Vec<EndpointPort> =
                spec.ports.iter().flatten().filter_map(|port| slice_port(port, pod)).collect();
            match groups[before..].iter_mut().find(|group| group.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Group { address_type: family, ports, endpoints: vec![endpoint] }),
            }
        }
        if groups.len() == before {
            // Somebody who asks shall see that it is known: nothing is there.
            groups.push(Group { address_type: family, ports: Vec::new(), endpoints: Vec::new() });
        }
    }
    groups
}

fn families(service: &Service) -> Vec<&'static str> {
    let named = service.spec.iter().flat_map(|spec| spec.ip_families.iter().flatten());
    let families: Vec<&'static str> =
        named.map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" }).collect();
    if families.is_empty() { vec!["IPv4"] } else { families }
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    family: &'static str,
    zones: &BTreeMap<String, String>,
) -> Option<Endpoint> {
    let address = pod::addresses(pod).into_iter().find(|address| address_type(address) == family)?;
    let (serving, terminating) = (pod::is_ready(pod), pod::is_terminating(pod));
    let publishes = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let ready = publishes || (serving && !terminating);
    let node = Some(pod::node_name(pod).to_owned()).filter(|node| !node.is_empty());
    let zone = node.as_ref().and_then(|node| zones.get(node).cloned());
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        hints: hints(service, node.as_deref(), zone.as_deref()).filter(|_| ready),
        zone,
        node_name: node,
        target_ref: Some(reference(pod)),
        ..Endpoint::default()
    })
}

/// For whom an endpoint is meant first, if the Service says that traffic shall stay close: its zone, or its node.
fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let by_node = match service.spec.as_ref()?.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => false,
        "PreferSameNode" => true,
        _ => return None,
    };
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
    let for_nodes = node.filter(|_| by_node).map(|node| vec![ForNode { name: node.to_owned() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

/// A pod's own name within a Service that it names as its domain.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    spec.hostname.clone().filter(|_| spec.subdomain.as_deref() == service.metadata.name.as_deref())
}

/// What an endpoint says about its pod.
pub fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.namespace(),
        name: pod.metadata.name.clone(),
        uid: pod.uid(),
        ..ObjectReference::default()
    }
}

fn slice_port(port: &ServicePort, pod: &Pod) -> Option<EndpointPort> {
    Some(EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number_of(port, pod)?),
        protocol: Some(protocol(port).to_owned()),
        app_protocol: port.app_protocol.clone(),
    })
}

/// The protocol of a port; TCP unless it says otherwise.
pub fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The port's number on this pod; none if the pod has no port of the name.
pub fn number_of(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        Some(IntOrString::Int(0)) | None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => named_port(pod, name, protocol(port)),
    }
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .flatten()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let fits = |port: &&k8s_openapi::api::core::v1::ContainerPort| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    ports.filter(|port| fits(port)).map(|port| port.container_port).next()
}
