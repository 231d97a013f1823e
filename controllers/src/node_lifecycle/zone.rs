//! The zone brake: how fast pods may be evicted, given how many nodes of a zone are silent.

use super::{NodeTimes, ready_of};
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

/// Ready and silent nodes of a zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// Nodes that are ready.
    pub ready: usize,
    /// All others.
    pub silent: usize,
}

/// The zone of `node`.
pub fn zone_of(node: &Node) -> Zone {
    let label = |name: &str| node.labels().get(name).cloned().unwrap_or_default();
    Zone(format!("{}:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone")))
}

impl Health {
    /// The health of each zone. A node that has not reported yet is neither ready nor silent; one that is
    /// overdue counts as silent before it is marked, or the first node of an outage would be evicted
    /// before the others are known to be silent, too.
    pub fn by_zone<'a>(
        nodes: impl IntoIterator<Item = &'a Node>,
        is_overdue: impl Fn(&Node) -> bool,
    ) -> BTreeMap<Zone, Health> {
        let mut zones: BTreeMap<Zone, Health> = BTreeMap::new();
        for node in nodes {
            let health = zones.entry(zone_of(node)).or_default();
            match ready_of(node) {
                Some("True") if !is_overdue(node) => health.ready += 1,
                Some(_) => health.silent += 1,
                None => {}
            }
        }
        zones
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
    /// The state of `zone` among all zones.
    pub fn of(zone: &Zone, zones: &BTreeMap<Zone, Health>, times: &NodeTimes) -> ZoneState {
        let mut reporting = zones.values().filter(|health| health.ready + health.silent > 0).peekable();
        if reporting.peek().is_some() && reporting.all(|health| health.is_full_outage()) {
            return ZoneState::AllSilent;
        }
        let health = zones.get(zone).copied().unwrap_or_default();
        if health.is_full_outage() || !health.is_partial_outage(times) {
            ZoneState::Normal
        } else if health.ready + health.silent > times.large_zone {
            ZoneState::Slow
        } else {
            ZoneState::Stopped
        }
    }

    /// Evictions a second.
    pub fn rate(self, times: &NodeTimes) -> f64 {
        match self {
            ZoneState::Normal => times.eviction_rate,
            ZoneState::Slow => times.secondary_eviction_rate,
            ZoneState::Stopped | ZoneState::AllSilent => 0.0,
        }
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
                (Zone(number.to_string()), Health { ready: *ready, silent: *silent })
            })
            .collect();
        ZoneState::of(&Zone(of.to_string()), &zones, &NodeTimes::upstream())
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
