//! Amounts of resources: what a pod asks for and what a node offers.
//!
//! CPU is in thousandths of a core, everything else in whole units (bytes, pieces). Amounts are
//! limited, so that an absurd request is merely one that fits nowhere.

use crate::object::{Container, ContainerStatus, PodSpec, PodStatus};
use api::k8s::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// CPU in thousandths of a core.
pub const CPU: &str = "cpu";
/// Memory in bytes.
pub const MEMORY: &str = "memory";
/// Local ephemeral storage in bytes.
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
/// How many pods a node takes.
pub const PODS: &str = "pods";

/// CPU that a container without a request is assumed to use when nodes are scored (upstream's 0.1 core).
const ASSUMED_CPU: i64 = 100;
/// Memory that a container without a request is assumed to use when nodes are scored (200 MB as upstream).
const ASSUMED_MEMORY: i64 = 200 * 1024 * 1024;

/// No amount is larger: 4 PiB, or 4.5 trillion cores. Two thousand pods that ask for it still add up without
/// overflow, and it fits on no node, so nothing is lost by the limit.
const MOST: i64 = 1 << 52;

/// Amounts by resource name; an absent resource is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Amounts(BTreeMap<Box<str>, i64>);

/// What one pod adds to its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Requests {
    /// What must fit.
    pub exact: Amounts,
    /// CPU and memory with the assumed minimum per container, used in scores only.
    pub assumed: (i64, i64),
}

impl Amounts {
    /// The amounts of a `resources.requests` or `status.allocatable` map. Quantities that don't parse
    /// (the API server admits none) count as zero.
    pub fn of(map: Option<&BTreeMap<String, Quantity>>) -> Self {
        let entries = map.into_iter().flatten();
        Amounts(entries.map(|(name, quantity)| (name.as_str().into(), amount(name, quantity))).collect())
    }

    /// The amount of `name`.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All amounts that are present, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (&**name, *amount))
    }

    fn merge(&mut self, other: &Amounts, combine: impl Fn(i64, i64) -> i64) {
        for (name, amount) in &other.0 {
            let mine = self.0.entry(name.clone()).or_insert(0);
            *mine = combine(*mine, *amount);
        }
    }

    fn add(&mut self, other: &Amounts) {
        self.merge(other, |mine, more| (mine + more).min(MOST));
    }

    fn reduce_by(mut self, other: &Amounts) -> Self {
        for (name, mine) in &mut self.0 {
            *mine = (*mine - other.get(name)).max(0);
        }
        self
    }

    fn raise_to(&mut self, other: &Amounts) {
        self.merge(other, i64::max);
    }

    /// Raises CPU and memory that were not stated to what scoring assumes of a container.
    fn assume_minimum(mut self) -> Self {
        self.0.entry(CPU.into()).or_insert(ASSUMED_CPU);
        self.0.entry(MEMORY.into()).or_insert(ASSUMED_MEMORY);
        self
    }
}

impl Requests {
    /// The requests of a pod: the larger of what its containers need together and what its init containers
    /// need one after another beside the sidecars started so far; pod-level requests replace the sum of
    /// their resource; the runtime's overhead comes on top. While a pod is being resized, the most counts of what it
    /// asks for, what its node has set aside for it, and what it has; what the node can never give doesn't count.
    pub fn of(spec: &PodSpec, status: Option<&PodStatus>) -> Self {
        let told = Told::of(status);
        let exact = total(spec, &told, |amounts| amounts);
        let assumed = total(spec, &told, Amounts::assume_minimum);
        Requests { assumed: (assumed.get(CPU), assumed.get(MEMORY)), exact }
    }

    /// Whether the pod states no CPU and no memory at all.
    pub fn is_best_effort(&self) -> bool {
        self.exact.get(CPU) == 0 && self.exact.get(MEMORY) == 0
    }
}

/// What a node has told of a pod's resources.
struct Told<'a> {
    status: Option<&'a PodStatus>,
    /// The pod asks for what its node can never give, and keeps what it has.
    infeasible: bool,
}

impl<'a> Told<'a> {
    fn of(status: Option<&'a PodStatus>) -> Self {
        let status = status.filter(|status| status.container_statuses.is_some());
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let pending = conditions.into_iter().flatten().find(|one| one.type_ == "PodResizePending");
        let infeasible = pending.is_some_and(|pending| pending.reason.as_deref() == Some("Infeasible"));
        Told { status, infeasible }
    }

    fn of_container(&self, name: &str) -> Option<&'a ContainerStatus> {
        let status = self.status?;
        let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        all.find(|one| one.name == name)
    }

    /// What is set aside for a container; what it asks for if that isn't told.
    fn allocated(&self, container: &Container) -> Amounts {
        let allocated = self.of_container(&container.name).and_then(|one| one.allocated_resources.as_ref());
        allocated.map_or_else(|| self.asked(container), |map| Amounts::of(Some(map)))
    }

    /// What a container has; what is set aside for it if that isn't told.
    fn actual(&self, container: &Container) -> Amounts {
        let actual =
            self.of_container(&container.name).and_then(|one| one.resources.as_ref()?.requests.as_ref());
        actual.map_or_else(|| self.allocated(container), |map| Amounts::of(Some(map)))
    }

    fn asked(&self, container: &Container) -> Amounts {
        if self.infeasible { Amounts::default() } else { asked(container) }
    }

    /// What counts as requested for the pod as a whole.
    fn of_pod(&self, spec: &PodSpec) -> Amounts {
        let asked = Amounts::of(spec.resources.as_ref().and_then(|all| all.requests.as_ref()));
        let Some(status) = self.status.filter(|_| !asked.0.is_empty()) else { return asked };
        let actual = status.resources.as_ref().and_then(|all| all.requests.as_ref());
        let known: Vec<_> = [actual, status.allocated_resources.as_ref()].into_iter().flatten().collect();
        let mut most = if self.infeasible && !known.is_empty() { Amounts::default() } else { asked };
        let overhead = Amounts::of(spec.overhead.as_ref());
        // Nodes tell these with the overhead, which is added for all below.
        known.into_iter().for_each(|map| most.raise_to(&Amounts::of(Some(map)).reduce_by(&overhead)));
        most
    }
}

