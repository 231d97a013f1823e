//! Rolling updates of a DaemonSet: within a number of unavailable nodes, or of second pods.

use super::Look;
use crate::pod::{self, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

/// The figures of the strategy, resolved for the number of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Nodes that may be without an available pod.
    pub unavailable: usize,
    /// Nodes that may have two pods.
    pub surge: usize,
}

/// The pods of a node by revision.
struct Pair {
    node: String,
    old: Option<Arc<Pod>>,
    new: Option<Arc<Pod>>,
}

impl Look<'_> {
    fn updates_by_itself(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
    }

    pub(super) fn limits(&self) -> Limits {
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.clone());
        let rolling = rolling.unwrap_or_default();
        let nodes = self.places.values().filter(|place| place.should_run).count();
        let surge = if self.updates_by_itself() { scaled(rolling.max_surge.as_ref(), nodes, 0) } else { 0 };
        let unavailable = scaled(rolling.max_unavailable.as_ref(), nodes, 1);
        // Both zero would never progress; the API server refuses it, a percentage may still come to it.
        let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
        Limits { unavailable, surge }
    }

    pub(super) fn roll(&mut self) {
        if !self.updates_by_itself() {
            return;
        }
        let limits = self.limits();
        match limits.surge {
            0 => self.roll_by_deleting(limits.unavailable),
            surge => self.roll_by_surging(surge),
        }
    }

    fn pairs(&self) -> Vec<Pair> {
        let wanted = self.places.iter().filter(|(_, place)| place.should_run);
        wanted.map(|(node, _)| self.pair(node)).collect()
    }

    fn pair(&self, node: &str) -> Pair {
        let alive = self.on_node(node).into_iter().filter(|pod| !pod::is_terminating(pod));
        let (new, old): (Vec<_>, Vec<_>) = alive.partition(|pod| self.is_new(pod));
        Pair { node: node.to_owned(), old: old.into_iter().next(), new: new.into_iter().next() }
    }

    fn roll_by_deleting(&mut self, most: usize) {
        let (mut unavailable, mut free, mut candidates) = (0, Vec::new(), Vec::new());
        for pair in self.pairs() {
            match (pair.old, pair.new) {
                (Some(old), None) if self.is_available(&old) => candidates.push(old),
                (Some(old), None) => {
                    unavailable += 1;
                    free.push(old);
                }
                (None, Some(new)) => unavailable += usize::from(!self.is_available(&new)),
                _ => unavailable += 1,
            }
        }
        let room = most.saturating_sub(unavailable);
        for pod in free.into_iter().chain(candidates.into_iter().take(room)) {
            self.delete(&pod, "its revision is old");
        }
    }

    fn roll_by_surging(&mut self, most: usize) {
        let mut surging = 0;
        let (mut free, mut candidates, mut done) = (Vec::new(), Vec::new(), Vec::new());
        for pair in self.pairs() {
            match (pair.old, pair.new) {
                (Some(old), None) if self.is_available(&old) => candidates.push(pair.node),
                (Some(_), None) => free.push(pair.node),
                (Some(old), Some(new)) => match self.is_available(&new) {
                    true => done.push(old),
                    false => surging += 1,
                },
                // Its own look at the node sees to it.
                (None, _) => {}
            }
        }
        done.iter().for_each(|pod| self.delete(pod, "the new pod is available"));
        // A node whose old pod serves nobody loses nothing by a new one.
        let room = most.saturating_sub(surging);
        for node in free.into_iter().chain(candidates.into_iter().take(room)) {
            self.create(&node, "of the new revision, beside the old");
        }
    }
}

/// A count, or a share of `total` rounded up.
fn scaled(value: Option<&IntOrString>, total: usize, default: usize) -> usize {
    match value {
        Some(IntOrString::Int(count)) => usize::try_from(*count).unwrap_or(0),
        Some(IntOrString::String(text)) => {
            let percent: usize = text.trim_end_matches('%').parse().unwrap_or(0);
            (total * percent).div_ceil(100)
        }
        None => default,
    }
}
