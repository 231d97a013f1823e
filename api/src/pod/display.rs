//! The columns `READY`, `STATUS` and `RESTARTS` of a pod, as kubectl's table has them.

use jiff::Timestamp;
use serde_json::Value;

use crate::{object, time};

/// What a row about a pod says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Containers that are ready (sidecars count).
    pub ready: usize,
    /// All containers (sidecars count).
    pub total: usize,
    /// The one word, e.g. `Running`, `CrashLoopBackOff`, `Init:0/1`, `Terminating`.
    pub status: String,
    /// Restarts of all containers.
    pub restarts: i64,
    /// When a container last ended before it was restarted.
    pub last_restart: Option<Timestamp>,
}

impl Summary {
    /// `2`, or `2 (5m ago)`.
    pub fn restarts_text(&self, now: Timestamp) -> String {
        match self.last_restart {
            Some(last) if self.restarts > 0 => format!("{} ({} ago)", self.restarts, time::age(last, now)),
            _ => self.restarts.to_string(),
        }
    }
}

/// Sums up a pod.
pub fn summary(pod: &Value) -> Summary {
    let sidecars: Vec<&str> = list(pod, "/spec/initContainers").filter(|c| is_sidecar(c)).map(name).collect();
    let mut row =
        Summary { total: list(pod, "/spec/containers").count() + sidecars.len(), ..Summary::default() };
    let status =
        |key: &str| pod.pointer(&format!("/status/{key}")).and_then(Value::as_str).unwrap_or_default();
    row.status = [status("reason"), status("phase"), "Pending"]
        .into_iter()
        .find(|text| !text.is_empty())
        .map(String::from)
        .unwrap_or_default();
    if has_condition(pod, "PodScheduled", Some("SchedulingGated")) {
        row.status = "SchedulingGated".into();
    }
    let initializing = init_containers(pod, &sidecars, &mut row);
    if !initializing || has_condition(pod, "Initialized", None) {
        containers(pod, &sidecars, &mut row);
    }
    if object::is_deleting(pod) {
        row.status = if status("reason") == "NodeLost" { "Unknown" } else { "Terminating" }.into();
    }
    row
}

/// Fills the row from the init containers; true while they still run.
fn init_containers(pod: &Value, sidecars: &[&str], row: &mut Summary) -> bool {
    let total = list(pod, "/spec/initContainers").count();
    for (index, container) in list(pod, "/status/initContainerStatuses").enumerate() {
        count_restarts(container, row);
        let is_sidecar = sidecars.contains(&name(container));
        if is_sidecar && flag(container, "ready") {
            row.ready += 1;
        }
        let exit_code = container.pointer("/state/terminated/exitCode").and_then(Value::as_i64);
        if exit_code == Some(0) || is_sidecar && flag(container, "started") {
            continue;
        }
        row.status = init_status(container, index, total);
        return true;
    }
    false
}

fn init_status(container: &Value, index: usize, total: usize) -> String {
    let waiting = text(container, "/state/waiting/reason");
    match container.pointer("/state/terminated") {
        Some(terminated) => format!("Init:{}", terminated_text(terminated)),
        None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
        None => format!("Init:{index}/{total}"),
    }
}

fn containers(pod: &Value, sidecars: &[&str], row: &mut Summary) {
    if !sidecars.is_empty() || list(pod, "/spec/initContainers").next().is_some() {
        // As upstream: once initialization is over, only restarts of what still runs are counted.
        row.restarts = 0;
        row.last_restart = None;
        for container in list(pod, "/status/initContainerStatuses").filter(|c| sidecars.contains(&name(c))) {
            count_restarts(container, row);
        }
    }
    let mut running = false;
    for container in list(pod, "/status/containerStatuses").collect::<Vec<_>>().into_iter().rev() {
        count_restarts(container, row);
        let waiting = text(container, "/state/waiting/reason");
        if !waiting.is_empty() {
            row.status = waiting.into();
        } else if let Some(terminated) = container.pointer("/state/terminated") {
            row.status = terminated_text(terminated);
        } else if flag(container, "ready") && container.pointer("/state/running").is_some() {
            running = true;
            row.ready += 1;
        }
    }
    if row.status == "Completed" && running {
        row.status = if has_condition(pod, "Ready", None) { "Running" } else { "NotReady" }.into();
    }
}

