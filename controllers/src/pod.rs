//! What controllers need to know about a pod: whether it counts, is ready, and since when.

mod projection;

pub use projection::{ContainerStatus, Pod, PodStatus};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodCondition;

/// `status.phase`, empty if there is none yet.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The node it is bound to, empty if none.
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// True once all its containers have ended for good.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// True while it is being deleted.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// True if it counts as a replica. A terminating pod doesn't, so that one on a dead node, which nobody can
/// confirm as ended, never blocks its replacement.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

/// The condition of this type.
pub fn condition<'a>(status: Option<&'a PodStatus>, type_: &str) -> Option<&'a PodCondition> {
    status?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// True if its Ready condition is True.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod.status.as_ref(), "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when it is ready; none if it isn't, or doesn't say.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod.status.as_ref(), "Ready").filter(|ready| ready.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Its addresses; the first is the one it is known by.
pub fn addresses(pod: &Pod) -> Vec<String> {
    let status = pod.status.as_ref();
    let listed =
        status.into_iter().flat_map(|status| status.pod_ips.iter().flatten()).map(|it| it.ip.clone());
    let listed: Vec<String> = listed.filter(|ip| !ip.is_empty()).collect();
    let only = status.and_then(|status| status.pod_ip.clone()).filter(|ip| !ip.is_empty());
    if listed.is_empty() { only.into_iter().collect() } else { listed }
}

/// The names of the claims that its volumes use; an ephemeral volume's is made of the pod's name and its own.
pub fn claims(pod: &Pod) -> impl Iterator<Item = String> + '_ {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.metadata.name.as_deref()?, volume.name)),
        (None, None) => None,
    })
}

/// When it has been (or will have been) ready for `min_ready_seconds`; none while it isn't ready.
pub fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds == 0 {
        return Some(Timestamp::MIN);
    }
    ready_since(pod).map(|since| since + SignedDuration::from_secs(min_ready_seconds.into()))
}
