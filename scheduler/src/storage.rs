//! What the scheduler knows of storage: claims, volumes, classes, how many volumes a node takes, and what it has
//! decided about claims itself but not yet seen.
//!
//! What always holds: no volume is meant for two claims, and no claim is meant to be in two places, among the
//! decisions that wait ([`Storage::intend`]). It reads objects and compares; who may go where is the rules' to say.

mod objects;

pub use objects::{Attachment, ClaimInfo, ClassInfo, NodeLimits, SELECTED_NODE, VolumeInfo};

use crate::name::{ClaimKey, NodeName, PodKey, VolumeName};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Something the scheduler learns of storage.
#[derive(Clone, Debug)]
pub enum StorageEvent {
    /// A claim exists like this.
    Claim(ClaimInfo),
    /// A claim is gone.
    ClaimGone(ClaimKey),
    /// A volume exists like this.
    Volume(VolumeInfo),
    /// A volume is gone.
    VolumeGone(VolumeName),
    /// A class exists like this.
    Class(ClassInfo),
    /// A class is gone.
    ClassGone(Box<str>),
    /// A node takes so many volumes.
    Limits(NodeLimits),
    /// A node says nothing about volumes any more.
    LimitsGone(NodeName),
}

/// What is to become of a claim that waited for its first pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It gets this volume, which exists.
    Volume(VolumeName),
    /// Its class's provisioner makes a volume for this node.
    Node(NodeName),
}

/// A fate that isn't seen yet, and the pods for which it was decided.
#[derive(Clone, Debug)]
struct Intent {
    fate: Fate,
    pods: BTreeSet<PodKey>,
}

/// See the module's description.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    claims: HashMap<ClaimKey, Arc<ClaimInfo>>,
    volumes: BTreeMap<VolumeName, Arc<VolumeInfo>>,
    classes: HashMap<Box<str>, Arc<ClassInfo>>,
    limits: HashMap<NodeName, NodeLimits>,
    intents: HashMap<ClaimKey, Intent>,
    meant: HashMap<VolumeName, ClaimKey>,
}

// Reading.
impl Storage {
    /// A claim.
    pub fn claim(&self, key: &ClaimKey) -> Option<&ClaimInfo> {
        self.claims.get(key).map(|claim| &**claim)
    }

    /// A volume.
    pub fn volume(&self, name: &VolumeName) -> Option<&VolumeInfo> {
        self.volumes.get(name).map(|volume| &**volume)
    }

    /// All volumes, by name.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeInfo> {
        self.volumes.values().map(|volume| &**volume)
    }

    /// The class that a claim names.
    pub fn class_of(&self, claim: &ClaimInfo) -> Option<&ClassInfo> {
        self.classes.get(&claim.class).map(|class| &**class)
    }

    /// How many volumes of `driver` a node takes; `None` if it doesn't say.
    pub fn limit(&self, node: &NodeName, driver: &str) -> Option<usize> {
        self.limits.get(node)?.drivers.get(driver).copied()
    }

    /// What was decided about a claim: what its annotation says, or what we mean to write.
    pub fn fate(&self, claim: &ClaimInfo) -> Option<Fate> {
        let intended = self.intents.get(&claim.key).map(|intent| intent.fate.clone());
        intended.or_else(|| claim.selected.clone().map(Fate::Node))
    }

    /// Whether we mean to give a volume to another claim.
    pub fn is_meant_for_another(&self, volume: &VolumeInfo, claim: &ClaimInfo) -> bool {
        self.meant.get(&volume.name).is_some_and(|other| *other != claim.key)
    }

    /// What a claim will attach to its node: its volume, or one that is yet to be made.
    pub fn attachment(&self, key: &ClaimKey) -> Option<Attachment> {
        let claim = self.claim(key)?;
        match &claim.volume {
            Some(volume) => self.volume(volume)?.attachment.clone(),
            None => {
                let driver = self.class_of(claim)?.provisioner.clone();
                Some(Attachment { driver, handle: claim.key.to_string().into() })
            }
        }
    }
}

// Changing.
impl Storage {
    /// Takes note of a change. False if nothing is different.
    pub fn apply(&mut self, event: StorageEvent) -> bool {
        match event {
            StorageEvent::Claim(claim) => renew(&mut self.claims, claim.key.clone(), claim),
            StorageEvent::ClaimGone(key) => self.claims.remove(&key).is_some(),
            StorageEvent::Volume(volume) => {
                let volume = Arc::new(volume);
                self.volumes.insert(volume.name.clone(), volume.clone()).as_ref() != Some(&volume)
            }
            StorageEvent::VolumeGone(name) => self.volumes.remove(&name).is_some(),
            StorageEvent::Class(class) => renew(&mut self.classes, class.name.clone(), class),
            StorageEvent::ClassGone(name) => self.classes.remove(&name).is_some(),
            StorageEvent::Limits(limits) => {
                self.limits.insert(limits.node.clone(), limits.clone()) != Some(limits)
            }
            StorageEvent::LimitsGone(node) => self.limits.remove(&node).is_some(),
        }
    }

    /// Means a claim to have this fate, for a pod.
    pub fn intend(&mut self, pod: &PodKey, claim: &ClaimKey, fate: Fate) {
        if let Fate::Volume(volume) = &fate {
            let before = self.meant.insert(volume.clone(), claim.clone());
            assert!(before.is_none_or(|before| before == *claim), "a volume is meant for one claim");
        }
        let new = Intent { fate: fate.clone(), pods: BTreeSet::new() };
        let intent = self.intents.entry(claim.clone()).or_insert(new);
        assert!(intent.fate == fate, "a claim has one fate");
        intent.pods.insert(pod.clone());
    }

    /// What was decided about a claim for that pod has come true, or won't.
    pub fn forget_intent(&mut self, pod: &PodKey, claim: &ClaimKey) {
        let Some(intent) = self.intents.get_mut(claim) else { return };
        intent.pods.remove(pod);
        if !intent.pods.is_empty() {
            return;
        }
        if let Some(Intent { fate: Fate::Volume(volume), .. }) = self.intents.remove(claim) {
            self.meant.remove(&volume);
        }
    }
}

fn renew<K: Eq + std::hash::Hash, V: PartialEq>(table: &mut HashMap<K, Arc<V>>, key: K, value: V) -> bool {
    let value = Arc::new(value);
    table.insert(key, value.clone()).as_ref() != Some(&value)
}
