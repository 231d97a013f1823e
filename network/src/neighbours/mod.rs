//! Ways to the pods of other machines, decided from the Nodes and this machine's own links.
//!
//! A machine on the same link is the next hop to its pods. To any other one the packets go in packets of
//! their own (VXLAN), which every network between passes on; flannel's `DirectRouting` has the same rule.

pub mod follow;
#[cfg(test)]
mod kernel_tests;
mod tunnel;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Node;

use crate::pod::addresses::Range;

/// How the pods of another machine are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// The machine with this address is the next hop.
    Direct(Ipv4Addr),
    /// In packets to the machine with this address.
    Tunnel(Ipv4Addr),
}

/// The ways from the node `own` to the pods of the others, by their range. `links` are the ranges of the
/// addresses of this machine: who is in one of them is a neighbour. Nodes on this very machine share its
/// bridge and need no way.
pub fn ways<'a>(
    own: &str,
    nodes: impl Iterator<Item = &'a Node> + Clone,
    links: &[Range],
) -> BTreeMap<Range, Way> {
    let is_own = |node: &Node| node.metadata.name.as_deref() == Some(own);
    let here = nodes.clone().find(|node| is_own(node)).and_then(address);
    let others = nodes.filter(|node| !is_own(node));
    let found = others.filter_map(|node| {
        let range = node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?;
        Some((range, address(node)?))
    });
    let elsewhere = found.filter(|(_, address)| Some(*address) != here && !address.is_loopback());
    let near = |address| links.iter().any(|link| link.contains(address));
    let way = |address| if near(address) { Way::Direct(address) } else { Way::Tunnel(address) };
    elsewhere.map(|(range, address)| (range, way(address))).collect()
}

/// The address under which other machines reach a node.
pub fn address(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().find(|address| address.type_ == "InternalIP")?.address.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, range: &str, address: &str) -> Node {
        let text = format!(
            "{{metadata: {{name: {name}}}, spec: {{podCIDR: {range}}}, \
             status: {{addresses: [{{type: InternalIP, address: {address}}}]}}}}"
        );
        serde_yaml::from_str(&text).expect("a node")
    }

    #[test]
    fn only_other_machines_need_a_way_and_only_far_ones_a_tunnel() {
        let nodes = [
            node("n1", "10.244.1.0/24", "192.0.2.1"),
            node("n2", "10.244.2.0/24", "192.0.2.2"),
            node("n3", "10.244.3.0/24", "192.0.2.1"),
            node("n4", "null", "192.0.2.4"),
            node("n5", "10.244.5.0/24", "198.51.100.5"),
        ];
        let links = ["192.0.2.0/24".parse().expect("a range")];
        let found: Vec<String> =
            ways("n1", nodes.iter(), &links).iter().map(|(range, way)| format!("{range} {way:?}")).collect();
        assert_eq!(found, ["10.244.2.0/24 Direct(192.0.2.2)", "10.244.5.0/24 Tunnel(198.51.100.5)"]);
        let local = [node("n1", "10.244.1.0/24", "127.0.0.1"), node("n2", "10.244.2.0/24", "127.0.0.1")];
        assert!(ways("n1", local.iter(), &links).is_empty());
    }
}
