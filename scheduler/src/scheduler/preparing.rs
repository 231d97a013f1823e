//! Pods whose node is chosen and whose claims have waited for that: the choice is written into the claims and volumes,
//! and the pod is bound once the binder, or a provisioner, has bound its claims.
//!
//! What always holds: such a pod is assumed on its node, and what is meant to become of its claims is known to the
//! rules ([`crate::storage::Storage::intend`]) until it has come true or the pod is given up; then the pod is tried
//! anew, wherever that leads.

use super::{BINDINGS_IN_FLIGHT, Effect, Scheduler};
use crate::name::{ClaimKey, NodeName, PodKey, PodUid, VolumeName};
use crate::plugins::Plugin;
use crate::resources::PODS;
use crate::snapshot::{Slot, Snapshot};
use crate::storage::{Fate, Storage};
use std::time::Instant;

/// A write that lets a claim go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimWrite {
    /// The claim is to be provisioned for that node.
    Select {
        /// The claim.
        claim: ClaimKey,
        /// Its incarnation; another one must not be touched.
        uid: Box<str>,
        /// Where to.
        node: NodeName,
    },
    /// The volume is to be that claim's.
    Give {
        /// The volume.
        volume: VolumeName,
        /// Its incarnation.
        uid: Box<str>,
        /// The state in which it was free; in another one somebody may have taken it.
        version: Box<str>,
        /// The claim and its incarnation.
        claim: (ClaimKey, Box<str>),
        /// Nobody but us gave it away, so the binder may take it back.
        ours: bool,
    },
}

/// A pod whose claims aren't bound yet.
#[derive(Debug)]
pub(super) struct Preparing {
    uid: PodUid,
    pub(super) node: NodeName,
    pub(super) claims: Vec<Expected>,
    /// The writes are accepted, or none was needed.
    pub(super) written: bool,
    /// When it is given up.
    pub(super) until: Instant,
}

/// A claim and what should become of it.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) claim: ClaimKey,
    pub(super) fate: Fate,
    /// The choice has been seen at the claim; if it vanishes then, somebody took it back.
    seen: bool,
}

/// How far a pod's claims are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Bound,
    Waits,
    Failed,
}

impl Scheduler {
    /// Begins to get the claims of an assumed pod bound, which is given up at `until`.
    pub(super) fn prepare(
        &mut self,
        pod: PodKey,
        uid: PodUid,
        node: NodeName,
        fates: Vec<(ClaimKey, Fate)>,
        until: Instant,
    ) -> Option<Effect> {
        let storage = self.snapshot.storage_mut();
        let claims: Vec<ClaimWrite> =
            fates.iter().filter_map(|(claim, fate)| write(storage, claim, fate)).collect();
        for (claim, fate) in &fates {
            storage.intend(&pod, claim, fate.clone());
        }
        let expected = fates.into_iter().map(|(claim, fate)| Expected { claim, fate, seen: false });
        let preparing = Preparing {
            uid: uid.clone(),
            node: node.clone(),
            claims: expected.collect(),
            written: claims.is_empty(),
            until,
        };
        self.preparing.insert(pod.clone(), preparing);
        if claims.is_empty() {
            return None;
        }
        self.in_flight += 1;
        Some(Effect::Prepare { pod, uid, node, claims })
    }

    /// The writes for a pod's claims are answered.
    pub(super) fn prepared(&mut self, pod: &PodKey, uid: &PodUid, accepted: bool, now: Instant) {
        self.in_flight = self.in_flight.checked_sub(1).expect("each write answers once");
        let Some(preparing) = self.preparing.get_mut(pod).filter(|one| one.uid == *uid) else {
            return; // It is gone, or somebody else has bound it.
        };
        preparing.written = true;
        if !accepted {
            self.give_up(pod, now);
        }
    }

    /// Binds pods whose claims are bound, and gives those up whose claims can't be.
    pub(super) fn bind_prepared(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        let pods: Vec<PodKey> = self.preparing.keys().cloned().collect();
        for pod in pods {
            match self.progress(&pod, now) {
                Progress::Bound if self.in_flight < BINDINGS_IN_FLIGHT => {
                    let assumed = self.snapshot.pod(&pod).cloned();
                    let Some((assumed, ended)) = assumed.zip(self.end_preparing(&pod)) else { continue };
                    effects.push(self.bind(&assumed, ended.node));
                }
                Progress::Bound | Progress::Waits => {}
                Progress::Failed => self.give_up(&pod, now),
            }
        }
        effects
    }

