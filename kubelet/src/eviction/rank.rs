//! Whom it helps most to end, and whom it hurts least.

use std::cmp::{Ordering, Reverse};

use k8s_openapi::api::core::v1::Pod;

use crate::eviction::threshold::Resource;
use crate::eviction::{Observation, PodUsage};
use crate::pod::PodRef;
use crate::pod::admission::requests;

/// The more urgent one first: who uses more than it asked for, then the less important, then who uses most
/// beyond its request. Of processes nobody asks for any.
pub fn by_urgency(resource: Resource, a: &Pod, b: &Pod, seen: &Observation) -> Ordering {
    key(resource, a, seen).cmp(&key(resource, b, seen))
}

/// Exceeds its request, priority, by how much; the name makes equals orderly.
type Key = (Reverse<bool>, i32, Reverse<i128>, PodRef);

fn key(resource: Resource, pod: &Pod, seen: &Observation) -> Key {
    let pod_ref = PodRef::of(pod);
    let none = PodUsage::default();
    let usage = seen.pods.get(&pod_ref.uid).unwrap_or(&none);
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
    let (used, asked) = match resource {
        Resource::Memory => (usage.memory.values().sum::<u64>(), "memory"),
        Resource::Disk => (usage.disk, "ephemeral-storage"),
        Resource::Processes => return (Reverse(false), priority, Reverse(usage.processes.into()), pod_ref),
    };
    let beyond = i128::from(used) - requests(pod).get(asked).copied().unwrap_or(0);
    (Reverse(beyond > 0), priority, Reverse(beyond), pod_ref)
}
