//! Ways to the pods of other machines: their node is the next hop, so machines must share a link.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use client::Shutdown;
use client::informer::Informer;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use rtnetlink::Handle;
use tokio::sync::Notify;

use crate::pod::addresses::Range;
use crate::pod::link::{self, Via};

/// Keeps the routes of this machine as the Nodes have it, until `shutdown` is requested. Routes to nodes that
/// are gone stay until their range has another node: nobody listens there.
pub async fn follow(client: kube::Client, node: String, handle: Handle, shutdown: Shutdown) {
    let changed = Arc::new(Notify::new());
    let on_change = changed.clone();
    let nodes =
        Informer::builder(Api::<Node>::all(client)).on_change(move |_| on_change.notify_one()).start();
    let mut made = BTreeSet::new();
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            () = changed.notified() => {}
        }
        let all = nodes.store().list();
        for (range, via) in neighbours(&node, all.iter().map(|node| &**node)) {
            if made.contains(&(range, via)) {
                continue;
            }
            match link::route(&handle, range, Via::Machine(via)).await {
                Ok(()) => drop(made.insert((range, via))),
                Err(error) => tracing::warn!(%error, %range, %via, "make the way to another node's pods"),
            }
        }
    }
    nodes.shutdown().await;
}

/// Where the pods of the others are. Nodes on this very machine share its bridge and need no way.
fn neighbours<'a>(own: &str, nodes: impl Iterator<Item = &'a Node> + Clone) -> Vec<(Range, Ipv4Addr)> {
    let is_own = |node: &Node| node.metadata.name.as_deref() == Some(own);
    let here = nodes.clone().find(|node| is_own(node)).and_then(address);
    let others = nodes.filter(|node| !is_own(node));
    let found = others.filter_map(|node| {
        let range = node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?;
        Some((range, address(node)?))
    });
    found.filter(|(_, address)| Some(*address) != here && !address.is_loopback()).collect()
}

fn address(node: &Node) -> Option<Ipv4Addr> {
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
    fn only_other_machines_need_a_way() {
        let nodes = [
            node("n1", "10.244.1.0/24", "192.0.2.1"),
            node("n2", "10.244.2.0/24", "192.0.2.2"),
            node("n3", "10.244.3.0/24", "192.0.2.1"),
            node("n4", "null", "192.0.2.4"),
        ];
        let found: Vec<String> =
            neighbours("n1", nodes.iter()).iter().map(|(range, via)| format!("{range} {via}")).collect();
        assert_eq!(found, ["10.244.2.0/24 192.0.2.2"]);
        let local = [node("n1", "10.244.1.0/24", "127.0.0.1"), node("n2", "10.244.2.0/24", "127.0.0.1")];
        assert!(neighbours("n1", local.iter()).is_empty());
    }
}
