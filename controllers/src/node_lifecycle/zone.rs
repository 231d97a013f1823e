//! The zone brake: how fast pods may be evicted, given how many nodes of a zone are silent.

use super::NodeTimes;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Region and zone of a node; nodes without labels form one zone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(pub String);

/// How fast pods of a zone may be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneState {
    /// At the normal rate.
    Normal,
    /// At the secondary rate: a big zone, mostly silent.
    Slow,
    /// Not at all: a small zone, mostly silent.
    Stopped,
    /// Not at all, and evictions under way end: every zone is silent, so the fault is likely ours.
    AllSilent,
}

/// The nodes of a zone: all of them, and how many of them are what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// All.
    pub nodes: usize,
    /// Nodes that are ready.
    pub ready: usize,
    /// Nodes that have reported, and aren't.
    pub silent: usize,
    /// Nodes that haven't reported yet.
    pub unreported: usize,
}

/// The zone of `node`.
pub fn zone_of(node: &Node) -> Zone {
    let label = |name: &str| node.labels().get(name).cloned().unwrap_or_default();
    Zone(format!("{}:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone")))
}

impl Health {
    /// The state of a zone, as far as it doesn't depend on the others.
    fn state(self, times: &NodeTimes) -> ZoneState {
        if self.is_full_outage() || !self.is_partial_outage(times) {
            ZoneState::Normal
        } else if self.ready + self.silent > times.large_zone {
            ZoneState::Slow
        } else {
            ZoneState::Stopped
        }
    }

    fn is_full_outage(self) -> bool {
        self.ready == 0 && self.silent > 0
    }

    fn is_partial_outage(self, times: &NodeTimes) -> bool {
        // Upstream: two silent nodes are no outage, whatever their share.
        let total = (self.ready + self.silent) as f64;
        self.silent > 2 && self.silent as f64 / total >= times.unhealthy_zone
    }
}

impl ZoneState {
    /// The states of all zones.
    pub fn of_all(zones: &BTreeMap<Zone, Health>, times: &NodeTimes) -> BTreeMap<Zone, ZoneState> {
        let mut reporting = zones.values().filter(|health| health.ready + health.silent > 0).peekable();
        let all_silent = reporting.peek().is_some() && reporting.all(|health| health.is_full_outage());
        let state = |health: &Health| if all_silent { ZoneState::AllSilent } else { health.state(times) };
        zones.iter().map(|(zone, health)| (zone.clone(), state(health))).collect()
    }

    /// The time between two evictions; none if nobody may be evicted.
    pub fn pause(self, times: &NodeTimes) -> Option<SignedDuration> {
        let rate = match self {
            ZoneState::Normal => times.eviction_rate,
            ZoneState::Slow => times.secondary_eviction_rate,
            ZoneState::Stopped | ZoneState::AllSilent => 0.0,
        };
        (rate > 0.0).then(|| SignedDuration::from_secs_f64((1.0 / rate).min(1e9)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, NodeTimes, Zone, ZoneState};
    use std::collections::BTreeMap;

    fn state(of: usize, zones: &[(usize, usize)]) -> ZoneState {
        let zones: BTreeMap<Zone, Health> = zones
            .iter()
            .enumerate()
            .map(|(number, (ready, silent))| {
                let nodes = ready + silent;
                (Zone(number.to_string()), Health { nodes, ready: *ready, silent: *silent, unreported: 0 })
            })
            .collect();
        ZoneState::of_all(&zones, &NodeTimes::upstream())[&Zone(of.to_string())]
    }

    #[test]
    fn the_brake_works_by_share_and_size() {
        assert_eq!(state(0, &[(2, 1)]), ZoneState::Normal);
        assert_eq!(state(0, &[(1, 2)]), ZoneState::Normal, "two silent nodes are no outage");
        assert_eq!(state(0, &[(4, 6)]), ZoneState::Stopped);
        assert_eq!(state(0, &[(40, 60)]), ZoneState::Slow);
        assert_eq!(state(0, &[(0, 3)]), ZoneState::AllSilent);
        assert_eq!(state(0, &[(0, 1)]), ZoneState::AllSilent);
        assert_eq!(state(0, &[(0, 3), (3, 0)]), ZoneState::Normal, "one dead zone of two is evicted");
        assert_eq!(state(1, &[(0, 3), (3, 0)]), ZoneState::Normal);
        assert_eq!(state(0, &[(0, 3), (0, 0)]), ZoneState::AllSilent);
    }
}
