//! Resizing a pod in place: what its containers were promised, what they have, and what is asked for.
//!
//! The spec says what is wanted. Whether the node can give it is decided by who knows all pods
//! ([`judge`]); from then on it is allocated, and each running container is given it, by its limits or by a new
//! run, as its `resizePolicy` says (upstream's KEP-1287 as of 1.35).
//!
//! Always holds: only what is allocated is ever applied; a pod that ends is not resized.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::Serialize;

use crate::pod::ContainerId;
use crate::pod::admission::{Amounts, admit, amounts, requests};
use crate::pod::container::ContainerLife;
use crate::pod::effect::{Effect, Note};
use crate::pod::life::PodLife;
use crate::pod::roles::{Role, spec_of};
use crate::pod::time::later;

/// Between tries to give a container what it was promised.
const RETRY: Duration = Duration::from_secs(10);
/// What can be resized.
const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// Whether the node can give what a pod asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is the pod's from now on.
    Allocated,
    /// Not beside the pods that are here now.
    Deferred(Shortage),
    /// Never on this node.
    Infeasible(Shortage),
}

/// What there isn't enough of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// `OutOfcpu`, as a refused pod's reason.
    pub reason: String,
    /// The condition's message.
    pub message: String,
}

impl Decision {
    /// The condition's reason; `None` if nothing is pending.
    pub fn pending(&self) -> Option<(&'static str, &Shortage)> {
        match self {
            Self::Allocated => None,
            Self::Deferred(shortage) => Some(("Deferred", shortage)),
            Self::Infeasible(shortage) => Some(("Infeasible", shortage)),
        }
    }
}

/// What a container was promised and what it has.
#[derive(Clone, Debug, Default)]
pub struct Allocation {
    /// Promised; a new run is made with it.
    pub allocated: ResourceRequirements,
    /// What the current run has.
    pub actual: ResourceRequirements,
    /// What it is being given.
    pub under_way: Option<ResourceRequirements>,
    /// It is being ended and started anew because of this.
    pub restarts: bool,
}

impl Allocation {
    /// All of it is there.
    pub fn of(resources: Option<&ResourceRequirements>) -> Self {
        let resources = resources.cloned().unwrap_or_default();
        Self { allocated: resources.clone(), actual: resources, under_way: None, restarts: false }
    }

    fn is_settled(&self) -> bool {
        same(&self.allocated, &self.actual)
    }
}

/// How far a pod's resize has come.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Why the newest wish isn't granted.
    pub refused: Option<Decision>,
    /// Something was granted and isn't there yet; the generation of the wish.
    pub under_way: Option<i64>,
    /// Why the last try failed, and when the next one is due.
    pub failed: Option<(String, Timestamp)>,
}

/// Whether two containers with these could not be told apart.
fn same(one: &ResourceRequirements, other: &ResourceRequirements) -> bool {
    compute(one) == compute(other)
}

/// Limits and requests of what can be resized.
fn compute(resources: &ResourceRequirements) -> [Amounts; 2] {
    [&resources.limits, &resources.requests].map(|part| {
        let mut all = part.as_ref().map(amounts).unwrap_or_default();
        all.retain(|name, _| COMPUTE.contains(&name.as_str()));
        all
    })
}

/// Decides for a pod that asks for what `wanted` has and was promised what `promised` has, beside pods that were
/// promised `used`.
pub fn judge(wanted: &Pod, promised: &Pod, used: &Amounts, others: usize, allocatable: &Amounts) -> Decision {
    let (asked, had) = (requests(wanted), requests(promised));
    let of = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or_default();
    if COMPUTE.iter().all(|name| of(&asked, name) <= of(&had, name)) {
        return Decision::Allocated;
    }
    for name in COMPUTE {
        let (requested, capacity) = (of(&asked, name), of(allocatable, name));
        if requested > capacity {
            let message = format!(
                "Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}"
            );
            return Decision::Infeasible(Shortage { reason: "Infeasible".to_owned(), message });
        }
    }
    match admit(wanted, used, others, allocatable) {
        Ok(()) => Decision::Allocated,
        Err(verdict) => Decision::Deferred(Shortage { reason: verdict.reason, message: verdict.message }),
    }
}

impl PodLife {
    /// Its spec asks for something else than it was promised.
    pub fn wants_resize(&self) -> bool {
        self.ending.is_none() && self.containers.iter().any(|c| !self.is_as_wanted(c))
    }

