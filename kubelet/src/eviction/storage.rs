//! Pods that keep more on the node's disk than they have said: limits of emptyDir volumes and of ephemeral storage.
//! Upstream's rules, their order and texts (`pkg/kubelet/eviction`, `localStorageEviction`).

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::is_critical;
use crate::pod::ContainerName;
use crate::pod::admission::amounts;

const RESOURCE: &str = "ephemeral-storage";

/// What a pod has on the node's disk, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageUsage {
    /// By container: what it has written beside its image, and its logs.
    pub containers: BTreeMap<ContainerName, u64>,
    /// By volume, those that end with the pod.
    pub volumes: BTreeMap<String, u64>,
}

/// Whether there is a limit to look after.
pub fn is_limited(pod: &Pod) -> bool {
    let volumes = volumes(pod).any(|volume| size_limit(volume).is_some());
    !is_critical(pod) && (volumes || containers(pod).any(|container| limit(container).is_some()))
}

/// `status.message` of a pod that has exceeded one of its limits.
pub fn exceeded(pod: &Pod, used: &StorageUsage) -> Option<String> {
    if is_critical(pod) {
        return None;
    }
    volume_exceeded(pod, used).or_else(|| pod_exceeded(pod, used)).or_else(|| container_exceeded(pod, used))
}

fn volume_exceeded(pod: &Pod, used: &StorageUsage) -> Option<String> {
    volumes(pod).find_map(|volume| {
        let (limit, text) = size_limit(volume)?;
        let has = i128::from(*used.volumes.get(&volume.name)?);
        let name = &volume.name;
        (has > limit).then(|| format!("Usage of EmptyDir volume {name:?} exceeds the limit {text:?}. "))
    })
}

/// The sum of the containers' limits is the pod's, also for those that have none.
fn pod_exceeded(pod: &Pod, used: &StorageUsage) -> Option<String> {
    let limits: Vec<(i128, &str)> = containers(pod).filter_map(limit).collect();
    let limit: i128 = limits.iter().map(|(bytes, _)| bytes).sum();
    let in_memory = |name: &String| volumes(pod).any(|volume| volume.name == *name && is_memory(volume));
    let on_disk = used.volumes.iter().filter(|(name, _)| !in_memory(name)).map(|(_, bytes)| bytes);
    let has: u64 = used.containers.values().chain(on_disk).sum();
    let text = match limits.as_slice() {
        [] => return None,
        [(_, only)] => (*only).to_owned(),
        _ => limit.to_string(),
    };
    let over = i128::from(has) > limit;
    over.then(|| format!("Pod ephemeral local storage usage exceeds the total limit of containers {text}. "))
}

fn container_exceeded(pod: &Pod, used: &StorageUsage) -> Option<String> {
    containers(pod).find_map(|container| {
        let (limit, text) = limit(container)?;
        let name = ContainerName(container.name.clone());
        let has = i128::from(*used.containers.get(&name)?);
        let over = has > limit;
        over.then(|| format!("Container {name} exceeded its local ephemeral storage limit {text:?}. "))
    })
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| &spec.containers)
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

fn is_memory(volume: &Volume) -> bool {
    volume.empty_dir.as_ref().is_some_and(|dir| dir.medium.as_deref() == Some("Memory"))
}

/// In bytes and as it was written; none is none, and so is zero.
fn size_limit(volume: &Volume) -> Option<(i128, &str)> {
    let limit: &ApiQuantity = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
    let bytes = Quantity::parse(&limit.0).ok()?.value();
    (bytes > 0).then_some((bytes, limit.0.as_str()))
}

fn limit(container: &Container) -> Option<(i128, &str)> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    let bytes = amounts(limits).get(RESOURCE).copied().filter(|bytes| *bytes > 0)?;
    Some((bytes, limits.get(RESOURCE)?.0.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(more: &str) -> Pod {
        let limits = "resources: {limits: {ephemeral-storage: 1Mi}}";
        let yaml = format!(
            "spec: {{containers: [{{name: a, {limits}}}, {{name: b, {limits}}}, {{name: c}}], volumes: [{{name: v, emptyDir: {{sizeLimit: 1Mi}}}}, {{name: w, emptyDir: {{}}}}]{more}}}"
        );
        serde_yaml::from_str(&yaml).expect("a pod")
    }

    fn used(containers: &[(&str, u64)], volumes: &[(&str, u64)]) -> StorageUsage {
        const KIB: u64 = 1024;
        let containers = containers.iter().map(|(name, kib)| (ContainerName((*name).to_owned()), kib * KIB));
        let volumes = volumes.iter().map(|(name, kib)| ((*name).to_owned(), kib * KIB));
        StorageUsage { containers: containers.collect(), volumes: volumes.collect() }
    }

    #[test]
    fn the_first_limit_that_is_exceeded_is_told() {
        let pod = pod("");
        let told =
            |containers: &[(&str, u64)], volumes: &[(&str, u64)]| exceeded(&pod, &used(containers, volumes));
        assert!(is_limited(&pod));
        assert_eq!(told(&[("a", 1024), ("b", 512)], &[("v", 512)]), None, "just so much");
        let volume = told(&[("a", 4096)], &[("v", 1025)]);
        assert_eq!(volume.as_deref(), Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "));
        let whole = told(&[("c", 1500)], &[("w", 600)]);
        let text = "Pod ephemeral local storage usage exceeds the total limit of containers 2097152. ";
        assert_eq!(whole.as_deref(), Some(text), "who has no limit counts, too");
        let one = told(&[("a", 1025)], &[]);
        assert_eq!(one.as_deref(), Some("Container a exceeded its local ephemeral storage limit \"1Mi\". "));
    }

    #[test]
    fn critical_pods_have_no_limits() {
        let pod = pod(", priority: 2000000000");
        assert!(!is_limited(&pod));
        assert_eq!(exceeded(&pod, &used(&[("a", 9999)], &[])), None);
    }
}
