//! What a DaemonSet says about its nodes.

use super::Look;
use crate::pod::{self, Pod};
use k8s_openapi::api::apps::v1::DaemonSetStatus;
use std::sync::Arc;

/// The status that this look leaves.
pub fn of(look: &mut Look<'_>, collisions: i32) -> DaemonSetStatus {
    let mut status = DaemonSetStatus {
        observed_generation: look.set.metadata.generation,
        collision_count: (collisions > 0).then_some(collisions),
        conditions: look.set.status.as_ref().and_then(|status| status.conditions.clone()),
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    for (node, place) in look.places.clone() {
        let pods = look.on_node(&node);
        if !place.should_run {
            status.number_misscheduled += i32::from(!pods.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = representative(&pods) else { continue };
        status.current_number_scheduled += 1;
        if pod::is_ready(&pod) {
            status.number_ready += 1;
            available += i32::from(look.is_available(&pod));
        }
        updated += i32::from(look.is_new(&pod));
    }
    status.number_available = nonzero(available);
    status.number_unavailable = nonzero(status.desired_number_scheduled - available);
    status.updated_number_scheduled = nonzero(updated);
    status
}

/// The pod that speaks for the node: the newest that is alive (of two during a surge, the ready one).
fn representative(pods: &[Arc<Pod>]) -> Option<Arc<Pod>> {
    let rank = |pod: &Arc<Pod>| (pod::is_active(pod), pod::is_ready(pod));
    pods.iter().max_by_key(|pod| rank(pod)).cloned()
}

fn nonzero(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}
