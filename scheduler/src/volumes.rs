//! The rules about volumes, prepared together for one pod that has claims. Most pods have none, and pay nothing.

use crate::diagnosis::Rejection;
use crate::name::ClaimKey;
use crate::plugins::node_volume_limits::NodeVolumeLimits;
use crate::plugins::volume_binding::VolumeBinding;
use crate::plugins::volume_restrictions::VolumeRestrictions;
use crate::plugins::volume_zone::VolumeZone;
use crate::plugins::{Filter, Plugin};
use crate::pod::Shape;
use crate::snapshot::{Slot, Snapshot};
use crate::storage::Fate;

/// The rules, in the order in which a node is asked.
pub struct VolumeRules<'a> {
    restrictions: VolumeRestrictions,
    limits: NodeVolumeLimits<'a>,
    binding: VolumeBinding<'a>,
    zone: VolumeZone<'a>,
}

impl<'a> VolumeRules<'a> {
    /// `None` for a pod without claims.
    pub fn new(snapshot: &'a Snapshot, shape: &Shape) -> Option<Self> {
        (!shape.claims.is_empty()).then(|| VolumeRules {
            restrictions: VolumeRestrictions::new(snapshot, shape),
            limits: NodeVolumeLimits::new(snapshot, shape),
            binding: VolumeBinding::new(snapshot, shape),
            zone: VolumeZone::new(snapshot, shape),
        })
    }

    /// Whether none objects to the node.
    pub fn passes(&self, slot: Slot) -> bool {
        self.filters().into_iter().all(|rule| rule.passes(slot))
    }

    /// The rules.
    pub fn filters(&self) -> [&dyn Filter; 4] {
        [&self.restrictions, &self.limits, &self.binding, &self.zone]
    }

    /// What keeps the pod from every node; told before any rule about nodes.
    pub fn problem(&self) -> Option<Rejection> {
        let problem = self.binding.problem()?;
        Some(Rejection { plugin: Plugin::VolumeBinding, reasons: vec![problem] })
    }
}

/// What becomes of the unbound claims of a pod that comes to this node, which takes it.
pub fn fates(snapshot: &Snapshot, shape: &Shape, slot: Slot) -> Vec<(ClaimKey, Fate)> {
    if shape.claims.is_empty() {
        return Vec::new();
    }
    VolumeBinding::new(snapshot, shape).fates(slot).unwrap_or_default()
}
