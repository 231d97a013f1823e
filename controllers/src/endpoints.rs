//! Endpoints: the older list of a Service's pods, which some clients still read.
//!
//! Upstream's `pkg/controller/endpoint` gives the rules.

use crate::{
    endpoint_slice::{self, hostname, inherited_labels, number_of, protocol, reference, selects},
    plan::{Action, Part, Plan, Target, to_value},
    pod::{self, Pod},
    trigger_time::{self, Triggers},
};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use kube::{ResourceExt, core::ApiResource};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Label of what this controller keeps.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// No list is longer.
const CAPACITY: usize = 1000;

/// What to do for `service` and the Endpoints of its name.
pub fn reconcile(service: Option<&Service>, known: Option<&Endpoints>, pods: &[Arc<Pod>]) -> Plan {
    let mut plan = Plan::nothing();
    match (service, known) {
        (Some(service), _) if endpoint_slice::selector(service).is_none() => {}
        (Some(service), known) => publish(service, known, pods, &mut plan),
        (None, Some(known)) if known.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER) => {
            plan.delete(Target::of(known), "its Service is gone");
        }
        (None, _) => {}
    }
    plan
}

fn publish(service: &Service, known: Option<&Endpoints>, pods: &[Arc<Pod>], plan: &mut Plan) {
    if service.metadata.deletion_timestamp.is_some() {
        return;
    }
    let (subsets, truncated) = subsets(service, pods);
    let mut labels = inherited_labels(service);
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut metadata = json!({"labels": labels});
    if truncated {
        metadata["annotations"] = json!({OVER_CAPACITY: "truncated"});
    }
    let triggers = Triggers::of(service, pods);
    let Some(known) = known else {
        if let trigger @ Value::String(_) = triggers.first() {
            metadata["annotations"][trigger_time::ANNOTATION] = trigger;
        }
        metadata["name"] = json!(service.name_any());
        metadata["namespace"] = json!(service.namespace());
        return plan.push(Action::Create {
            kind: ApiResource::erase::<Endpoints>(&()),
            object: json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}),
            announce: None,
            reason: "the Service has none".to_owned(),
        });
    };
    let mut patch = json!({});
    if known.subsets.clone().unwrap_or_default() != subsets {
        patch["subsets"] = to_value(&subsets);
        let trigger = triggers.earliest(changed_pods(known, &subsets));
        if known.annotations().get(trigger_time::ANNOTATION).map(String::as_str) != trigger.as_str() {
            patch["metadata"]["annotations"][trigger_time::ANNOTATION] = trigger;
        }
    }
    let changed: BTreeMap<&String, &String> =
        labels.iter().filter(|(name, value)| known.labels().get(*name) != Some(value)).collect();
    if !changed.is_empty() {
        patch["metadata"]["labels"] = json!(changed);
    }
    let was_truncated = known.annotations().contains_key(OVER_CAPACITY);
    if truncated != was_truncated {
        patch["metadata"]["annotations"][OVER_CAPACITY] = json!(truncated.then_some("truncated"));
    }
    plan.patch(Target::of(known), Part::Whole, patch, "its addresses have changed");
}

/// The uids of the pods whose addresses are new or stand in another list.
fn changed_pods<'a>(known: &Endpoints, subsets: &'a [EndpointSubset]) -> impl Iterator<Item = &'a str> {
    let old: BTreeSet<(bool, String)> = known.subsets.iter().flatten().flat_map(listed).map(owned).collect();
    let new = subsets.iter().flat_map(listed);
    new.filter(move |(ready, uid)| !old.contains(&(*ready, (*uid).to_owned()))).map(|(_, uid)| uid)
}

fn owned((ready, uid): (bool, &str)) -> (bool, String) {
    (ready, uid.to_owned())
}

/// Whether it is ready, and the uid of the pod, of each address.
fn listed(subset: &EndpointSubset) -> impl Iterator<Item = (bool, &str)> {
    let ready = subset.addresses.iter().flatten().map(|address| (true, address));
    let others = subset.not_ready_addresses.iter().flatten().map(|address| (false, address));
    ready.chain(others).filter_map(|(ready, address)| Some((ready, uid(address)?)))
}

/// Pods with the same ports share a subset; and whether some had to be left out.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let (Some(spec), Some(selector)) = (&service.spec, endpoint_slice::selector(service)) else {
        return (Vec::new(), false);
    };
    let publishes = spec.publish_not_ready_addresses == Some(true);
    let counts = |pod: &&Arc<Pod>| {
        selects(selector, pod) && !pod::is_terminal(pod) && (publishes || !pod::is_terminating(pod))
    };
    // By ports as text, which sorts them in the same order each time.
    let mut subsets: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for pod in pods.iter().filter(counts) {
        let Some(address) = address(service, pod) else { continue };
        let ports: Vec<EndpointPort> = ports(service, pod);
        if (ports.is_empty() && !endpoint_slice::is_headless(service)) || !seen.insert(address.ip.clone()) {
            continue;
        }
        let subset = subsets.entry(to_value(&ports).to_string()).or_default();
        subset.ports = (!ports.is_empty()).then_some(ports);
        let ready = publishes || pod::is_ready(pod);
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    let mut subsets: Vec<EndpointSubset> = subsets.into_values().collect();
    subsets.iter_mut().flat_map(|it| it.addresses.iter_mut().chain(&mut it.not_ready_addresses)).for_each(
        |list| {
            list.sort_by(|a, b| (&a.ip, uid(a)).cmp(&(&b.ip, uid(b))));
        },
    );
    let truncated = seen.len() > CAPACITY;
    if truncated {
        truncate(&mut subsets);
    }
    (subsets, truncated)
}

/// Keeps as many as fit, those that are ready first.
fn truncate(subsets: &mut Vec<EndpointSubset>) {
    let mut room = CAPACITY;
    let mut fit = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(list) = list {
            list.truncate(room);
            room -= list.len();
        }
        if list.as_ref().is_some_and(Vec::is_empty) {
            *list = None;
        }
    };
    subsets.iter_mut().for_each(|subset| fit(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| fit(&mut subset.not_ready_addresses));
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
}

fn uid(address: &EndpointAddress) -> Option<&str> {
    address.target_ref.as_ref()?.uid.as_deref()
}

fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let family = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref()?.first().cloned());
    let wanted = family.as_deref().unwrap_or("IPv4");
    let mut addresses = pod::addresses(pod).into_iter();
    let ip = addresses.find(|address| crate::slice_packing::address_type(address) == wanted)?;
    Some(EndpointAddress {
        ip,
        node_name: Some(pod::node_name(pod).to_owned()).filter(|node| !node.is_empty()),
        hostname: hostname(service, pod),
        target_ref: Some(reference(pod)),
    })
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let ports = ports.filter_map(|port| {
        Some(EndpointPort {
            name: port.name.clone().filter(|name| !name.is_empty()),
            port: number_of(port, pod)?,
            protocol: Some(protocol(port).to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    });
    ports.collect()
}
