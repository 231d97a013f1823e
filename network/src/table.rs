//! A table of the kernel as a value, and the script that leads from one to the next.
//!
//! nftables takes a script whole or not at all, so no packet ever sees half of a change; and what didn't
//! change is not touched, so clients that are remembered stay so, and a change costs what it changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// What is in a map or set: element to value, which is empty in a set.
pub type Elements = BTreeMap<String, String>;

/// The part of a table that changes. Around it is a frame that doesn't: hooks, and the maps they look into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Chains that rules jump to, by name, with their rules in order.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Sets beside those of the frame: name to what is declared of them.
    pub sets: BTreeMap<String, String>,
    /// Elements of maps and sets, the frame's or declared ones, by name.
    pub elements: BTreeMap<String, Elements>,
}

impl Table {
    /// Puts an element into a map; a set's have an empty value.
    pub fn set(&mut self, map: &str, key: String, value: String) {
        self.elements.entry(map.to_owned()).or_default().insert(key, value);
    }
}

/// Short enough for the kernel and the same for the same id, in every process.
pub fn name_of(kind: &str, id: &str) -> String {
    let digest = Sha256::digest(id.as_bytes());
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{kind}-{hex}")
}

/// Takes a table away, if it is there.
pub fn removal(name: &str) -> String {
    // Adding first makes the deletion work when there is no table.
    format!("add table ip {name}\ndelete table ip {name}\n")
}

/// What must be said to bring the table of this name from `old` to `new`; empty if they are equal.
///
/// New things come first, then references to them, and last goes what nothing refers to any more.
pub fn between(name: &str, old: &Table, new: &Table) -> String {
    let mut script = Script { name, text: String::new() };
    for (set, declared) in missing(&old.sets, &new.sets) {
        script.say("add set", set, &format!(" {{ {declared} }}"));
    }
    script.chains(old, new);
    let none = Elements::new();
    for map in new.elements.keys().chain(missing(&new.elements, &old.elements).map(|(map, _)| map)) {
        let (before, after) = (old.elements.get(map), new.elements.get(map));
        script.elements(map, before.unwrap_or(&none), after.unwrap_or(&none));
    }
    script.gone(old, new);
    script.text
}

struct Script<'a> {
    name: &'a str,
    text: String,
}

impl Script<'_> {
    fn say(&mut self, verb: &str, what: &str, rest: &str) {
        let _ = writeln!(self.text, "{verb} ip {} {what}{rest}", self.name);
    }

    fn chains(&mut self, old: &Table, new: &Table) {
        // All of them before any rule, because rules refer to them.
        for (chain, _) in missing(&old.chains, &new.chains) {
            self.say("add chain", chain, "");
        }
        for (chain, rules) in &new.chains {
            if old.chains.get(chain) == Some(rules) {
                continue;
            }
            self.say("flush chain", chain, "");
            rules.iter().for_each(|rule| self.say("add rule", chain, &format!(" {rule}")));
        }
    }

    fn elements(&mut self, map: &str, old: &Elements, new: &Elements) {
        let stale = old.iter().filter(|(key, value)| new.get(*key) != Some(*value));
        self.list("delete element", map, stale.map(|(key, _)| key.clone()).collect());
        let fresh = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
        self.list("add element", map, fresh.map(|(key, value)| element(key, value)).collect());
    }

    fn list(&mut self, verb: &str, map: &str, elements: Vec<String>) {
        if !elements.is_empty() {
            self.say(verb, map, &format!(" {{ {} }}", elements.join(", ")));
        }
    }

    fn gone(&mut self, old: &Table, new: &Table) {
        let chains: Vec<&String> = missing(&new.chains, &old.chains).map(|(chain, _)| chain).collect();
        // Emptied first: they may refer to each other.
        chains.iter().for_each(|chain| self.say("flush chain", chain, ""));
        chains.iter().for_each(|chain| self.say("delete chain", chain, ""));
        for (set, _) in missing(&new.sets, &old.sets) {
            self.say("delete set", set, "");
        }
    }
}

fn element(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key} : {value}") }
}

/// What the second has and the first doesn't.
fn missing<'a, V>(
    from: &'a BTreeMap<String, V>,
    within: &'a BTreeMap<String, V>,
) -> impl Iterator<Item = (&'a String, &'a V)> {
    within.iter().filter(|(key, _)| !from.contains_key(*key))
}
