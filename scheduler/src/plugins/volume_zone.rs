//! Rejects nodes that say that they are in another zone or region than a bound volume of the pod says that it is in.

use super::{Filter, Plugin, Reason};
use crate::pod::Shape;
use crate::snapshot::{Slot, Snapshot};
use crate::storage::VolumeInfo;

/// The rule, prepared for one pod.
pub struct VolumeZone<'a> {
    snapshot: &'a Snapshot,
    volumes: Vec<&'a VolumeInfo>,
}

impl<'a> VolumeZone<'a> {
    /// Finds the volumes that say where they are.
    pub fn new(snapshot: &'a Snapshot, shape: &Shape) -> Self {
        let storage = snapshot.storage();
        let claims = shape.claims.iter().filter_map(|used| storage.claim(&used.key));
        let volumes = claims.filter_map(|claim| storage.volume(claim.volume.as_ref()?));
        let filters = shape.needs.profile.filters(Plugin::VolumeZone);
        let volumes = volumes.filter(|volume| filters && !volume.places.is_empty()).collect();
        VolumeZone { snapshot, volumes }
    }
}

impl Filter for VolumeZone<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::VolumeZone
    }

    fn passes(&self, slot: Slot) -> bool {
        let node = self.snapshot.node(slot);
        node.is_some_and(|node| self.volumes.iter().all(|volume| volume.is_in_place(&node.labels)))
    }

    fn reasons(&self, slot: Slot) -> Vec<Reason> {
        if self.passes(slot) { Vec::new() } else { vec![Reason::VolumeZone] }
    }
}
