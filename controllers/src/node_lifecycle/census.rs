//! How the nodes of each zone are, counted as they change: when thousands of nodes fall silent at once, each of them
//! asks how its zone is.
//!
//! What always holds: the counts are those of all nodes as they were last told ([`Census::observe`], by the cache's
//! changes) and last heard of ([`Census::heard`], by their looks). Time makes a node late without any change, so those
//! that are heard of stand in the order of the moments at which they will be late.

use super::{NodeTimes, Zone, ZoneState, ready_of, zone::Health, zone_of};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// The counts; clones are the same ones.
#[derive(Clone)]
pub struct Census(Arc<Mutex<Counts>>);

struct Counts {
    times: NodeTimes,
    nodes: HashMap<String, Member>,
    zones: BTreeMap<Zone, Health>,
    states: BTreeMap<Zone, ZoneState>,
    /// The states that nodes were last woken for.
    told: BTreeMap<Zone, ZoneState>,
    /// When nodes that are heard of will be late.
    late_from: BTreeSet<(Timestamp, String)>,
    /// Nodes that were visited, for tests.
    #[cfg(test)]
    visits: usize,
}

#[derive(Clone, PartialEq)]
struct Member {
    zone: Zone,
    /// None until it has reported.
    ready: Option<bool>,
    /// When it will be late; none if it has never been looked at.
    late_from: Option<Timestamp>,
    is_late: bool,
}

impl Census {
    /// Of no nodes yet.
    pub fn new(times: NodeTimes) -> Census {
        Census(Arc::new(Mutex::new(Counts {
            times,
            nodes: HashMap::new(),
            zones: BTreeMap::new(),
            states: BTreeMap::new(),
            told: BTreeMap::new(),
            late_from: BTreeSet::new(),
            #[cfg(test)]
            visits: 0,
        })))
    }

    /// Learns how a node is now; none if it is gone. True if some zone's state isn't what nodes were last woken for.
    pub fn observe(&self, name: &str, node: Option<&Node>) -> bool {
        let mut counts = self.0.lock();
        let known = counts.nodes.get(name).cloned();
        let next = node.map(|node| Member {
            zone: zone_of(node),
            ready: ready_of(node).map(|status| status == "True"),
            late_from: known.as_ref().and_then(|known| known.late_from),
            is_late: known.as_ref().is_some_and(|known| known.is_late),
        });
        if known == next {
            return false;
        }
        counts.replace(name, next);
        counts.judge();
        let news = counts.states != counts.told;
        counts.told = counts.states.clone();
        news
    }

    /// Notes that a node was heard of, and will be late at `late_from`.
    pub fn heard(&self, name: &str, late_from: Timestamp, now: Timestamp) {
        let mut counts = self.0.lock();
        let Some(known) = counts.nodes.get(name).cloned() else { return };
        let was_late = known.is_late;
        let next = Member { late_from: Some(late_from), is_late: late_from <= now, ..known };
        let turned = next.is_late != was_late;
        counts.replace(name, Some(next));
        if turned {
            counts.judge();
        }
    }

    /// How `zone` is. A node whose moment has come is only late if `late_from` says so, too: what the cache shows
    /// of it may not have been looked at yet.
    pub fn state(
        &self,
        zone: &Zone,
        now: Timestamp,
        late_from: impl Fn(&str) -> Option<Timestamp>,
    ) -> ZoneState {
        let mut counts = self.0.lock();
        let mut turned = false;
        while let Some((_, name)) = counts.late_from.first().filter(|(from, _)| *from <= now).cloned() {
            let Some(known) = counts.nodes.get(&name).cloned() else { break };
            let from = late_from(&name).unwrap_or(now);
            let next = Member { late_from: Some(from), is_late: from <= now, ..known };
            turned |= next.is_late;
            counts.replace(&name, Some(next));
        }
        if turned {
            counts.judge();
        }
        counts.states.get(zone).copied().unwrap_or(ZoneState::Normal)
    }

    /// How often a node was visited since the last time that this was asked.
    #[cfg(test)]
    pub fn visits(&self) -> usize {
        std::mem::take(&mut self.0.lock().visits)
    }
}

