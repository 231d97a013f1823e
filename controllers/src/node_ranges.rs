//! Node ranges: which addresses the pods of a node get, given to the node as `spec.podCIDR` and `spec.podCIDRs`.
//!
//! What always holds: a range that a node has is never given to another one, and a node keeps the range that it
//! has, whoever gave it. A range is free again when its node is gone. Upstream's `pkg/controller/nodeipam` gives
//! the fields, the flags' meaning and the event; like there the search goes on behind the range that was given
//! last, so that one that has just been given back isn't met by connections meant for its last owner.

use crate::plan::{Part, Plan, Severity, Target};
use api::cidr::Cidr;
use k8s_openapi::api::core::v1::Node;
use kube::{Resource, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;

/// Where nodes' ranges come from.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRanges {
    /// The addresses of all pods.
    pub cluster: Cidr,
    /// How many bits the addresses of one node have in common. Upstream: 24.
    pub mask: u32,
    /// The addresses of Services, which no pod may have.
    pub services: Option<Cidr>,
}

/// A text or a size can't be where nodes' ranges come from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRanges {
    /// Only IPv4 is routed.
    #[error("--cluster-cidr {0} must be a range of IPv4 addresses")]
    Family(Cidr),
    /// A node's range must be a part of the cluster's, and hold a pod.
    #[error(
        "--node-cidr-mask-size {mask} must be between {prefix}, the prefix of --cluster-cidr {cluster}, and 30"
    )]
    Mask {
        /// What was asked for.
        mask: u32,
        /// Of what.
        cluster: Cidr,
        /// Its prefix.
        prefix: u32,
    },
    /// There would be more ranges than upstream allows.
    #[error("--node-cidr-mask-size {mask} makes more than 65536 ranges of --cluster-cidr {cluster}")]
    TooMany {
        /// What was asked for.
        mask: u32,
        /// Of what.
        cluster: Cidr,
    },
}

/// Upstream's limit: a mask may be sixteen bits longer than the cluster's prefix.
const MOST_BITS: u32 = 16;

impl NodeRanges {
    /// Ranges of `mask` bits within `cluster`.
    ///
    /// # Errors
    /// There are no such ranges, or too many.
    pub fn new(cluster: Cidr, mask: u32, services: Option<Cidr>) -> Result<NodeRanges, BadRanges> {
        if cluster.is_ipv6() {
            return Err(BadRanges::Family(cluster));
        }
        let prefix = cluster.prefix();
        if mask < prefix || mask > 30 {
            return Err(BadRanges::Mask { mask, cluster, prefix });
        }
        if mask - prefix > MOST_BITS {
            return Err(BadRanges::TooMany { mask, cluster });
        }
        Ok(NodeRanges { cluster, mask, services })
    }

    /// How many ranges there are.
    pub fn count(&self) -> u64 {
        1 << (self.mask - self.cluster.prefix())
    }

    fn nth(&self, number: u64) -> Option<Cidr> {
        let first = self.cluster.nth(number << (32 - self.mask));
        Cidr::parse(&format!("{first}/{}", self.mask))
    }

    /// The first free range from number `from` on, around the end; with its number.
    fn free(&self, from: u64, taken: &[Cidr]) -> Option<(u64, Cidr)> {
        let numbers = (0..self.count()).map(|step| (from + step) % self.count());
        let ranges = numbers.filter_map(|number| Some((number, self.nth(number)?)));
        let services = self.services.as_ref();
        let is_free = |range: &Cidr| !taken.iter().chain(services).any(|other| overlap(range, other));
        ranges.into_iter().find(|(_, range)| is_free(range))
    }
}

fn overlap(a: &Cidr, b: &Cidr) -> bool {
    a.contains(b.nth(0)) || b.contains(a.nth(0))
}

/// What was given to nodes and isn't seen in the cache yet, and where the next search begins.
#[derive(Debug, Default)]
pub struct Given {
    /// By the node's uid.
    under_way: BTreeMap<String, Cidr>,
    next: u64,
}

