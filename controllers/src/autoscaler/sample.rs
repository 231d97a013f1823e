//! What is known of one pod's use of a resource, from the pod and from its metrics.

use super::usage::Sample;
use api::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// A pod's CPU is its start-up's for so long after its start. Upstream: 5 min.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
/// A pod that wasn't ready at any time after this long after its start never was. Upstream: 30 s.
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// The pod's use of `resource`, by all containers or by one; none if the pod doesn't count at all.
pub fn of(
    pod: &Value,
    metrics: Option<&Value>,
    resource: &str,
    container: Option<&str>,
    now: Timestamp,
) -> Option<Sample> {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if api::object::is_deleting(pod) || phase == "Failed" {
        return None;
    }
    let chosen = |one: &&Value| container.is_none_or(|name| one["name"].as_str() == Some(name));
    let wanted = pod["spec"]["containers"].as_array().into_iter().flatten().filter(chosen);
    let requested: Option<Vec<i64>> =
        wanted.map(|container| milli(&container["resources"]["requests"][resource])).collect();
    let measured =
        metrics.map(|metrics| metrics["containers"].as_array().into_iter().flatten().filter(chosen));
    let used: Option<i64> = measured.and_then(|mut containers| {
        containers.try_fold(0, |sum, container| Some(sum + milli(&container["usage"][resource])?))
    });
    let is_ready = phase != "Pending" && (resource != "cpu" || takes_load(pod, metrics, now));
    let requested = requested.filter(|all| !all.is_empty()).map(|all| all.iter().sum());
    Some(Sample { pod: api::object::name(pod).to_owned(), used, requested, is_ready })
}

fn milli(amount: &Value) -> Option<i64> {
    i64::try_from(Quantity::parse(amount.as_str()?).ok()?.as_milli()).ok()
}

/// Whether the pod's use of CPU says something about load: it is ready, and doesn't just start.
fn takes_load(pod: &Value, metrics: Option<&Value>, now: Timestamp) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
    let started = api::time::from_value(pod["status"].get("startTime"));
    let (Some(ready), Some(started)) = (ready, started) else { return false };
    let changed = api::time::from_value(ready.get("lastTransitionTime")).unwrap_or(started);
    let is_ready = ready["status"] != "False";
    if now < started + CPU_INITIALIZATION {
        let measured = metrics.and_then(|metrics| api::time::from_value(metrics.get("timestamp")));
        let window = metrics.and_then(|metrics| metrics["window"].as_str()).and_then(api::time::go_duration);
        let window = SignedDuration::from_nanos(window.unwrap_or(0));
        return is_ready && measured.is_none_or(|measured| measured >= changed + window);
    }
    is_ready || changed > started + INITIAL_READINESS
}
