//! Prefers nodes that have the pod's images, by their size; less so what few nodes have, so that one node alone
//! doesn't draw every pod of an image to itself.

use super::{MAX_SCORE, Plugin, Score};
use crate::images::Holders;
use crate::pod::Needs;
use crate::snapshot::{Slot, Snapshot};

const MB: i64 = 1 << 20;
/// Images that are smaller in sum are quickly pulled (upstream's `minThreshold`).
const LEAST: i64 = 23 * MB;
/// What is larger, in the mean of the containers, counts as this (upstream's `maxContainerThreshold`).
const MOST: i64 = 1000 * MB;

/// The rule, prepared for one pod.
pub struct ImageLocality<'a> {
    /// Of each container whose image some node has, with the share of nodes that do.
    wanted: Vec<(&'a Holders, f64)>,
    nodes: usize,
    most: i64,
}

impl<'a> ImageLocality<'a> {
    /// Prepares the rule.
    pub fn new(snapshot: &'a Snapshot, needs: &Needs) -> Self {
        let held = || needs.images.iter().filter_map(|name| snapshot.images().holders(name));
        let nodes = if held().next().is_some() { snapshot.node_count() } else { 0 };
        let share = |holders: &Holders| holders.count() as f64 / nodes as f64;
        let containers = i64::try_from(needs.images.len()).expect("a count");
        ImageLocality {
            wanted: held().map(|holders| (holders, share(holders))).collect(),
            nodes,
            most: MOST * containers.max(1),
        }
    }

    /// How much of the pod's images the node has.
    pub fn score(&self, slot: Slot) -> i64 {
        let scaled = |(holders, share): &(&Holders, f64)| {
            holders.size(slot).map_or(0, |bytes| (bytes as f64 * share) as i64)
        };
        let sum: i64 = self.wanted.iter().map(scaled).sum();
        MAX_SCORE * (sum.clamp(LEAST, self.most) - LEAST) / (self.most - LEAST)
    }

    /// While this is equal, nodes that don't change keep their scores.
    pub fn state(&self) -> (usize, Vec<u64>) {
        (self.nodes, self.wanted.iter().map(|(holders, _)| holders.state()).collect())
    }
}

/// The name under which nodes list an image that a container names: upstream's, which adds no registry.
pub fn normalized(image: &str) -> Box<str> {
    let tagged = image.rfind(':') > image.rfind('/');
    if tagged || image.is_empty() { image.into() } else { format!("{image}:latest").into() }
}

impl Score for ImageLocality<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::ImageLocality
    }

    fn scores(&self, slots: &[Slot]) -> Vec<i64> {
        slots.iter().map(|slot| self.score(*slot)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_called_as_nodes_call_them() {
        let table = [
            ("nginx", "nginx:latest"),
            ("nginx:1.25", "nginx:1.25"),
            ("registry:5000/nginx", "registry:5000/nginx:latest"),
            ("registry:5000/nginx:1", "registry:5000/nginx:1"),
            ("a/b@sha256:0f", "a/b@sha256:0f"),
            ("", ""),
        ];
        for (image, name) in table {
            assert_eq!(&*normalized(image), name);
        }
    }
}