impl Counts {
    /// Takes a node's old state out of the counts and puts its new one in.
    fn replace(&mut self, name: &str, next: Option<Member>) {
        #[cfg(test)]
        {
            self.visits += 1;
        }
        if let Some(known) = self.nodes.remove(name) {
            if let Some(from) = known.late_from {
                self.late_from.remove(&(from, name.to_owned()));
            }
            self.zones.entry(known.zone.clone()).and_modify(|health| known.taken_from(health));
        }
        self.zones.retain(|_, health| health.nodes > 0);
        let Some(next) = next else { return };
        next.added_to(self.zones.entry(next.zone.clone()).or_default());
        if let Some(from) = next.late_from.filter(|_| !next.is_late) {
            self.late_from.insert((from, name.to_owned()));
        }
        self.nodes.insert(name.to_owned(), next);
    }

    fn judge(&mut self) {
        self.states = ZoneState::of_all(&self.zones, &self.times);
    }
}

impl Member {
    fn added_to(&self, health: &mut Health) {
        health.nodes += 1;
        *self.place(health) += 1;
    }

    fn taken_from(&self, health: &mut Health) {
        health.nodes -= 1;
        *self.place(health) -= 1;
    }

    /// Overdue nodes count as silent before they are marked, or the first node of an outage would be evicted before
    /// the others are known to be silent, too.
    fn place<'a>(&self, health: &'a mut Health) -> &'a mut usize {
        match self.ready {
            Some(true) if !self.is_late => &mut health.ready,
            Some(_) => &mut health.silent,
            None => &mut health.unreported,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn node(zone: &str, ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"labels": {"topology.kubernetes.io/zone": zone}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .expect("a node")
    }

    fn census(nodes: usize) -> Census {
        let census = Census::new(NodeTimes::upstream());
        for number in 0..nodes {
            census.observe(&format!("n{number}"), Some(&node("a", "True")));
            census.heard(&format!("n{number}"), at(25), at(0));
        }
        census
    }

    fn state(census: &Census, second: i64) -> ZoneState {
        census.state(&zone_of(&node("a", "True")), at(second), |_| None)
    }

    #[test]
    fn time_alone_makes_nodes_late_and_a_sign_of_life_brings_them_back() {
        let census = census(10);
        assert_eq!(state(&census, 24), ZoneState::Normal);
        (0..4).for_each(|number| census.heard(&format!("n{number}"), at(49), at(24)));
        assert_eq!(state(&census, 25), ZoneState::Stopped, "six of ten are late");
        assert_eq!(state(&census, 49), ZoneState::AllSilent);
        census.heard("n0", at(75), at(50));
        assert_eq!(state(&census, 50), ZoneState::Stopped);
        (1..10).for_each(|number| census.heard(&format!("n{number}"), at(75), at(50)));
        assert_eq!(state(&census, 50), ZoneState::Normal);
    }

    #[test]
    fn what_was_not_looked_at_yet_counts() {
        let census = census(10);
        let renewed = |_: &str| Some(at(60));
        let zone = zone_of(&node("a", "True"));
        assert_eq!(census.state(&zone, at(30), renewed), ZoneState::Normal);
        assert_eq!(state(&census, 59), ZoneState::Normal, "they have until then");
        assert_eq!(state(&census, 60), ZoneState::AllSilent);
    }

    #[test]
    fn nodes_are_woken_when_a_zone_turns() {
        let census = census(4);
        let told: Vec<bool> =
            (0..4).map(|number| census.observe(&format!("n{number}"), Some(&node("a", "Unknown")))).collect();
        assert_eq!(told, [false, false, true, true], "partly silent with the third, all with the last");
        assert!(!census.observe("n3", Some(&node("a", "False"))), "it stays silent");
        assert!(census.observe("n3", Some(&node("b", "True"))), "another zone is well");
        assert!(census.observe("n3", None), "it is gone");
    }

    #[test]
    fn nobody_is_visited_for_others() {
        let census = census(1000);
        census.visits();
        for number in 0..1000 {
            state(&census, 30);
            census.observe(&format!("n{number}"), Some(&node("a", "Unknown")));
        }
        assert_eq!(census.visits(), 2000, "once when it is late, once when it is marked");
    }
}
