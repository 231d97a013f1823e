//! Mirrors Endpoints that people write for a Service without a selector into EndpointSlices, which is what proxies
//! read. Upstream's `pkg/controller/endpointslicemirroring` gives the rules.

use crate::{
    endpoint_slice::inherited_labels,
    expectations::Pending,
    plan::Plan,
    slice_packing::{Group, Publisher, address_type},
};
use k8s_openapi::api::{
    core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service},
    discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
};
use kube::ResourceExt;
use std::sync::Arc;

/// This controller.
pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Of one subset no more are mirrored; upstream's `--mirroring-max-endpoints-per-subset`.
const MOST: usize = 1000;

/// What a reconcile sees beside its object.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The Service of the same name.
    pub service: Option<Arc<Service>>,
    /// Its slices of this controller.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// Our own writes that `slices` doesn't show yet.
    pub pending: Pending,
}

/// What to do for `endpoints` now.
pub fn reconcile(endpoints: &Endpoints, view: &Snapshot) -> Plan {
    let mut plan = Plan::nothing();
    if view.pending.unseen(&view.slices) > 0 {
        return plan;
    }
    let groups = if is_mirrored(endpoints, view) { groups(endpoints) } else { Vec::new() };
    let mut labels = endpoints.labels().clone();
    labels.extend(
        view.service
            .iter()
            .flat_map(|service| inherited_labels(service))
            .filter(|(name, _)| name == crate::endpoint_slice::HEADLESS),
    );
    let service = endpoints.name_any();
    let publisher = Publisher { owner: endpoints, service, manager: MANAGER, labels, triggers: None };
    publisher.publish(groups, &view.slices, &mut plan);
    plan
}

/// A Service with a selector has slices of its own; without a Service nobody asks.
fn is_mirrored(endpoints: &Endpoints, view: &Snapshot) -> bool {
    let asked = endpoints.labels().get(SKIP).is_none_or(|skip| skip != "true")
        && !endpoints.annotations().contains_key(LEADER)
        && endpoints.metadata.deletion_timestamp.is_none();
    let free = |service: &Arc<Service>| {
        service
            .spec
            .as_ref()
            .is_some_and(|spec| spec.selector.as_ref().is_none_or(|selector| selector.is_empty()))
    };
    asked && view.service.as_ref().is_some_and(free)
}

fn groups(endpoints: &Endpoints) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        for endpoint in listed(subset).into_iter().take(MOST) {
            let family = address_type(&endpoint.addresses[0]);
            let found = groups.iter_mut().find(|group| group.address_type == family && group.ports == ports);
            match found {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Group {
                    address_type: family,
                    ports: ports.clone(),
                    endpoints: vec![endpoint],
                }),
            }
        }
    }
    groups
}

fn listed(subset: &EndpointSubset) -> Vec<Endpoint> {
    let ready = subset.addresses.iter().flatten().map(|address| endpoint(address, true));
    let others = subset.not_ready_addresses.iter().flatten().map(|address| endpoint(address, false));
    ready.chain(others).collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    });
    ports.collect()
}
