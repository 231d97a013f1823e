//! An isolation laid out as one nftables table.
//!
//! A packet costs a look-up of its source and one of its destination; those who may do the same share a chain. A
//! pod that comes or goes changes elements, not rules.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::plan::{Isolation, Peer, Ports, Rule, Rules};
use crate::table::{Elements, Table, name_of};

/// What the table is called.
pub const TABLE: &str = "amoeba-policies";

/// What never changes. A pod may always speak to itself, also by a Service's address.
pub const FRAME: &str = "\
add table ip amoeba-policies
add map ip amoeba-policies sources { type ipv4_addr : verdict ; }
add map ip amoeba-policies destinations { type ipv4_addr : verdict ; }
add set ip amoeba-policies selves { type ipv4_addr . ipv4_addr ; }
add chain ip amoeba-policies forward { type filter hook forward priority filter ; policy accept ; }
add rule ip amoeba-policies forward ct state established,related accept
add rule ip amoeba-policies forward ip saddr . ip daddr @selves accept
add rule ip amoeba-policies forward ip saddr vmap @sources
add rule ip amoeba-policies forward ip daddr vmap @destinations
";

/// The table of an isolation.
pub fn table(isolation: &Isolation) -> Table {
    let mut table = Table::default();
    direction(&mut table, isolation, &isolation.egress, ["out", "sources", "daddr"]);
    direction(&mut table, isolation, &isolation.ingress, ["in", "destinations", "saddr"]);
    for ip in isolation.egress.keys().chain(isolation.ingress.keys()) {
        table.set("selves", format!("{ip} . {ip}"), String::new());
    }
    table
}

fn direction(
    table: &mut Table,
    isolation: &Isolation,
    isolated: &BTreeMap<Ipv4Addr, Rules>,
    [kind, map, other]: [&str; 3],
) {
    for (ip, rules) in isolated {
        let chain = name_of(kind, &format!("{rules:?}"));
        table.set(map, ip.to_string(), format!("jump {chain}"));
        if table.chains.contains_key(&chain) {
            continue;
        }
        rules.iter().for_each(|rule| declare(table, isolation, rule));
        let mut lines: Vec<String> = rules.iter().map(|rule| line(rule, other)).collect();
        lines.push("drop".to_owned());
        table.chains.insert(chain, lines);
    }
}

/// The set of the pods that a rule selects.
fn declare(table: &mut Table, isolation: &Isolation, rule: &Rule) {
    let Peer::Selected(id) = &rule.peer else { return };
    let set = set_name(id);
    table.sets.insert(set.clone(), "type ipv4_addr ;".to_owned());
    let pods = isolation.selected.get(id).into_iter().flatten();
    let elements: Elements = pods.map(|ip| (ip.to_string(), String::new())).collect();
    if !elements.is_empty() {
        table.elements.insert(set, elements);
    }
}

fn set_name(id: &str) -> String {
    name_of("pods", id)
}

/// A rule ends its chain for what it allows; the other direction has its say afterwards.
fn line(rule: &Rule, other: &str) -> String {
    let mut words = match &rule.peer {
        Peer::Anyone => String::new(),
        Peer::Selected(id) => format!("ip {other} @{} ", set_name(id)),
        Peer::Block(block, except) => {
            let beside: String = except.iter().map(|block| format!("ip {other} != {block} ")).collect();
            format!("ip {other} {block} {beside}")
        }
    };
    if let Some(ports) = &rule.ports {
        let ports: Vec<String> = merged(ports).into_iter().map(port).collect();
        words.push_str(&format!("meta l4proto . th dport {{ {} }} ", ports.join(", ")));
    }
    words + "return"
}

/// The kernel refuses ranges of one set that overlap.
fn merged<'a>(ports: impl IntoIterator<Item = &'a Ports>) -> Vec<Ports> {
    let mut merged: Vec<Ports> = Vec::new();
    for next in ports {
        match merged.last_mut() {
            Some(last) if last.protocol == next.protocol && next.first <= last.last => {
                last.last = last.last.max(next.last);
            }
            _ => merged.push(*next),
        }
    }
    merged
}

fn port(ports: Ports) -> String {
    if ports.first == ports.last {
        return format!("{} . {}", ports.protocol.keyword(), ports.first);
    }
    format!("{} . {}-{}", ports.protocol.keyword(), ports.first, ports.last)
}
