//! What a StatefulSet says about its pods.

use super::{Look, is_running_and_ready, revision_of};
use crate::pod::{self, Pod};
use k8s_openapi::api::apps::v1::StatefulSetStatus;

/// The status that this look leaves.
pub fn of(look: &Look<'_>, collisions: i32) -> StatefulSetStatus {
    let count = |counts: &dyn Fn(&Pod) -> bool| look.pods.values().filter(|pod| counts(pod)).count() as i32;
    let min_ready = look.spec.min_ready_seconds.unwrap_or(0);
    let available = |pod: &Pod| {
        is_running_and_ready(pod) && pod::available_at(pod, min_ready).is_some_and(|when| when <= look.now)
    };
    let of_revision = |name: &str| count(&|pod| !pod::is_terminating(pod) && revision_of(pod) == name);
    let mut status = StatefulSetStatus {
        replicas: count(&|pod| !pod::phase(pod).is_empty()),
        ready_replicas: nonzero(count(&is_running_and_ready)),
        available_replicas: Some(count(&available)),
        current_replicas: nonzero(of_revision(&look.current.name)),
        updated_replicas: nonzero(of_revision(&look.update.name)),
        current_revision: Some(look.current.name.clone()),
        update_revision: Some(look.update.name.clone()),
        observed_generation: look.set.metadata.generation,
        collision_count: Some(collisions),
        conditions: look.set.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    complete(look, &mut status);
    status
}

/// A rollout that has reached every pod makes the new revision the current one.
fn complete(look: &Look<'_>, status: &mut StatefulSetStatus) {
    let wanted = look.spec.replicas.unwrap_or(1);
    let rolls =
        look.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
    let all = [Some(status.replicas), status.updated_replicas, status.ready_replicas];
    if rolls
        && status.current_revision != status.update_revision
        && all.iter().all(|count| count.unwrap_or(0) == wanted)
    {
        status.current_replicas = status.updated_replicas;
        status.current_revision = status.update_revision.clone();
    }
}

fn nonzero(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}