impl Given {
    /// What to do for `node`, beside all `nodes`.
    pub fn reconcile<'a>(
        &mut self,
        node: &Node,
        nodes: impl Iterator<Item = &'a Node> + Clone,
        ranges: &NodeRanges,
    ) -> Plan {
        let mut plan = Plan::nothing();
        let waits = |uid: &str| {
            nodes.clone().any(|node| node.uid().as_deref() == Some(uid) && ranges_of(node).is_empty())
        };
        self.under_way.retain(|uid, _| waits(uid));
        if node.metadata.deletion_timestamp.is_some() || !ranges_of(node).is_empty() {
            return plan;
        }
        match self.range_for(node, nodes, ranges) {
            Some(range) => {
                let patch = json!({"spec": {"podCIDR": range.to_string(), "podCIDRs": [range.to_string()]}});
                plan.patch(Target::of(node), Part::Whole, patch, "its pods have no addresses");
            }
            None => {
                let message = format!("Node {} status is now: CIDRNotAvailable", node.name_any());
                plan.event(node.object_ref(&()), Severity::Normal, "CIDRNotAvailable", message);
            }
        }
        plan
    }

    fn range_for<'a>(
        &mut self,
        node: &Node,
        nodes: impl Iterator<Item = &'a Node>,
        ranges: &NodeRanges,
    ) -> Option<Cidr> {
        let uid = node.uid().unwrap_or_default();
        if let Some(range) = self.under_way.get(&uid) {
            return Some(*range);
        }
        let mut taken: Vec<Cidr> = nodes.flat_map(ranges_of).collect();
        taken.extend(self.under_way.values());
        let (number, range) = ranges.free(self.next, &taken)?;
        self.next = number + 1;
        self.under_way.insert(uid, range);
        Some(range)
    }
}

/// The ranges that a node has.
pub fn ranges_of(node: &Node) -> Vec<Cidr> {
    let spec = node.spec.as_ref();
    let listed = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
    let first = spec.and_then(|spec| spec.pod_cidr.clone());
    listed.iter().chain(&first).filter_map(|text| Cidr::parse(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(cluster: &str, mask: u32) -> NodeRanges {
        let services = Cidr::parse("10.244.2.0/24");
        NodeRanges::new(Cidr::parse(cluster).expect("a range"), mask, services).expect("ranges")
    }

    fn node(name: &str, range: Option<&str>) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some(name.to_owned());
        node.metadata.uid = Some(format!("uid-{name}"));
        node.spec.get_or_insert_default().pod_cidr = range.map(str::to_owned);
        node
    }

    /// What each of these nodes is given, one after the other, by caches that see none of it.
    fn given(given: &mut Given, nodes: &[Node], ranges: &NodeRanges) -> Vec<String> {
        let plans = nodes.iter().map(|node| given.reconcile(node, nodes.iter(), ranges).to_string());
        let told = |plan: String| match plan.split_once("\"podCIDR\":\"") {
            Some((_, rest)) => rest.split('"').next().unwrap_or_default().to_owned(),
            None => plan.trim().to_owned(),
        };
        plans.map(told).collect()
    }

    #[test]
    fn each_node_gets_a_range_that_nobody_has() {
        let ranges = ranges("10.244.0.0/21", 24);
        let nodes = [node("a", None), node("b", Some("10.244.0.0/23")), node("c", None), node("d", None)];
        let mut memory = Given::default();
        // The second range is b's, too, and the third one is the Services'.
        assert_eq!(
            given(&mut memory, &nodes, &ranges),
            ["10.244.3.0/24", "nothing", "10.244.4.0/24", "10.244.5.0/24"]
        );
        assert_eq!(
            given(&mut memory, &nodes, &ranges)[0],
            "10.244.3.0/24",
            "a second look at a late cache gives the same"
        );
    }

    #[test]
    fn what_a_node_that_is_gone_had_is_given_last() {
        let ranges = ranges("10.244.0.0/22", 24);
        let mut memory = Given::default();
        let both = [node("a", None), node("b", None)];
        assert_eq!(given(&mut memory, &both, &ranges), ["10.244.0.0/24", "10.244.1.0/24"]);
        let b = node("b", Some("10.244.1.0/24"));
        let later = [b, node("c", None), node("d", None), node("e", None)];
        assert_eq!(
            given(&mut memory, &later, &ranges),
            [
                "nothing",
                "10.244.3.0/24",
                "10.244.0.0/24",
                "event Normal CIDRNotAvailable e: Node e status is now: CIDRNotAvailable"
            ]
        );
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        let new = |cluster: &str, mask| {
            let refused = NodeRanges::new(Cidr::parse(cluster).expect("a range"), mask, None);
            refused.map(|ranges| ranges.count()).map_err(|why| why.to_string())
        };
        assert_eq!(new("10.0.0.0/8", 24), Ok(65_536));
        for (cluster, mask, word) in [
            ("10.0.0.0/8", 25, "65536"),
            ("10.0.0.0/16", 15, "between"),
            ("10.0.0.0/16", 31, "between"),
            ("fd00::/48", 64, "IPv4"),
        ] {
            let why = new(cluster, mask).expect_err("refused");
            assert!(why.contains(word), "{why}");
        }
    }
}