    fn is_as_wanted(&self, container: &ContainerLife) -> bool {
        same(&wanted(&self.pod, container), &container.resources.allocated)
    }

    /// The newest wish that wasn't granted.
    pub fn refused_resize(&self) -> Option<&Decision> {
        self.resize.refused.as_ref()
    }

    /// The pod with what its containers were promised instead of what is wished for.
    pub fn allocated_pod(&self) -> Cow<'_, Pod> {
        if self.containers.iter().all(|c| self.is_as_wanted(c)) {
            return Cow::Borrowed(&self.pod);
        }
        let mut pod = (*self.pod).clone();
        for container in self.containers.iter().filter(|c| c.role != Role::Ephemeral) {
            if let Some(spec) = declared_mut(&mut pod).find(|spec| spec.name == container.name.0) {
                spec.resources = Some(container.resources.allocated.clone());
            }
        }
        Cow::Owned(pod)
    }

    /// Takes what was decided about the wish of the spec as it is now.
    pub(crate) fn resize_decided(&mut self, decision: Decision, out: &mut Vec<Effect>) {
        if self.ending.is_some() {
            return;
        }
        match &decision {
            Decision::Allocated => return self.allocate(out),
            Decision::Deferred(shortage) => self.say_refused("ResizeDeferred", shortage, out),
            Decision::Infeasible(shortage) => self.say_refused("ResizeInfeasible", shortage, out),
        }
        self.resize.refused = Some(decision);
    }

    fn say_refused(&self, reason: &'static str, shortage: &Shortage, out: &mut Vec<Effect>) {
        let told = self.told(|c| wanted(&self.pod, c), Some(&shortage.message));
        out.push(Effect::Record(Note::warning(reason, format!("Pod resize {}: {told}", shortage.reason))));
    }

    fn allocate(&mut self, out: &mut Vec<Effect>) {
        let pod = &self.pod;
        self.containers.iter_mut().for_each(|c| c.resources.allocated = wanted(pod, c));
        self.resize.refused = None;
        self.resize.failed = None;
        if self.containers.iter().any(awaits_resize) {
            self.resize.under_way = Some(self.pod.metadata.generation.unwrap_or_default());
            let told = self.told(|c| c.resources.allocated.clone(), None);
            out.push(Effect::Record(Note::normal("ResizeStarted", format!("Pod resize started: {told}"))));
        }
    }

    /// Gives running containers what they were promised.
    pub(crate) fn advance_resize(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        if self.ending.is_some() || self.resize.under_way.is_none() {
            return;
        }
        if self.resize.failed.as_ref().is_some_and(|(_, at)| *at > now) {
            return;
        }
        for index in 0..self.containers.len() {
            if awaits_resize(&self.containers[index]) && self.containers[index].resources.under_way.is_none()
            {
                self.resize_one(index, now, out);
            }
        }
        if !self.containers.iter().any(awaits_resize) {
            self.resize.under_way = None;
            self.resize.failed = None;
            let told = self.told(|c| c.resources.allocated.clone(), None);
            let text = format!("Pod resize completed: {told}");
            out.push(Effect::Record(Note::normal("ResizeCompleted", text)));
        }
    }

    fn resize_one(&mut self, index: usize, now: Timestamp, out: &mut Vec<Effect>) {
        let container = &self.containers[index];
        let name = container.name.clone();
        let Some(run) = container.run().filter(|run| run.stopping.is_none()) else { return };
        let id = run.id.clone();
        let restarts =
            spec_of(&self.pod, &name).is_some_and(|spec| needs_restart(&spec, &container.resources));
        let resources = &mut self.containers[index].resources;
        if restarts {
            resources.restarts = true;
            let message = format!("Container {name} resize requires restart");
            let deadline = later(now, self.spec_grace());
            return self.begin_stop(index, message, deadline, now, out);
        }
        resources.under_way = Some(resources.allocated.clone());
        out.push(Effect::ResizeContainer { container: name, id });
    }

    /// The runtime has answered.
    pub(crate) fn resized(
        &mut self,
        id: &ContainerId,
        outcome: Result<(), String>,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let of_run = |c: &&mut ContainerLife| c.run().is_some_and(|run| run.id == *id);
        let Some(container) = self.containers.iter_mut().find(of_run) else { return };
        let given = container.resources.under_way.take();
        match outcome {
            Ok(()) => {
                container.resources.actual = given.unwrap_or_else(|| container.resources.actual.clone());
            }
            Err(why) => {
                let told = self.told(|c| c.resources.allocated.clone(), Some(&why));
                out.push(Effect::Record(Note::warning("ResizeError", format!("Pod resize error: {told}"))));
                self.resize.failed = Some((why, later(now, RETRY)));
            }
        }
    }

    /// When a failed try is due again.
    pub(crate) fn resize_wake(&self) -> Option<Timestamp> {
        self.resize.failed.as_ref().filter(|_| self.ending.is_none()).map(|(_, at)| *at)
    }

    /// As upstream's events tell it.
    fn told(&self, pick: impl Fn(&ContainerLife) -> ResourceRequirements, error: Option<&str>) -> String {
        let of = |role: Role| -> Vec<Told<'_>> {
            let all = self.containers.iter().filter(|c| c.role == role);
            all.map(|c| Told { name: &c.name.0, resources: only_compute(pick(c)) }).collect()
        };
        let told = TellTale {
            init_containers: of(Role::Sidecar),
            containers: of(Role::App),
            generation: self.pod.metadata.generation,
            error,
        };
        serde_json::to_string(&told).unwrap_or_default()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TellTale<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Told<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Told<'a>>,
    generation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Told<'a> {
    name: &'a str,
    resources: ResourceRequirements,
}

