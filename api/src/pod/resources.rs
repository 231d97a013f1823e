//! What a pod asks for, and the quality of service that follows from it.

use std::collections::BTreeMap;
use std::fmt;

use crate::k8s::api::core::v1::{Container, PodSpec, ResourceRequirements};
use crate::k8s::apimachinery::pkg::api::resource::Quantity as Typed;
use crate::quantity::Quantity;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// How well a pod is protected when its node runs out of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QosClass {
    /// Every container's limits equal its requests, for processor and memory.
    Guaranteed,
    /// Something in between.
    Burstable,
    /// No container requests or limits anything.
    BestEffort,
}

impl QosClass {
    /// The word in `status.qosClass`.
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the scheduler reserves for a pod: the most that it can need at any one time, plus its overhead.
pub fn requests(spec: &PodSpec) -> Amounts {
    peak(spec, |resources| resources.requests.as_ref())
}

/// The most that a pod may use at any one time, plus its overhead; resources without a limit are absent.
pub fn limits(spec: &PodSpec) -> Amounts {
    peak(spec, |resources| resources.limits.as_ref())
}

type Pick = fn(&ResourceRequirements) -> Option<&BTreeMap<String, Typed>>;

/// The sum over the containers, or what an init container needs while it runs, whichever is more.
///
/// Init containers run one after the other, but those with `restartPolicy: Always` (sidecars) stay.
fn peak(spec: &PodSpec, pick: Pick) -> Amounts {
    let mut running = Amounts::new();
    let mut during_init = Amounts::new();
    for container in &spec.containers {
        add(&mut running, &amounts(container, pick));
    }
    let mut sidecars = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let own = amounts(container, pick);
        let mut now = sidecars.clone();
        add(&mut now, &own);
        raise(&mut during_init, &now);
        if is_sidecar(container) {
            sidecars = now;
        }
    }
    add(&mut running, &sidecars);
    raise(&mut running, &during_init);
    override_with(&mut running, spec.resources.as_ref().and_then(pick));
    if !running.is_empty() || spec.overhead.is_some() {
        add(&mut running, &typed(spec.overhead.as_ref()));
    }
    running
}

/// Whether an init container goes on running beside the containers.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn amounts(container: &Container, pick: Pick) -> Amounts {
    typed(container.resources.as_ref().and_then(pick))
}

fn typed(map: Option<&BTreeMap<String, Typed>>) -> Amounts {
    map.into_iter().flatten().map(|(name, quantity)| (name.clone(), quantity.into())).collect()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, quantity) in more {
        let total = sum.entry(name.clone()).or_default();
        *total = total.add(quantity);
    }
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, quantity) in other {
        let current = most.entry(name.clone()).or_insert(*quantity);
        *current = (*current).max(*quantity);
    }
}

/// Amounts given for the pod as a whole replace the sums over its containers.
fn override_with(sum: &mut Amounts, whole: Option<&BTreeMap<String, Typed>>) {
    sum.extend(typed(whole));
}

/// The quality of service of a pod.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let of_containers: Vec<&ResourceRequirements> = match &spec.resources {
        Some(whole) if whole.requests.is_some() || whole.limits.is_some() => vec![whole],
        _ => all.map(|container| container.resources.as_ref().unwrap_or(&NONE)).collect(),
    };
    match () {
        _ if of_containers.iter().all(|resources| {
            compute(resources.requests.as_ref()).is_empty() && compute(resources.limits.as_ref()).is_empty()
        }) =>
        {
            QosClass::BestEffort
        }
        _ if of_containers.iter().all(|resources| is_guaranteed(resources)) => QosClass::Guaranteed,
        _ => QosClass::Burstable,
    }
}

static NONE: ResourceRequirements = ResourceRequirements { claims: None, limits: None, requests: None };

/// Only processor and memory decide about the quality of service; zero counts as absent.
fn compute(map: Option<&BTreeMap<String, Typed>>) -> Amounts {
    let mut amounts = typed(map);
    amounts.retain(|name, quantity| matches!(name.as_str(), "cpu" | "memory") && quantity.signum() > 0);
    amounts
}

fn is_guaranteed(resources: &ResourceRequirements) -> bool {
    let limits = compute(resources.limits.as_ref());
    let requests = compute(resources.requests.as_ref());
    let equal = |(name, request): (&String, &Quantity)| limits.get(name) == Some(request);
    limits.len() == 2 && requests.iter().all(equal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).expect("a pod spec")
    }

    fn container(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn a_pod_needs_its_containers_or_its_largest_init_container() {
        let sidecar =
            json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
        let table = [
            (json!({"containers": [container("1"), container("500m")]}), "1500m"),
            (
                json!({"containers": [container("1")], "initContainers": [container("3"), container("2")]}),
                "3",
            ),
            (json!({"containers": [container("1")], "initContainers": [sidecar, container("3")]}), "4"),
            (json!({"containers": [container("1")], "initContainers": [container("1500m"), sidecar]}), "2"),
            (json!({"containers": [container("1")], "overhead": {"cpu": "250m"}}), "1250m"),
            (json!({"containers": [container("1")], "resources": {"requests": {"cpu": "4"}}}), "4"),
        ];
        for (value, cpu) in table {
            assert_eq!(requests(&spec(value.clone()))["cpu"].to_string(), cpu, "{value}");
        }
    }

    #[test]
    fn quality_of_service() {
        let with = |resources: Value| spec(json!({"containers": [{"name": "c", "resources": resources}]}));
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let table = [
            (json!({}), QosClass::BestEffort),
            (json!({"limits": {"nvidia.com/gpu": "1"}}), QosClass::BestEffort),
            (json!({"requests": {"cpu": "1"}}), QosClass::Burstable),
            (json!({"limits": both, "requests": both}), QosClass::Guaranteed),
            (json!({"limits": both}), QosClass::Guaranteed),
            (json!({"limits": both, "requests": {"cpu": "500m", "memory": "1Gi"}}), QosClass::Burstable),
        ];
        for (resources, class) in table {
            assert_eq!(qos_class(&with(resources.clone())), class, "{resources}");
        }
    }
}
