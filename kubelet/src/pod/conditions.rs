//! The conditions a node reports about a pod.
//!
//! Always holds: `lastTransitionTime` moves only when `status` does.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::container::ContainerLife;
use crate::pod::life::{PodLife, Sandbox};
use crate::pod::phase::{Phase, is_initialized};
use crate::pod::resize::Decision;
use crate::pod::roles::Role;

/// The conditions that belong to the node; all others are kept as they are.
pub const OWNED: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
];

/// A condition's verdict: status, reason, message.
struct Verdict(bool, &'static str, String);

impl Verdict {
    fn yes() -> Self {
        Self(true, "", String::new())
    }

    fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self(false, reason, message.into())
    }
}

/// All conditions of the pod as of now: ours computed, foreign ones kept.
pub fn conditions(life: &PodLife, phase: Phase, now: Timestamp) -> Vec<PodCondition> {
    let sandbox = life.sandbox == Sandbox::Ready || life.sandbox == Sandbox::Gone && life.is_any_active();
    let containers_ready = containers_ready(&life.containers, phase);
    let ready = ready(&life.pod, &containers_ready);
    let verdicts = [
        ("PodReadyToStartContainers", Verdict(sandbox, "", String::new())),
        ("Initialized", initialized(&life.containers, phase)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::yes()),
    ];
    let mut all = Vec::new();
    if !life.was_rejected() {
        all.extend(verdicts.into_iter().map(|(kind, verdict)| condition(life, kind, verdict, now)));
        all.extend(resize(life, now));
    }
    all.extend(disruption(life, now));
    let foreign = life.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let is_ours = |c: &PodCondition, all: &[PodCondition]| {
        OWNED.contains(&c.type_.as_str()) || all.iter().any(|own| own.type_ == c.type_)
    };
    let foreign: Vec<PodCondition> =
        foreign.into_iter().flatten().filter(|c| !is_ours(c, &all)).cloned().collect();
    all.extend(foreign);
    all
}

/// Whose reason says that the condition is the node's.
pub const DISRUPTION: (&str, &str) = ("DisruptionTarget", "TerminationByKubelet");

/// Others disrupt pods as well, and say so in the same place.
fn disruption(life: &PodLife, now: Timestamp) -> Option<PodCondition> {
    let verdict = life.verdict.as_ref().filter(|verdict| verdict.disruption)?;
    Some(condition(life, DISRUPTION.0, Verdict(true, DISRUPTION.1, verdict.message.clone()), now))
}

/// There only while they are true.
fn resize(life: &PodLife, now: Timestamp) -> impl Iterator<Item = PodCondition> {
    let pending = life.resize.refused.as_ref().and_then(Decision::pending).map(|(reason, shortage)| {
        condition(life, "PodResizePending", Verdict(true, reason, shortage.message.clone()), now)
    });
    let under_way = life.resize.under_way.map(|generation| {
        let verdict = match &life.resize.failed {
            Some((why, _)) => Verdict(true, "Error", why.clone()),
            None => Verdict::yes(),
        };
        let shown = condition(life, "PodResizeInProgress", verdict, now);
        PodCondition { observed_generation: Some(generation), ..shown }
    });
    pending.into_iter().chain(under_way)
}

fn condition(life: &PodLife, kind: &str, verdict: Verdict, now: Timestamp) -> PodCondition {
    let Verdict(is_true, reason, message) = verdict;
    let status = if is_true { "True" } else { "False" };
    let before = life.conditions.iter().find(|c| c.type_ == kind && c.status == status);
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        last_transition_time: before.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
        observed_generation: life.pod.metadata.generation,
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        message: (!message.is_empty()).then_some(message),
        ..PodCondition::default()
    }
}

fn names<'a>(containers: impl Iterator<Item = &'a ContainerLife>) -> String {
    let names: Vec<&str> = containers.map(|c| c.name.0.as_str()).collect();
    names.join(" ")
}

fn initialized(containers: &[ContainerLife], phase: Phase) -> Verdict {
    if phase == Phase::Succeeded {
        return Verdict(true, "PodCompleted", String::new());
    }
    let begun = containers.iter().any(|c| c.role == Role::App && c.attempts > 0);
    if begun || is_initialized(containers) {
        return Verdict::yes();
    }
    let incomplete = containers.iter().filter(|c| match c.role {
        Role::Init => c.ended().is_none_or(|ended| ended.exit.code != 0),
        Role::Sidecar => !c.is_started(),
        Role::App | Role::Ephemeral => false,
    });
    Verdict::no(
        "ContainersNotInitialized",
        format!("containers with incomplete status: [{}]", names(incomplete)),
    )
}

fn containers_ready(containers: &[ContainerLife], phase: Phase) -> Verdict {
    match phase {
        Phase::Succeeded => return Verdict::no("PodCompleted", ""),
        Phase::Failed => return Verdict::no("PodFailed", ""),
        Phase::Pending | Phase::Running => {}
    }
    let unready = names(containers.iter().filter(|c| c.role.counts_for_readiness() && !c.is_ready()));
    if unready.is_empty() {
        return Verdict::yes();
    }
    Verdict::no("ContainersNotReady", format!("containers with unready status: [{unready}]"))
}

fn ready(pod: &Pod, containers: &Verdict) -> Verdict {
    if !containers.0 {
        return Verdict(false, containers.1, containers.2.clone());
    }
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
    let complaints: Vec<String> =
        gates.into_iter().flatten().filter_map(|gate| closed_gate(pod, &gate.condition_type)).collect();
    if complaints.is_empty() {
        return Verdict::yes();
    }
    Verdict::no("ReadinessGatesNotReady", complaints.join(", "))
}

fn closed_gate(pod: &Pod, kind: &str) -> Option<String> {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    match conditions.into_iter().flatten().find(|c| c.type_ == kind) {
        None => Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
        Some(c) if c.status == "True" => None,
        Some(c) => {
            Some(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but {}", c.status))
        }
    }
}