fn only_compute(mut resources: ResourceRequirements) -> ResourceRequirements {
    for part in [&mut resources.limits, &mut resources.requests].into_iter().flatten() {
        part.retain(|name, _| COMPUTE.contains(&name.as_str()));
    }
    ResourceRequirements { claims: None, ..resources }
}

/// It runs with something else than it was promised, or is started anew for it.
fn awaits_resize(container: &ContainerLife) -> bool {
    container.resources.restarts || container.is_active() && !container.resources.is_settled()
}

/// What the spec asks for. Ephemeral containers have nothing.
fn wanted(pod: &Pod, container: &ContainerLife) -> ResourceRequirements {
    let spec = (container.role != Role::Ephemeral).then(|| spec_of(pod, &container.name)).flatten();
    spec.and_then(|spec| spec.resources.clone()).unwrap_or_default()
}

fn declared_mut(pod: &mut Pod) -> impl Iterator<Item = &mut Container> {
    pod.spec.iter_mut().flat_map(|spec| spec.init_containers.iter_mut().flatten().chain(&mut spec.containers))
}

/// Whether something changes of which the container says that it must be started anew.
fn needs_restart(spec: &Container, resources: &Allocation) -> bool {
    let (new, old) = (compute(&resources.allocated), compute(&resources.actual));
    let changes = |name: &str| (0..2).any(|part| new[part].get(name) != old[part].get(name));
    let mut policies = spec.resize_policy.iter().flatten();
    policies.any(|policy| policy.restart_policy == "RestartContainer" && changes(&policy.resource_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str, memory: &str) -> Pod {
        let text = format!(
            "{{spec: {{containers: [{{name: c, resources: {{requests: {{cpu: {cpu}, memory: {memory}}}}}}}]}}}}"
        );
        serde_yaml::from_str(&text).expect("a pod")
    }

    fn of(amounts: &[(&str, i128)]) -> Amounts {
        amounts.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
    }

    #[test]
    fn what_a_node_has_and_others_leave_decides() {
        let node = of(&[("cpu", 1000), ("memory", 1 << 30), ("pods", 3)]);
        let used = of(&[("cpu", 600), ("memory", 1 << 30)]);
        let told = |wanted: &Pod| match judge(wanted, &pod("200m", "64Mi"), &used, 1, &node) {
            Decision::Allocated => "allocated".to_owned(),
            Decision::Deferred(why) => format!("deferred {}: {}", why.reason, why.message),
            Decision::Infeasible(why) => format!("infeasible: {}", why.message),
        };
        for (cpu, memory, want) in [
            ("100m", "64Mi", "allocated"),
            (
                "400m",
                "64Mi",
                "deferred OutOfmemory: Node didn't have enough resource: memory, requested: 67108864, used: 1073741824, capacity: 1073741824",
            ),
            (
                "500m",
                "1Mi",
                "deferred OutOfcpu: Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000",
            ),
            (
                "1001m",
                "1Mi",
                "infeasible: Node didn't have enough capacity: cpu, requested: 1001, capacity: 1000",
            ),
        ] {
            assert_eq!(told(&pod(cpu, memory)), want);
        }
    }
}
