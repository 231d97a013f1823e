//! The life of a simulated pod, read from its object: it starts (at once, unless it says otherwise), runs, and ends if it is to end.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition};
use serde_json::{Value, json};
use std::time::Duration;

/// The annotation by which a pod says how long it runs, such as `500ms`, `30s` or `2m`.
pub const RUN_TIME: &str = "amoeba.dev/run-time";
/// The annotation by which a pod says how long it takes to start; it starts at once if it says nothing.
pub const START_DELAY: &str = "amoeba.dev/start-delay";
/// The annotation by which a pod says with which code its containers end; 0 if it says nothing.
pub const EXIT_CODE: &str = "amoeba.dev/exit-code";

/// How long pods run that say nothing about it.
#[derive(Clone, Copy, Debug)]
pub struct RunTimes {
    /// Those whose restart policy isn't Always.
    pub finite: Duration,
}

/// What a simulated node does about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Say that it runs.
    Start,
    /// Say that its containers ended.
    Finish {
        /// With this code.
        code: i32,
    },
    /// Remove it.
    Delete,
}

/// What comes next for the pod, and how long after it looks like this.
pub fn next(pod: &Pod, times: &RunTimes) -> Option<(Duration, Act)> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some((Duration::ZERO, Act::Delete));
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    match phase {
        None | Some("" | "Pending") => Some((time(pod, START_DELAY).unwrap_or_default(), Act::Start)),
        Some("Running") => run_time(pod, times).map(|time| (time, Act::Finish { code: exit_code(pod) })),
        Some(_) => None,
    }
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// An annotation that nobody understands is as good as none.
fn time(pod: &Pod, name: &str) -> Option<Duration> {
    let told: jiff::SignedDuration = annotation(pod, name)?.parse().ok()?;
    Duration::try_from(told).ok()
}

/// `None`: for ever.
fn run_time(pod: &Pod, times: &RunTimes) -> Option<Duration> {
    let told = time(pod, RUN_TIME);
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    told.or_else(|| matches!(policy, Some("Never" | "OnFailure")).then_some(times.finite))
}

fn exit_code(pod: &Pod) -> i32 {
    annotation(pod, EXIT_CODE).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// Conditions that a node answers for.
const OURS: [&str; 4] = ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];

/// The merge patch of the pod's status for what happened to it. [`Act::Delete`] changes no status.
pub fn status_patch(pod: &Pod, act: Act, now: Timestamp) -> Value {
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = match act {
        Act::Start => json!({
            "phase": "Running", "startTime": time, "hostIP": HOST, "hostIPs": [{"ip": HOST}],
            "podIP": address(pod), "podIPs": [{"ip": address(pod)}],
            "conditions": conditions(pod, true, &time),
            "containerStatuses": containers(pod, &running(&time), true),
        }),
        Act::Finish { code } => json!({
            "phase": if code == 0 { "Succeeded" } else { "Failed" },
            "conditions": conditions(pod, false, &time),
            "containerStatuses": containers(pod, &terminated(pod, code, &time), false),
        }),
        Act::Delete => json!({}),
    };
    json!({"metadata": {"uid": pod.metadata.uid}, "status": status})
}

/// Where simulated nodes say they are: an address that is for documentation only.
pub const HOST: &str = "192.0.2.1";

fn running(time: &str) -> Value {
    json!({"running": {"startedAt": time}})
}

fn terminated(pod: &Pod, code: i32, time: &str) -> Value {
    let began = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let began = began.map_or_else(|| time.to_owned(), |began| began.0.to_string());
    let reason = if code == 0 { "Completed" } else { "Error" };
    json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": began, "finishedAt": time}})
}

fn containers(pod: &Pod, state: &Value, ready: bool) -> Vec<Value> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let status = |container: &Container| {
        json!({
            "name": container.name, "image": container.image.as_deref().unwrap_or_default(), "imageID": "",
            "ready": ready, "started": ready, "restartCount": 0, "state": state,
        })
    };
    containers.map(status).collect()
}

/// A merge patch replaces the whole list: what others wrote (`PodScheduled`, targets of disruption) stays.
fn conditions(pod: &Pod, runs: bool, time: &str) -> Vec<Value> {
    let known = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let others = known.filter(|one| !OURS.contains(&one.type_.as_str())).map(|one: &PodCondition| json!(one));
    let own = OURS.iter().map(|kind| {
        let holds = runs || *kind == "Initialized";
        let mut one = json!({"type": kind, "status": if holds { "True" } else { "False" }});
        one["lastTransitionTime"] = json!(time);
        if !holds {
            one["reason"] = json!("PodCompleted");
        }
        one
    });
    others.chain(own).collect()
}

/// An address in 10.0.0.0/8 by the pod's uid (FNV-1a), the same after a restart of the simulation.
fn address(pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let hash =
        uid.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let [_, a, b, c] = hash.to_be_bytes();
    format!("10.{a}.{b}.{}", c.max(1))
}

/// Drops what no simulated pod's life depends on.
pub fn strip(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.owner_references = None;
    pod.metadata.labels = None;
    let Some(spec) = &mut pod.spec else { return };
    (spec.volumes, spec.affinity, spec.tolerations, spec.init_containers) = (None, None, None, None);
    for container in &mut spec.containers {
        *container = Container {
            name: std::mem::take(&mut container.name),
            image: container.image.take(),
            ..Container::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(policy: &str, phase: &str, annotations: Value) -> Pod {
        let pod = json!({
            "metadata": {"name": "p", "uid": "u", "annotations": annotations},
            "spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": phase, "startTime": "2026-01-01T00:00:00Z",
                "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn who_ends_when() {
        let times = RunTimes { finite: Duration::from_secs(1) };
        let end = |policy, phase, annotations| next(&pod(policy, phase, annotations), &times);
        let finish = |seconds, code| Some((Duration::from_secs(seconds), Act::Finish { code }));
        assert_eq!(end("Always", "Pending", json!({})), Some((Duration::ZERO, Act::Start)));
        let late = end("Always", "Pending", json!({START_DELAY: "3s"}));
        assert_eq!(late, Some((Duration::from_secs(3), Act::Start)));
        assert_eq!(end("Always", "Running", json!({})), None);
        assert_eq!(end("Never", "Running", json!({})), finish(1, 0));
        assert_eq!(end("Never", "Running", json!({RUN_TIME: "2m", EXIT_CODE: "3"})), finish(120, 3));
        assert_eq!(end("Always", "Running", json!({RUN_TIME: "30s"})), finish(30, 0));
        assert_eq!(end("OnFailure", "Running", json!({RUN_TIME: "soon"})), finish(1, 0));
        assert_eq!(end("Never", "Failed", json!({})), None);
    }

    #[test]
    fn the_status_says_what_happened_and_keeps_what_others_said() {
        let now: Timestamp = "2026-01-01T00:00:05Z".parse().expect("a time");
        let pod = pod("Never", "Running", json!({}));
        let patch = status_patch(&pod, Act::Finish { code: 1 }, now);
        let status = &patch["status"];
        assert_eq!(status["phase"], "Failed");
        assert_eq!(status["conditions"][0]["type"], "PodScheduled");
        assert_eq!(status["conditions"].as_array().map(Vec::len), Some(5), "each condition once");
        let ended = &status["containerStatuses"][0]["state"]["terminated"];
        assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(1), &json!("Error")));
        assert_eq!(ended["startedAt"], "2026-01-01T00:00:00Z");
        let start = status_patch(&pod, Act::Start, now);
        assert_eq!(start["status"]["containerStatuses"][0]["ready"], true);
        assert_eq!(start["metadata"]["uid"], "u");
    }
}
