//! Rejects every node while another pod has a claim that only one pod may use (`ReadWriteOncePod`).

use super::{Filter, Plugin, Reason};
use crate::pod::Shape;
use crate::snapshot::{Slot, Snapshot};

/// The rule, prepared for one pod.
pub struct VolumeRestrictions {
    in_use: bool,
}

impl VolumeRestrictions {
    /// Counts who uses the pod's claims.
    pub fn new(snapshot: &Snapshot, shape: &Shape) -> Self {
        let exclusive = |key| snapshot.storage().claim(key).is_some_and(|claim| claim.exclusive);
        let in_use = |key| snapshot.users(key) > 0;
        VolumeRestrictions {
            in_use: shape.needs.profile.filters(Plugin::VolumeRestrictions)
                && shape.claims.iter().any(|used| exclusive(&used.key) && in_use(&used.key)),
        }
    }
}

impl Filter for VolumeRestrictions {
    fn plugin(&self) -> Plugin {
        Plugin::VolumeRestrictions
    }

    fn passes(&self, _: Slot) -> bool {
        !self.in_use
    }

    fn reasons(&self, _: Slot) -> Vec<Reason> {
        self.in_use.then_some(Reason::ReadWriteOncePod).into_iter().collect()
    }
}
