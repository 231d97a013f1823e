//! Rejects nodes from which the pod's bound volumes can't be reached, or where its unbound claims could get no volume;
//! and says for a node what would become of those claims.
//!
//! Claims of a class that waits for its first pod are bound by the pod's coming to a node: each gets the smallest
//! free volume that the node reaches, or else its provisioner makes one there. Everything else must be bound already.

use super::{Filter, Plugin, Reason};
use crate::name::{ClaimKey, NodeName};
use crate::pod::{ClaimUse, Shape};
use crate::selector::Labels;
use crate::snapshot::{Slot, Snapshot};
use crate::storage::{ClaimInfo, ClassInfo, Fate, Storage, VolumeInfo};

/// The rule, prepared for one pod.
pub struct VolumeBinding<'a> {
    snapshot: &'a Snapshot,
    /// Why no node is right, whatever it is like.
    problem: Option<Box<str>>,
    bound: Vec<&'a VolumeInfo>,
    /// A claim is bound to a volume that doesn't exist.
    misses_volume: bool,
    /// The smallest first, so that a small claim doesn't take what a large one needs.
    waiting: Vec<Waiting<'a>>,
}

/// A claim that is bound when its pod has a node.
struct Waiting<'a> {
    claim: &'a ClaimInfo,
    class: &'a ClassInfo,
    fate: Option<Fate>,
    /// Volumes that it may get, the best first.
    volumes: Vec<&'a VolumeInfo>,
}

/// What a claim is to its pod.
enum Standing<'a> {
    Bound,
    Waiting(Waiting<'a>),
}

impl<'a> VolumeBinding<'a> {
    /// Looks at each claim of the pod.
    pub fn new(snapshot: &'a Snapshot, shape: &Shape) -> Self {
        let storage = snapshot.storage();
        let mut rule = VolumeBinding {
            snapshot,
            problem: None,
            bound: Vec::new(),
            misses_volume: false,
            waiting: Vec::new(),
        };
        let mut unbound = false;
        let filters = shape.needs.profile.filters(Plugin::VolumeBinding);
        for used in shape.claims.iter().filter(|_| filters) {
            let claim = match present(storage, used) {
                Ok(claim) => claim,
                Err(problem) => {
                    rule.problem = Some(problem.into());
                    return rule;
                }
            };
            match standing(storage, claim) {
                Some(Standing::Bound) => rule.add_bound(storage, claim),
                Some(Standing::Waiting(waiting)) => rule.waiting.push(waiting),
                None => unbound = true,
            }
        }
        rule.waiting.sort_by_key(|waiting| waiting.claim.terms.bytes);
        rule.problem = unbound.then(|| "pod has unbound immediate PersistentVolumeClaims".into());
        rule
    }

    fn add_bound(&mut self, storage: &'a Storage, claim: &ClaimInfo) {
        match claim.volume.as_ref().and_then(|name| storage.volume(name)) {
            Some(volume) => self.bound.push(volume),
            None => self.misses_volume = true,
        }
    }

    /// Why no node is right, whatever it is like.
    pub fn problem(&self) -> Option<Reason> {
        self.problem.clone().map(Reason::Claims)
    }

    /// What becomes of the claims that wait, if the pod comes to the node; `None` if one could get no volume there.
    pub fn fates(&self, slot: Slot) -> Option<Vec<(ClaimKey, Fate)>> {
        let node = self.snapshot.node(slot)?;
        let mut taken = Vec::new();
        let fate = |waiting: &Waiting<'a>| {
            let fate = waiting.fate_on(&node.name, &node.labels, &taken)?;
            if let Fate::Volume(name) = &fate {
                taken.push(name.clone());
            }
            Some((waiting.claim.key.clone(), fate))
        };
        self.waiting.iter().map(fate).collect()
    }
}

/// The claim as it is, if it is one that the pod can use.
fn present<'a>(storage: &'a Storage, used: &ClaimUse) -> Result<&'a ClaimInfo, String> {
    let ClaimUse { key, owner } = used;
    let claim = storage.claim(key).ok_or_else(|| match owner {
        None => format!("persistentvolumeclaim \"{}\" not found", key.name),
        Some(_) => {
            format!(
                "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{}\"",
                key.name
            )
        }
    })?;
    if claim.lost {
        let volume = claim.volume.as_ref().map(ToString::to_string).unwrap_or_default();
        return Err(format!(
            "persistentvolumeclaim \"{}\" bound to non-existent persistentvolume \"{volume}\"",
            key.name
        ));
    }
    if claim.terminating {
        return Err(format!("persistentvolumeclaim \"{}\" is being deleted", key.name));
    }
    match owner {
        Some((pod, uid)) if claim.owner.as_ref() != Some(uid) => {
            Err(format!("PVC {key} was not created for pod {}/{pod} (pod is not owner)", key.namespace))
        }
        _ => Ok(claim),
    }
}

/// `None` for a claim that somebody else must bind first.
fn standing<'a>(storage: &'a Storage, claim: &'a ClaimInfo) -> Option<Standing<'a>> {
    if claim.bound {
        return Some(Standing::Bound);
    }
    let class = storage.class_of(claim).filter(|class| class.waits && claim.volume.is_none())?;
    let right = |volume: &&VolumeInfo| {
        volume.terms.cover(&claim.terms)
            && !volume.terminating
            && !storage.is_meant_for_another(volume, claim)
            && (claim.is_named_by(volume) || claim.may_take(volume))
    };
    let mut volumes: Vec<&VolumeInfo> = storage.volumes().filter(right).collect();
    volumes.sort_by_key(|volume| (!claim.is_named_by(volume), volume.terms.bytes));
    Some(Standing::Waiting(Waiting { claim, class, fate: storage.fate(claim), volumes }))
}

impl Waiting<'_> {
    fn fate_on(&self, node: &NodeName, labels: &Labels, taken: &[crate::name::VolumeName]) -> Option<Fate> {
        let mut reached = self
            .volumes
            .iter()
            .filter(|volume| volume.is_reached_from(node, labels) && !taken.contains(&volume.name))
            .map(|volume| Fate::Volume(volume.name.clone()));
        match &self.fate {
            Some(Fate::Node(chosen)) => (chosen == node).then(|| Fate::Node(node.clone())),
            Some(chosen) => reached.find(|fate| fate == chosen),
            None => {
                let made = || self.class.provisions_for(labels).then(|| Fate::Node(node.clone()));
                reached.next().or_else(made)
            }
        }
    }
}

impl Filter for VolumeBinding<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::VolumeBinding
    }

    fn passes(&self, slot: Slot) -> bool {
        self.reasons(slot).is_empty()
    }

    fn reasons(&self, slot: Slot) -> Vec<Reason> {
        if let Some(problem) = self.problem() {
            return vec![problem];
        }
        let Some(node) = self.snapshot.node(slot) else { return vec![Reason::NoVolumes] };
        let reached = self.bound.iter().all(|volume| volume.is_reached_from(&node.name, &node.labels));
        let all = [
            self.misses_volume.then_some(Reason::VolumeGone),
            (!reached).then_some(Reason::VolumeNodeAffinity),
            self.fates(slot).is_none().then_some(Reason::NoVolumes),
        ];
        all.into_iter().flatten().collect()
    }
}
