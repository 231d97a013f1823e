//! Rejects nodes that would have more volumes of one driver than they say that they take (their CSINode).
//!
//! Counted are the volumes of the pods that are there; upstream adds what is attached for nobody any more.

use super::{Filter, Plugin, Reason};
use crate::pod::{PodInfo, Shape};
use crate::snapshot::{Slot, Snapshot};
use crate::storage::Attachment;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The rule, prepared for one pod.
pub struct NodeVolumeLimits<'a> {
    snapshot: &'a Snapshot,
    wanted: BTreeSet<Attachment>,
}

impl<'a> NodeVolumeLimits<'a> {
    /// Finds out what the pod will attach.
    pub fn new(snapshot: &'a Snapshot, shape: &Shape) -> Self {
        let filters = shape.needs.profile.filters(Plugin::NodeVolumeLimits);
        let wanted = attachments(snapshot, shape).filter(|_| filters).collect();
        NodeVolumeLimits { snapshot, wanted }
    }

    fn exceeds(&self, slot: Slot, driver: &str) -> bool {
        let node = self.snapshot.node(slot);
        let Some(limit) = node.and_then(|node| self.snapshot.storage().limit(&node.name, driver)) else {
            return false;
        };
        let here = self.snapshot.pods_on(slot);
        let here = here.flat_map(|pod: &Arc<PodInfo>| attachments(self.snapshot, &pod.shape));
        let is_of = |one: &Attachment| *one.driver == *driver;
        let attached: BTreeSet<Attachment> = here.filter(is_of).collect();
        let more = self.wanted.iter().filter(|one| is_of(one) && !attached.contains(one)).count();
        more > 0 && attached.len() + more > limit
    }
}

fn attachments(snapshot: &Snapshot, shape: &Shape) -> impl Iterator<Item = Attachment> {
    shape.claims.iter().filter_map(|used| snapshot.storage().attachment(&used.key))
}

impl Filter for NodeVolumeLimits<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodeVolumeLimits
    }

    fn passes(&self, slot: Slot) -> bool {
        !self.wanted.iter().any(|one| self.exceeds(slot, &one.driver))
    }

    fn reasons(&self, slot: Slot) -> Vec<Reason> {
        if self.passes(slot) { Vec::new() } else { vec![Reason::TooManyVolumes] }
    }
}