    fn progress(&mut self, pod: &PodKey, now: Instant) -> Progress {
        let Some(preparing) = self.preparing.get_mut(pod).filter(|one| one.written) else {
            return Progress::Waits;
        };
        let slot = self.snapshot.slot(&preparing.node);
        let node = slot.and_then(|slot| Some((slot, self.snapshot.node(slot)?.clone())));
        let Some((slot, node)) = node else { return Progress::Failed };
        let is_overfull = |snapshot: &mut Snapshot| is_overfull(snapshot, pod, slot);
        if self.reservations.seen_on(&mut self.snapshot, slot, |_| false, is_overfull) {
            return Progress::Failed; // Somebody else has bound a pod there meanwhile.
        }
        let reached = |storage: &Storage, name: &VolumeName| {
            storage.volume(name).map(|volume| volume.is_reached_from(&node.name, &node.labels))
        };
        let storage = self.snapshot.storage();
        let all = preparing.claims.iter_mut().map(|claim| claim.progress(storage, reached));
        match all.max() {
            Some(Progress::Waits) if now >= preparing.until => Progress::Failed,
            furthest => furthest.unwrap_or(Progress::Bound),
        }
    }

    /// The pod is tried anew, after a pause.
    fn give_up(&mut self, pod: &PodKey, now: Instant) {
        if let Some(taken) = self.forget(pod).and_then(|assumed| assumed.retry) {
            self.queue.retry(taken, now);
        }
    }

    /// Nothing is expected of the pod's claims any more.
    pub(super) fn end_preparing(&mut self, pod: &PodKey) -> Option<Preparing> {
        let preparing = self.preparing.remove(pod)?;
        let storage = self.snapshot.storage_mut();
        preparing.claims.iter().for_each(|one| storage.forget_intent(pod, &one.claim));
        // What was meant for its claims is free for others.
        self.changes.storage();
        Some(preparing)
    }
}

impl Expected {
    fn progress(
        &mut self,
        storage: &Storage,
        reached: impl Fn(&Storage, &VolumeName) -> Option<bool>,
    ) -> Progress {
        let Some(claim) = storage.claim(&self.claim).filter(|claim| !claim.lost && !claim.terminating) else {
            return Progress::Failed;
        };
        if let Some(volume) = claim.volume.as_ref().filter(|_| claim.bound) {
            return match reached(storage, volume) {
                None => Progress::Waits,
                Some(true) => Progress::Bound,
                Some(false) => Progress::Failed,
            };
        }
        let taken_back = match &self.fate {
            Fate::Node(node) => {
                let selected = claim.selected.as_ref() == Some(node);
                self.seen |= selected;
                self.seen && !selected
            }
            Fate::Volume(name) => {
                let given = storage.volume(name).map(|volume| claim.is_named_by(volume));
                self.seen |= given == Some(true);
                given.is_none() || self.seen && given == Some(false)
            }
        };
        if taken_back { Progress::Failed } else { Progress::Waits }
    }
}

/// Whether the node, which has the pod, has less than nothing left of something that the pod asks for. Of what it
/// asks nothing of, a node may have less than nothing, as for the filters.
fn is_overfull(snapshot: &Snapshot, pod: &PodKey, slot: Slot) -> bool {
    let Some(pod) = snapshot.pod(pod) else { return false };
    let mut asked = pod.shape.needs.must_fit().map(|(resource, _)| resource);
    let lacks = |resource: &str| snapshot.column(resource).left(slot) < 0;
    asked.any(lacks) || pod.shape.needs.profile.filters(Plugin::NodeResourcesFit) && lacks(PODS)
}

/// What must be written so that the claim comes to its fate; `None` if it is written.
fn write(storage: &Storage, claim: &ClaimKey, fate: &Fate) -> Option<ClaimWrite> {
    let claim = storage.claim(claim)?;
    match fate {
        Fate::Node(node) => (claim.selected.as_ref() != Some(node)).then(|| ClaimWrite::Select {
            claim: claim.key.clone(),
            uid: claim.uid.clone(),
            node: node.clone(),
        }),
        Fate::Volume(name) => {
            let volume = storage.volume(name)?;
            let given = volume.claim.as_ref().is_some_and(|(_, uid)| uid.is_some());
            (!given).then(|| ClaimWrite::Give {
                volume: name.clone(),
                uid: volume.uid.clone(),
                version: volume.version.clone(),
                claim: (claim.key.clone(), claim.uid.clone()),
                ours: volume.claim.is_none(),
            })
        }
    }
}