fn terminated_text(terminated: &Value) -> String {
    let number = |key: &str| terminated.get(key).and_then(Value::as_i64).unwrap_or_default();
    match (text(terminated, "/reason"), number("signal"), number("exitCode")) {
        ("", 0, code) => format!("ExitCode:{code}"),
        ("", signal, _) => format!("Signal:{signal}"),
        (reason, _, _) => reason.into(),
    }
}

fn count_restarts(container: &Value, row: &mut Summary) {
    row.restarts += container.get("restartCount").and_then(Value::as_i64).unwrap_or_default();
    let ended = time::from_value(container.pointer("/lastState/terminated/finishedAt"));
    row.last_restart = row.last_restart.max(ended);
}

fn has_condition(pod: &Value, kind: &str, reason: Option<&str>) -> bool {
    list(pod, "/status/conditions").any(|condition| {
        text(condition, "/type") == kind
            && match reason {
                Some(reason) => text(condition, "/reason") == reason,
                None => text(condition, "/status") == "True",
            }
    })
}

fn list<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn name(container: &Value) -> &str {
    text(container, "/name")
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or_default()
}

fn is_sidecar(container: &Value) -> bool {
    text(container, "/restartPolicy") == "Always"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(init: usize, status: Value) -> Value {
        let init: Vec<Value> = (0..init).map(|index| json!({"name": format!("i{index}")})).collect();
        json!({"metadata": {}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": init}, "status": status})
    }

    #[test]
    fn one_word_about_a_pod() {
        let running = json!({"name": "a", "ready": true, "restartCount": 2, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "1970-01-01T00:00:00Z"}}});
        let crashing = json!({"name": "b", "ready": false, "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        let done = json!({"name": "b", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let killed =
            json!({"name": "b", "restartCount": 0, "state": {"terminated": {"exitCode": 137, "signal": 9}}});
        let table = [
            (pod(0, json!({})), "0/2 Pending 0"),
            (
                pod(0, json!({"phase": "Running", "containerStatuses": [running, crashing]})),
                "1/2 CrashLoopBackOff 3 (5m ago)",
            ),
            (
                pod(0, json!({"phase": "Running", "containerStatuses": [running, done]})),
                "1/2 NotReady 2 (5m ago)",
            ),
            (pod(0, json!({"phase": "Failed", "containerStatuses": [killed]})), "0/2 Signal:9 0"),
            (pod(0, json!({"phase": "Failed", "reason": "Evicted"})), "0/2 Evicted 0"),
            (
                pod(
                    2,
                    json!({"phase": "Pending", "initContainerStatuses": [done, {"name": "i1", "state": {"running": {}}}]}),
                ),
                "0/2 Init:1/2 0",
            ),
            (
                pod(1, json!({"phase": "Pending", "initContainerStatuses": [crashing]})),
                "0/2 Init:CrashLoopBackOff 1",
            ),
        ];
        let now = Timestamp::from_second(300).expect("a time");
        for (pod, expected) in table {
            let row = summary(&pod);
            assert_eq!(
                format!("{}/{} {} {}", row.ready, row.total, row.status, row.restarts_text(now)),
                expected
            );
        }
    }

    #[test]
    fn a_pod_being_deleted_is_terminating() {
        let mut pod = pod(0, json!({"phase": "Running"}));
        pod["metadata"]["deletionTimestamp"] = "2024-05-01T10:00:00Z".into();
        assert_eq!(summary(&pod).status, "Terminating");
    }
}
