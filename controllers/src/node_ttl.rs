//! Node TTL: how long a node's agent may keep ConfigMaps and Secrets without asking again, by the size of the
//! cluster. Upstream's `pkg/controller/ttl` gives the steps; they overlap, so that a cluster whose size goes up and
//! down writes nothing. Which step a node is on is read from the node, so a restart changes nothing.

use crate::plan::{Part, Plan, Target};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use serde_json::json;

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// From so many nodes to so many: seconds.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// What to do for `node` in a cluster of so many nodes.
pub fn reconcile(node: &Node, nodes: usize) -> Plan {
    let mut plan = Plan::nothing();
    let present: Option<u32> = node.annotations().get(ANNOTATION).and_then(|text| text.parse().ok());
    let seconds = seconds(present, nodes);
    if node.metadata.deletion_timestamp.is_none() && present != Some(seconds) {
        let patch = json!({"metadata": {"annotations": {ANNOTATION: seconds.to_string()}}});
        plan.patch(Target::of(node), Part::Whole, patch, format!("the cluster has {nodes} nodes"));
    }
    plan
}

/// Whether other steps fit a cluster of so many nodes than one of so many others.
pub fn is_step(before: usize, now: usize) -> bool {
    STEPS.iter().any(|(least, most, _)| {
        let fits = least..=most;
        fits.contains(&&before) != fits.contains(&&now)
    })
}

fn seconds(present: Option<u32>, nodes: usize) -> u32 {
    let fits = |(least, most, _): &&(usize, usize, u32)| (*least..=*most).contains(&nodes);
    let kept = STEPS.iter().filter(fits).find(|(.., seconds)| present == Some(*seconds));
    let first = STEPS.iter().find(fits);
    kept.or(first).map_or(0, |(.., seconds)| *seconds)
}

#[cfg(test)]
mod tests {
    use super::{is_step, seconds};

    #[test]
    fn only_some_numbers_of_nodes_are_steps() {
        let steps: Vec<usize> = (1..5000).filter(|nodes| is_step(nodes - 1, *nodes)).collect();
        assert_eq!(steps, [90, 101, 450, 501, 900, 1001, 1800, 2001]);
        assert!(is_step(101, 100) && !is_step(2001, 2002));
    }

    #[test]
    fn steps_overlap_so_that_a_size_between_two_changes_nothing() {
        let of = |present, nodes| seconds(present, nodes);
        assert_eq!([of(None, 5), of(None, 100), of(None, 101), of(None, 3000)], [0, 0, 15, 300]);
        assert_eq!([of(Some(0), 95), of(Some(15), 95), of(Some(15), 89)], [0, 15, 0]);
        assert_eq!([of(Some(15), 500), of(Some(15), 501), of(Some(30), 460)], [15, 30, 30]);
    }
}