fn asked(container: &Container) -> Amounts {
    Amounts::of(container.resources.as_ref().and_then(|all| all.requests.as_ref()))
}

fn total(spec: &PodSpec, told: &Told<'_>, of_container: impl Fn(Amounts) -> Amounts) -> Amounts {
    let mut sum = of_containers(spec, |container| of_container(told.asked(container)));
    if told.status.is_some() {
        sum.raise_to(&of_containers(spec, |container| of_container(told.allocated(container))));
        sum.raise_to(&of_containers(spec, |container| of_container(told.actual(container))));
    }
    sum.merge(&told.of_pod(spec), |_, stated| stated);
    sum.add(&Amounts::of(spec.overhead.as_ref()));
    sum
}

/// The largest moment of the containers' lives.
fn of_containers(spec: &PodSpec, requests: impl Fn(&Container) -> Amounts) -> Amounts {
    let mut running = Amounts::default();
    for container in &spec.containers {
        running.add(&requests(container));
    }
    let (mut sidecars, mut peak) = (Amounts::default(), Amounts::default());
    for container in spec.init_containers.iter().flatten() {
        let mut needed = requests(container);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&needed);
            sidecars.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        peak.raise_to(&needed);
    }
    running.raise_to(&peak);
    running
}

fn amount(name: &str, quantity: &Quantity) -> i64 {
    let Ok(parsed) = api::quantity::Quantity::parse(&quantity.0) else { return 0 };
    let milli = parsed.as_milli();
    // A fraction of a byte or piece still occupies a whole one.
    let units = if name == CPU { milli } else { milli.div_euclid(1000) + i128::from(milli % 1000 != 0) };
    i64::try_from(units.clamp(0, i128::from(MOST))).expect("the limit is below i64's")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn requests(spec: serde_json::Value) -> Requests {
        Requests::of(&serde_json::from_value(spec).expect("a pod spec"), None)
    }

    fn container(cpu: &str) -> serde_json::Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}})
    }

    #[test]
    fn the_largest_moment_of_a_pods_life_counts() {
        let mut sidecar = container("300m");
        sidecar["restartPolicy"] = json!("Always");
        let pod = requests(json!({
            "containers": [container("100m"), container("200m")],
            "initContainers": [container("900m"), sidecar, container("400m")],
            "overhead": {"cpu": "50m"},
        }));
        // The plain sum is 600m with the sidecar; the first init container alone needs 900m.
        assert_eq!(pod.exact.get(CPU), 950);
    }

    #[test]
    fn pod_level_requests_replace_the_sum() {
        let pod = requests(json!({
            "containers": [container("100m")], "resources": {"requests": {"cpu": "2"}},
        }));
        assert_eq!(pod.exact.get(CPU), 2000);
        assert_eq!(pod.exact.get(MEMORY), 1 << 20);
    }

    #[test]
    fn what_a_resizing_pod_has_counts_until_it_hasnt() {
        let cpu = |asked: &str, allocated: &str, actual: &str, pending: &str| {
            let spec = json!({"containers": [container(asked), {"name": "d"}], "overhead": {"cpu": "1m"}});
            let status = json!({
                "conditions": [{"type": "PodResizePending", "status": "True", "reason": pending}],
                "containerStatuses": [{
                    "name": "c", "allocatedResources": {"cpu": allocated}, "resources": {"requests": {"cpu": actual}},
                }, {"name": "d"}],
            });
            let spec = serde_json::from_value(spec).expect("a pod spec");
            let status = serde_json::from_value(status).expect("a status");
            Requests::of(&spec, Some(&status)).exact.get(CPU)
        };
        assert_eq!(cpu("1", "1", "1", ""), 1001, "nothing is being resized");
        assert_eq!(cpu("1", "1", "3", ""), 3001, "it shrinks, but hasn't yet");
        assert_eq!(cpu("1", "2", "1", ""), 2001, "its node means to give it more");
        assert_eq!(cpu("4", "2", "2", "Deferred"), 4001, "there will be room for it once");
        assert_eq!(cpu("4", "2", "2", "Infeasible"), 2001, "there never will");
    }

    #[test]
    fn a_pod_with_requests_of_its_own_is_resized_as_a_whole() {
        let spec = json!({
            "containers": [container("100m")], "resources": {"requests": {"cpu": "1"}}, "overhead": {"cpu": "50m"},
        });
        let status = json!({"containerStatuses": [], "allocatedResources": {"cpu": "2050m"}});
        let spec = serde_json::from_value(spec).expect("a pod spec");
        let status = serde_json::from_value(status).expect("a status");
        assert_eq!(Requests::of(&spec, Some(&status)).exact.get(CPU), 2050);
    }

    #[test]
    fn containers_without_requests_are_assumed_small_in_scores_only() {
        let pod = requests(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
        assert!(pod.is_best_effort());
        assert_eq!(pod.assumed, (2 * ASSUMED_CPU, 2 * ASSUMED_MEMORY));
    }

    #[test]
    fn amounts_beyond_measure_saturate() {
        let pod = requests(json!({"containers": [container("100E"), container("100E")]}));
        assert_eq!(pod.exact.get(CPU), MOST);
    }
}
