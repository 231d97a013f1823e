//! A pod's control group: where it stands, and what its containers may use together.

use k8s_openapi::api::core::v1::Pod;

use crate::container::cgroup::{Limits, PodGroup};
use crate::pod::PodRef;
use crate::pod::admission::{limits, qos_class, requests};

/// Of this pod, as it is allocated, with at most so many processes and threads.
pub fn of(pod: &Pod, pids: Option<u64>) -> PodGroup {
    let (requests, limits) = (requests(pod), limits(pod));
    let positive = |amount: Option<&i128>| amount.and_then(|n| u64::try_from(*n).ok()).filter(|n| *n > 0);
    let limits = Limits {
        cpu_request: positive(requests.get("cpu")).unwrap_or(0),
        cpu: positive(limits.get("cpu")),
        memory: positive(limits.get("memory")),
        pids,
    };
    PodGroup::new(qos_class(pod), &PodRef::of(pod).uid.0, limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(spec: &str) -> String {
        let pod = serde_yaml::from_str(&format!("{{metadata: {{uid: u}}, spec: {spec}}}")).expect("a pod");
        let PodGroup { path, limits } = of(&pod, None);
        let most = |limit: Option<u64>| limit.map_or("-".to_owned(), |limit| limit.to_string());
        let (cpu, memory) = (most(limits.cpu), most(limits.memory));
        format!("{path} asks {}m, may {cpu}m and {memory}", limits.cpu_request)
    }

    #[test]
    fn a_pods_group_is_that_of_upstream() {
        let container = |requests: &str, limits: &str| {
            format!("{{name: c, resources: {{requests: {{{requests}}}, limits: {{{limits}}}}}}}")
        };
        let both = container("cpu: 250m, memory: 1k", "cpu: 250m, memory: 1k");
        let half = container("cpu: 100m", "cpu: 1");
        let none = container("", "");
        let pod =
            |containers: &[&str], rest: &str| format!("{{containers: [{}]{rest}}}", containers.join(","));
        let heavy_init =
            format!(", initContainers: [{}]", container("cpu: 1, memory: 9k", "cpu: 1, memory: 9k"));
        for (spec, want) in [
            (pod(&[&both, &both], ""), "kubepods/podu asks 500m, may 500m and 2000"),
            (
                pod(&[&both], ", overhead: {cpu: 10m, memory: 1k}"),
                "kubepods/podu asks 260m, may 260m and 2000",
            ),
            (pod(&[&both], &heavy_init), "kubepods/podu asks 1000m, may 1000m and 9000"),
            (pod(&[&both, &half], ""), "kubepods/burstable/podu asks 350m, may 1250m and -"),
            (pod(&[&both, &none], ""), "kubepods/burstable/podu asks 250m, may -m and -"),
            (
                pod(&[&half, &none], ", resources: {requests: {cpu: 300m}, limits: {cpu: 2, memory: 5k}}"),
                "kubepods/burstable/podu asks 300m, may 2000m and 5000",
            ),
            (
                pod(&[&none], ", resources: {requests: {cpu: 2}, limits: {cpu: 2, memory: 5k}}"),
                "kubepods/podu asks 2000m, may 2000m and 5000",
            ),
            (pod(&[&none], ""), "kubepods/besteffort/podu asks 0m, may -m and -"),
        ] {
            assert_eq!(told(&spec), want, "{spec}");
        }
    }
}
