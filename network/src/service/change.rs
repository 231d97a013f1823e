//! The script that leads from one table to the next. nftables takes a script whole or not at all, so no
//! packet ever sees half of a change; and what didn't change is not touched, so clients that are
//! remembered stay so, and a change costs what it changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::table::{Elements, FRAME, Table};
use crate::pod::addresses::Range;
use crate::pod::namespace::BRIDGE;

/// Forgets whatever an earlier run left, and lays out the whole table. Pods, which have addresses of
/// `cluster`, speak to the world outside in the machine's name.
pub fn anew(table: &Table, cluster: Range) -> String {
    let outside = format!(
        "add rule ip amoeba nat-postrouting ip saddr {cluster} ip daddr != {cluster} oifname != {BRIDGE} \
         masquerade fully-random\n"
    );
    // Adding first makes the deletion work when there is no table.
    format!("{REMOVE}{FRAME}{outside}{}", between(&Table::default(), table))
}

/// Takes the table away.
pub const REMOVE: &str = "add table ip amoeba\ndelete table ip amoeba\n";

/// What must be said to come from `old` to `new`; empty if they are equal.
///
/// New things come first, then references to them, and last goes what nothing refers to any more.
pub fn between(old: &Table, new: &Table) -> String {
    let mut script = String::new();
    affinities(&mut script, old, new);
    chains(&mut script, old, new);
    for map in new.elements.keys().chain(old.elements.keys().filter(|map| !new.elements.contains_key(*map))) {
        elements(&mut script, map, old.elements.get(map), new.elements.get(map));
    }
    gone(&mut script, old, new);
    script
}

fn affinities(script: &mut String, old: &Table, new: &Table) {
    for (set, seconds) in missing(&old.affinities, &new.affinities) {
        line(
            script,
            &format!(
                "add set ip amoeba {set} {{ type ipv4_addr ; flags dynamic,timeout ; timeout {seconds}s ; }}"
            ),
        );
    }
}

fn chains(script: &mut String, old: &Table, new: &Table) {
    // All of them before any rule, because rules refer to them.
    for (chain, _) in missing(&old.chains, &new.chains) {
        line(script, &format!("add chain ip amoeba {chain}"));
    }
    for (chain, rules) in &new.chains {
        if old.chains.get(chain) == Some(rules) {
            continue;
        }
        line(script, &format!("flush chain ip amoeba {chain}"));
        rules.iter().for_each(|rule| line(script, &format!("add rule ip amoeba {chain} {rule}")));
    }
}

fn elements(script: &mut String, map: &str, old: Option<&Elements>, new: Option<&Elements>) {
    let none = Elements::new();
    let (old, new) = (old.unwrap_or(&none), new.unwrap_or(&none));
    let stale = old.iter().filter(|(key, value)| new.get(*key) != Some(*value)).map(|(key, _)| key.clone());
    say(script, "delete", map, stale.collect());
    let fresh = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
    say(script, "add", map, fresh.map(|(key, value)| element(key, value)).collect());
}

fn element(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key} : {value}") }
}

fn say(script: &mut String, verb: &str, map: &str, elements: Vec<String>) {
    if !elements.is_empty() {
        line(script, &format!("{verb} element ip amoeba {map} {{ {} }}", elements.join(", ")));
    }
}

fn gone(script: &mut String, old: &Table, new: &Table) {
    let chains: Vec<&String> = missing(&new.chains, &old.chains).map(|(chain, _)| chain).collect();
    // Emptied first: they may refer to each other.
    chains.iter().for_each(|chain| line(script, &format!("flush chain ip amoeba {chain}")));
    chains.iter().for_each(|chain| line(script, &format!("delete chain ip amoeba {chain}")));
    for (set, _) in missing(&new.affinities, &old.affinities) {
        line(script, &format!("delete set ip amoeba {set}"));
    }
}

/// What the second has and the first doesn't.
fn missing<'a, V>(
    from: &'a BTreeMap<String, V>,
    within: &'a BTreeMap<String, V>,
) -> impl Iterator<Item = (&'a String, &'a V)> {
    within.iter().filter(|(key, _)| !from.contains_key(*key))
}

fn line(script: &mut String, text: &str) {
    let _ = writeln!(script, "{text}");
}
