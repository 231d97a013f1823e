//! How a rollout stands, read from an object's status.

use serde_json::Value;

/// How a rollout stands, in kubectl's words.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything runs as wanted.
    Complete(String),
    /// Not yet.
    Waiting(String),
    /// The controller has given up.
    Failed(String),
}

/// Reads the status of a Deployment, StatefulSet or DaemonSet.
pub fn progress(kind: &str, object: &Value) -> Progress {
    match kind {
        "StatefulSet" => of_rolling(object, of_stateful_set),
        "DaemonSet" => of_rolling(object, of_daemon_set),
        _ => of_deployment(object),
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn is_observed(object: &Value) -> bool {
    number(&object["metadata"]["generation"]) <= number(&object["status"]["observedGeneration"])
}

/// Nothing rolls by itself under another strategy.
fn of_rolling(object: &Value, progress: fn(&Value) -> Progress) -> Progress {
    match object["spec"]["updateStrategy"]["type"].as_str() {
        Some("RollingUpdate") | None => progress(object),
        Some(_) => {
            Progress::Failed("rollout status is only available for RollingUpdate strategy type".into())
        }
    }
}

fn of_stateful_set(set: &Value) -> Progress {
    if !is_observed(set) {
        return Progress::Waiting("Waiting for statefulset spec update to be observed...".into());
    }
    let (spec, status) = (&set["spec"], &set["status"]);
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let (ready, updated) = (number(&status["readyReplicas"]), number(&status["updatedReplicas"]));
    if ready < wanted {
        return Progress::Waiting(format!("Waiting for {} pods to be ready...", wanted - ready));
    }
    // The API server's default is a partition of zero, so this is what kubectl, too, says as a rule.
    if let Some(partition) = spec["updateStrategy"]["rollingUpdate"]["partition"].as_i64() {
        return of_partition(updated, wanted - partition);
    }
    let revision = |field: &str| status[field].as_str().unwrap_or_default();
    let (current, update) = (revision("currentRevision"), revision("updateRevision"));
    if current != update {
        let text = format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {update}..."
        );
        return Progress::Waiting(text);
    }
    let pods = number(&status["currentReplicas"]);
    Progress::Complete(format!("statefulset rolling update complete {pods} pods at revision {current}..."))
}

fn of_partition(updated: i64, wanted: i64) -> Progress {
    if updated < wanted {
        return Progress::Waiting(format!(
            "Waiting for partitioned roll out to finish: {updated} out of {wanted} new pods have been updated..."
        ));
    }
    Progress::Complete(format!("partitioned roll out complete: {updated} new pods have been updated..."))
}

fn of_daemon_set(set: &Value) -> Progress {
    if !is_observed(set) {
        return Progress::Waiting("Waiting for daemon set spec update to be observed...".into());
    }
    let (name, status) = (api::object::name(set), &set["status"]);
    let wanted = number(&status["desiredNumberScheduled"]);
    let (updated, available) =
        (number(&status["updatedNumberScheduled"]), number(&status["numberAvailable"]));
    let waiting = |text: String| {
        Progress::Waiting(format!("Waiting for daemon set \"{name}\" rollout to finish: {text}..."))
    };
    match () {
        () if updated < wanted => waiting(format!("{updated} out of {wanted} new pods have been updated")),
        () if available < wanted => waiting(format!("{available} of {wanted} updated pods are available")),
        () => Progress::Complete(format!("daemon set \"{name}\" successfully rolled out")),
    }
}

fn of_deployment(deployment: &Value) -> Progress {
    let name = api::object::name(deployment);
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    if !is_observed(deployment) {
        return Progress::Waiting("Waiting for deployment spec update to be observed...".into());
    }
    if condition_reason(status, "Progressing") == Some("ProgressDeadlineExceeded") {
        return Progress::Failed(format!("deployment \"{name}\" exceeded its progress deadline"));
    }
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let (updated, total) = (number(&status["updatedReplicas"]), number(&status["replicas"]));
    let available = number(&status["availableReplicas"]);
    let waiting = |text: String| {
        Progress::Waiting(format!("Waiting for deployment \"{name}\" rollout to finish: {text}..."))
    };
    match () {
        () if updated < wanted => {
            waiting(format!("{updated} out of {wanted} new replicas have been updated"))
        }
        () if total > updated => waiting(format!("{} old replicas are pending termination", total - updated)),
        () if available < updated => {
            waiting(format!("{available} of {updated} updated replicas are available"))
        }
        () => Progress::Complete(format!("deployment \"{name}\" successfully rolled out")),
    }
}

fn condition_reason<'a>(status: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = status["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)?["reason"].as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(generation: i64, replicas: [i64; 4]) -> Value {
        let [wanted, updated, total, available] = replicas;
        json!({"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": wanted},
            "status": {"observedGeneration": generation, "updatedReplicas": updated, "replicas": total,
                       "availableReplicas": available}})
    }

    #[test]
    fn progress_speaks_as_kubectl_does() {
        let table = [
            (deployment(1, [3, 3, 3, 3]), "Waiting for deployment spec update to be observed..."),
            (
                deployment(2, [3, 1, 4, 3]),
                "Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated...",
            ),
            (
                deployment(2, [3, 3, 4, 3]),
                "Waiting for deployment \"web\" rollout to finish: 1 old replicas are pending termination...",
            ),
            (
                deployment(2, [3, 3, 3, 2]),
                "Waiting for deployment \"web\" rollout to finish: 2 of 3 updated replicas are available...",
            ),
        ];
        for (deployment, text) in table {
            assert_eq!(progress("Deployment", &deployment), Progress::Waiting(text.to_owned()));
        }
        let done = Progress::Complete("deployment \"web\" successfully rolled out".into());
        assert_eq!(progress("Deployment", &deployment(2, [3, 3, 3, 3])), done);
        let mut late = deployment(2, [3, 1, 4, 3]);
        late["status"]["conditions"] = json!([{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]);
        assert!(matches!(progress("Deployment", &late), Progress::Failed(_)));
    }

    #[test]
    fn stateful_sets_wait_for_readiness_then_for_the_revision() {
        let set = |ready: i64, updated: i64, partition: Option<i64>, revision: &str| {
            json!({"metadata": {"name": "db", "generation": 1},
                "spec": {"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}},
                "status": {"observedGeneration": 1, "readyReplicas": ready, "updatedReplicas": updated,
                    "currentReplicas": 3, "currentRevision": revision, "updateRevision": "db-b"}})
        };
        let table = [
            (set(1, 0, None, "db-a"), Progress::Waiting("Waiting for 2 pods to be ready...".into())),
            (
                set(3, 1, None, "db-a"),
                Progress::Waiting(
                    "waiting for statefulset rolling update to complete 1 pods at revision db-b...".into(),
                ),
            ),
            (
                set(3, 0, Some(2), "db-a"),
                Progress::Waiting(
                    "Waiting for partitioned roll out to finish: 0 out of 1 new pods have been updated..."
                        .into(),
                ),
            ),
            (
                set(3, 1, Some(2), "db-a"),
                Progress::Complete("partitioned roll out complete: 1 new pods have been updated...".into()),
            ),
            (
                set(3, 3, None, "db-b"),
                Progress::Complete("statefulset rolling update complete 3 pods at revision db-b...".into()),
            ),
        ];
        for (set, wanted) in table {
            assert_eq!(progress("StatefulSet", &set), wanted);
        }
    }

    #[test]
    fn daemon_sets_count_nodes() {
        let set = |updated: i64, available: i64| {
            json!({"metadata": {"name": "log", "generation": 1}, "spec": {},
                "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": updated,
                    "numberAvailable": available}})
        };
        let waiting = |text: &str| {
            Progress::Waiting(format!("Waiting for daemon set \"log\" rollout to finish: {text}..."))
        };
        assert_eq!(progress("DaemonSet", &set(1, 2)), waiting("1 out of 2 new pods have been updated"));
        assert_eq!(progress("DaemonSet", &set(2, 1)), waiting("1 of 2 updated pods are available"));
        let done = Progress::Complete("daemon set \"log\" successfully rolled out".into());
        assert_eq!(progress("DaemonSet", &set(2, 2)), done);
        let mut by_hand = set(2, 2);
        by_hand["spec"]["updateStrategy"]["type"] = json!("OnDelete");
        assert!(matches!(progress("DaemonSet", &by_hand), Progress::Failed(_)));
    }
}
