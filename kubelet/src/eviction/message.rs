//! What is said of an eviction, in upstream's words.

use std::fmt::Write as _;

use api::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::Pod;

use crate::eviction::Observation;
use crate::eviction::threshold::{Resource, Threshold};
use crate::pod::PodRef;
use crate::pod::admission::amounts;
use crate::pod::roles::declared;

fn bytes(amount: u64) -> Quantity {
    Quantity::from_units(i64::try_from(amount).unwrap_or(i64::MAX), Format::Binary)
}

/// What the node was low on, by how much, and which containers used more than they asked for.
pub fn message(pod: &Pod, threshold: &Threshold, seen: &Observation) -> String {
    let starved = threshold.signal.starved();
    let mut text = format!("The node was low on resource: {starved}. ");
    if let Some(supply) = seen.supplies.get(&threshold.signal) {
        let (level, available) = (bytes(threshold.level.of(supply.capacity)), bytes(supply.available));
        // Writing to a string can't fail.
        let _ = write!(text, "Threshold quantity: {level}, available: {available}. ");
    }
    if threshold.signal.resource() == Resource::Memory {
        text += &greedy(pod, seen);
    }
    text
}

fn greedy(pod: &Pod, seen: &Observation) -> String {
    let Some(usage) = seen.pods.get(&PodRef::of(pod).uid) else { return String::new() };
    let mut text = String::new();
    for (container, _) in declared(pod) {
        let used =
            usage.memory.iter().find(|(name, _)| name.0 == container.name).map_or(0, |(_, used)| *used);
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let asked = requests.and_then(|all| all.get("memory")).map_or("0", |quantity| &quantity.0);
        if i128::from(used) > requests.map(amounts).unwrap_or_default().get("memory").copied().unwrap_or(0) {
            let (name, used) = (&container.name, bytes(used));
            let _ = write!(
                text,
                "Container {name} was using {used}, request is {asked}, has larger consumption of memory. "
            );
        }
    }
    text
}
