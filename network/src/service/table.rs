//! Routes laid out as one nftables table: maps that find a Service's chain in one look-up, however many
//! Services there are, as upstream's nftables mode has it since 1.31.
//!
//! A chain picks a pod by a random number; only Services that keep clients with their pods have a chain
//! for each pod besides, which remembers who came.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::plan::{External, Route};
use crate::ClusterNetwork;
use crate::pod::namespace::BRIDGE;
use crate::table::{Table, name_of};

/// The packet mark that asks for the node's own address as the source (upstream's bit).
pub const MASQUERADE: u32 = 0x4000;

/// What the table is called.
pub const TABLE: &str = "amoeba";

/// What never changes: the maps, and the hooks that look into them.
///
/// A connection to a Service without pods is refused before it can be translated, in the order of the
/// hooks' priorities. `cluster-ips` has every Service's address, so that a port that no Service has is
/// refused instead of leaving the machine; `known-ports` is beside `service-ips` because the kernel allows
/// no map that leads to a translation within a filter. What listens on the machine's loopback is reached from pods by
/// Services only.
const FRAME: &str = "\
add table ip amoeba
add map ip amoeba service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip amoeba service-ports { type inet_proto . inet_service : verdict ; }
add map ip amoeba no-endpoints { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip amoeba no-endpoint-ports { type inet_proto . inet_service : verdict ; }
add set ip amoeba known-ports { type ipv4_addr . inet_proto . inet_service ; }
add set ip amoeba cluster-ips { type ipv4_addr ; }
add set ip amoeba hairpins { type ipv4_addr . ipv4_addr ; }
add chain ip amoeba refuse
add rule ip amoeba refuse reject with icmp type port-unreachable
add chain ip amoeba drop-it
add rule ip amoeba drop-it drop
add chain ip amoeba services
add rule ip amoeba services ip daddr . meta l4proto . th dport vmap @service-ips
add rule ip amoeba services fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-ports
add chain ip amoeba without-endpoints
add rule ip amoeba without-endpoints ct state new ip daddr . meta l4proto . th dport vmap @no-endpoints
add rule ip amoeba without-endpoints ct state new fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @no-endpoint-ports
add rule ip amoeba without-endpoints ct state new ip daddr @cluster-ips ip daddr . meta l4proto . th dport != @known-ports goto refuse
add chain ip amoeba nat-prerouting { type nat hook prerouting priority dstnat ; policy accept ; }
add rule ip amoeba nat-prerouting jump services
add chain ip amoeba nat-output { type nat hook output priority -100 ; policy accept ; }
add rule ip amoeba nat-output jump services
add chain ip amoeba nat-postrouting { type nat hook postrouting priority srcnat ; policy accept ; }
add rule ip amoeba nat-postrouting meta mark & 0x4000 == 0x4000 masquerade fully-random
add rule ip amoeba nat-postrouting ct status dnat ip saddr . ip daddr @hairpins masquerade fully-random
add chain ip amoeba filter-prerouting { type filter hook prerouting priority -110 ; policy accept ; }
add rule ip amoeba filter-prerouting jump without-endpoints
add chain ip amoeba filter-output { type filter hook output priority -110 ; policy accept ; }
add rule ip amoeba filter-output jump without-endpoints
add chain ip amoeba filter-input { type filter hook input priority -110 ; policy accept ; }
add rule ip amoeba filter-input iifname amoeba0 ip daddr 127.0.0.0/8 ct status & dnat == 0 drop
";

/// The frame of a cluster: pods speak to the world outside in the machine's name, and who asks a node's bridge
/// for a name, as the endpoints of Service `kube-dns` say, asks the cluster's DNS.
pub fn frame(cluster: &ClusterNetwork) -> String {
    let (pods, dns) = (cluster.pods, cluster.dns);
    let ask = format!("ip daddr {pods} fib daddr type local");
    format!(
        "{FRAME}\
         add rule ip amoeba nat-postrouting ip saddr {pods} ip daddr != {pods} oifname != {BRIDGE} \
         masquerade fully-random\n\
         add rule ip amoeba services {ask} udp dport 53 dnat to {dns}\n\
         add rule ip amoeba services {ask} tcp dport 53 dnat to {dns}\n"
    )
}

/// What the frame has besides where bridges show nothing to netfilter (`net.bridge.bridge-nf-call-iptables` is 0, or the
/// module `br_netfilter` isn't there): a client that a Service leads back onto its own bridge would be answered past
/// us, by an address that it never asked. So it comes in the machine's name. Our own bridge isn't meant, as its pods
/// don't see each other; that of a runtime's network plugins is.
pub const TURN_BACK: &str = "\
add chain ip amoeba turn-back { type filter hook prerouting priority -90 ; policy accept ; }
add rule ip amoeba turn-back iifname != amoeba0 ct state new ct status dnat fib daddr . iif oif exists meta mark set meta mark | 0x4000
";

impl Table {
    /// The table of these routes.
    pub fn of(routes: &[Route]) -> Self {
        let mut table = Self::default();
        routes.iter().for_each(|route| table.add(route));
        table
    }

    fn add(&mut self, route: &Route) {
        self.set("cluster-ips", route.cluster_ip.to_string(), String::new());
        self.hairpins(&route.internal);
        self.internal(route);
        self.external(route);
    }

    fn internal(&mut self, route: &Route) {
        let key = address_key(route, route.cluster_ip);
        self.set("known-ports", key.clone(), String::new());
        if route.internal.is_empty() {
            return self.set("no-endpoints", key, "goto refuse".to_owned());
        }
        let chain = self.balance("svc", route, &route.internal);
        self.set("service-ips", key, format!("goto {chain}"));
    }

    /// What comes from outside goes by a chain of its own, which decides in whose name.
    fn external(&mut self, route: &Route) {
        if route.external_ips.is_empty() && route.node_port.is_none() {
            return;
        }
        match self.external_chain(route) {
            Some(chain) => self.entrances(route, "service-ips", "service-ports", &format!("goto {chain}")),
            None => self.entrances(route, "no-endpoints", "no-endpoint-ports", absent(route)),
        }
    }

    fn external_chain(&mut self, route: &Route) -> Option<String> {
        match &route.external {
            External::Local(pods) if pods.is_empty() => None,
            External::Local(pods) => {
                self.hairpins(pods);
                Some(self.balance("loc", route, pods))
            }
            External::AsInternal if route.internal.is_empty() => None,
            External::AsInternal => {
                let name = name_of("ext", &route.id);
                let rules = vec![
                    format!("meta mark set meta mark | {MASQUERADE:#x}"),
                    format!("goto {}", name_of("svc", &route.id)),
                ];
                self.chains.insert(name.clone(), rules);
                Some(name)
            }
        }
    }

    fn entrances(&mut self, route: &Route, ips: &'static str, ports: &'static str, verdict: &str) {
        for ip in &route.external_ips {
            self.set(ips, address_key(route, *ip), verdict.to_owned());
        }
        if let Some(port) = route.node_port {
            self.set(ports, format!("{} . {port}", route.protocol.keyword()), verdict.to_owned());
        }
    }

    /// A chain that leads to one of these pods.
    fn balance(&mut self, kind: &str, route: &Route, pods: &[SocketAddrV4]) -> String {
        let name = name_of(kind, &route.id);
        let rules = match route.affinity {
            Some(time) => self.remembering(kind, route, pods, time.as_secs()),
            None => vec![at_random(route, pods)],
        };
        self.chains.insert(name.clone(), rules);
        name
    }

    /// Clients that came before go where they went; others are led at random, and remembered.
    fn remembering(&mut self, kind: &str, route: &Route, pods: &[SocketAddrV4], seconds: u64) -> Vec<String> {
        let mut rules = Vec::new();
        let mut choices = Vec::new();
        for (n, pod) in pods.iter().enumerate() {
            let id = format!("{}/{pod}", route.id);
            let chain = name_of(&format!("{kind}-ep"), &id);
            // The time is part of the name because a set's can't be changed.
            let set = name_of("aff", &format!("{kind}/{id}/{seconds}"));
            let protocol = route.protocol.keyword();
            let remember = format!("update @{set} {{ ip saddr }}");
            let lead = format!("meta l4proto {protocol} dnat to {pod}");
            self.chains.insert(chain.clone(), vec![remember, lead]);
            let declared = format!("type ipv4_addr ; flags dynamic,timeout ; timeout {seconds}s ;");
            self.sets.insert(set.clone(), declared);
            rules.push(format!("ip saddr @{set} goto {chain}"));
            choices.push(format!("{n} : goto {chain}"));
        }
        rules.push(format!("numgen random mod {} vmap {{ {} }}", pods.len(), choices.join(", ")));
        rules
    }

    /// A pod that is led to itself must see another source, or it would answer itself directly.
    fn hairpins(&mut self, pods: &[SocketAddrV4]) {
        let ips: BTreeSet<&Ipv4Addr> = pods.iter().map(SocketAddrV4::ip).collect();
        for ip in ips {
            self.set("hairpins", format!("{ip} . {ip}"), String::new());
        }
    }
}

/// A node without pods of a Service stays silent about it, so that a balancer in front tries another.
fn absent(route: &Route) -> &'static str {
    match route.external {
        External::Local(_) if !route.internal.is_empty() => "goto drop-it",
        _ => "goto refuse",
    }
}

fn address_key(route: &Route, ip: Ipv4Addr) -> String {
    format!("{ip} . {} . {}", route.protocol.keyword(), route.port)
}

fn at_random(route: &Route, pods: &[SocketAddrV4]) -> String {
    let protocol = route.protocol.keyword();
    if let [pod] = pods {
        return format!("meta l4proto {protocol} dnat to {pod}");
    }
    let mut choices = String::new();
    for (n, pod) in pods.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        let _ = write!(choices, "{comma}{n} : {} . {}", pod.ip(), pod.port());
    }
    format!(
        "meta l4proto {protocol} dnat ip addr . port to numgen random mod {} map {{ {choices} }}",
        pods.len()
    )
}
