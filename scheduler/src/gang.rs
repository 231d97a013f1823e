//! Gangs: groups of pods of which enough start together or none does (upstream's PodGroup with a gang policy).
//!
//! What always holds: a pod of a gang is decided about only when enough of its gang exist, and then all that
//! wait are decided about at once.

use crate::name::PodKey;
use crate::object;
use crate::pod::PodInfo;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// How the pods of a group are scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// One by one, as if they had no group.
    Basic,
    /// At least so many at the same time.
    Gang(usize),
}

/// A PodGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Namespace and name.
    pub key: PodKey,
    /// Its incarnation.
    pub uid: Box<str>,
    /// What it asks for.
    pub policy: Policy,
    /// What its condition says.
    pub said: Option<Said>,
}

/// The type of a group's condition.
pub const INITIALLY_SCHEDULED: &str = "PodGroupInitiallyScheduled";

/// What the condition [`INITIALLY_SCHEDULED`] of a group says. Once enough pods had places it stays so, whatever
/// becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Enough pods have had places at the same time.
    pub scheduled: bool,
    /// Why not, otherwise.
    pub message: Arc<str>,
}

impl GroupInfo {
    /// Reads an API object.
    pub fn of(group: &object::PodGroup) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let gang = group.spec.scheduling_policy.gang.as_ref();
        GroupInfo {
            key: PodKey::new(&text(&group.metadata.namespace), &text(&group.metadata.name)),
            policy: gang
                .map_or(Policy::Basic, |gang| Policy::Gang(usize::try_from(gang.min_count).unwrap_or(0))),
            uid: text(&group.metadata.uid).into(),
            said: group.status.as_ref().and_then(said),
        }
    }
}

fn said(status: &object::PodGroupStatus) -> Option<Said> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == INITIALLY_SCHEDULED)?;
    let message = condition.message.as_deref().unwrap_or_default().into();
    Some(Said { scheduled: condition.status == "True", message })
}

/// One group: what is known of it.
#[derive(Clone, Debug, Default)]
struct Group {
    /// `None` while the PodGroup itself isn't there.
    policy: Option<Policy>,
    uid: Box<str>,
    /// What its condition says, or will.
    said: Option<Said>,
    /// Every pod of it that exists and hasn't ended.
    present: BTreeSet<PodKey>,
    /// Those of them that wait for the others to appear.
    held: BTreeMap<PodKey, Arc<PodInfo>>,
}

impl Group {
    fn is_complete(&self) -> bool {
        match self.policy {
            None => false,
            Some(Policy::Basic) => true,
            Some(Policy::Gang(minimum)) => self.present.len() >= minimum,
        }
    }

    fn release(&mut self) -> Vec<Arc<PodInfo>> {
        if self.is_complete() { std::mem::take(&mut self.held).into_values().collect() } else { Vec::new() }
    }
}

/// All groups.
#[derive(Clone, Debug, Default)]
pub struct Gangs {
    groups: HashMap<PodKey, Group>,
    /// Of every pod that has a group: which.
    of: HashMap<PodKey, PodKey>,
}

/// The key of a pod's group; `None` if it has none.
fn group_of(pod: &PodInfo) -> Option<PodKey> {
    let name = pod.group.clone()?;
    Some(PodKey { namespace: pod.key.namespace.clone(), name })
}

impl Gangs {
    /// A group exists like this. Returns the pods that needn't wait for others to appear any more.
    pub fn set(&mut self, info: GroupInfo) -> Vec<Arc<PodInfo>> {
        let group = self.groups.entry(info.key).or_default();
        if group.uid != info.uid {
            (group.uid, group.said) = (info.uid, None);
        }
        if group.said.is_none() || info.said.as_ref().is_some_and(|said| said.scheduled) {
            group.said = info.said;
        }
        group.policy = Some(info.policy);
        group.release()
    }

    /// A group is gone. Its pods wait for it to come back.
    pub fn remove(&mut self, key: &PodKey) {
        if let Some(group) = self.groups.get_mut(key) {
            group.policy = None;
        }
        self.drop_if_empty(key);
    }

    /// A pod waits for a node. Returns the pods that may be decided about now: this one, if it isn't held, and
    /// those that have waited for it to appear.
    pub fn waits(&mut self, pod: Arc<PodInfo>) -> Vec<Arc<PodInfo>> {
        let Some(key) = self.join(&pod) else { return vec![pod] };
        let group = self.groups.get_mut(&key).expect("a pod joins a group that is there");
        group.held.insert(pod.key.clone(), pod);
        group.release()
    }

    /// A pod has its node. Returns the pods that have waited for it to appear.
    pub fn placed(&mut self, pod: &PodInfo) -> Vec<Arc<PodInfo>> {
        let Some(key) = self.join(pod) else { return Vec::new() };
        let group = self.groups.get_mut(&key).expect("a pod joins a group that is there");
        group.held.remove(&pod.key);
        group.release()
    }

    /// A pod is gone or has ended.
    pub fn gone(&mut self, pod: &PodKey) {
        let Some(key) = self.of.remove(pod) else { return };
        if let Some(group) = self.groups.get_mut(&key) {
            group.present.remove(pod);
            group.held.remove(pod);
        }
        self.drop_if_empty(&key);
    }

    /// The gang that `pod` must be decided about with: its key, how many pods it needs, and all its pods.
    pub fn gang(&self, pod: &PodInfo) -> Option<(PodKey, usize, Vec<PodKey>)> {
        let key = group_of(pod)?;
        let group = self.groups.get(&key)?;
        match group.policy? {
            Policy::Basic => None,
            Policy::Gang(minimum) => Some((key, minimum, group.present.iter().cloned().collect())),
        }
    }

    /// What its users are to be told of a group: its uid, if that is news.
    pub fn say(&mut self, key: &PodKey, new: &Said) -> Option<Box<str>> {
        let group = self.groups.get_mut(key)?;
        let known = group.said.as_ref().is_some_and(|said| said.scheduled || said == new);
        group.said = Some(new.clone()).filter(|_| !known).or(group.said.take());
        (!known).then(|| group.uid.clone())
    }

    /// Holds a pod back if its group isn't complete (any more); returns it otherwise.
    pub fn hold(&mut self, pod: Arc<PodInfo>) -> Option<Arc<PodInfo>> {
        let Some(group) = group_of(&pod).and_then(|key| self.groups.get_mut(&key)) else { return Some(pod) };
        if group.is_complete() {
            return Some(pod);
        }
        group.held.insert(pod.key.clone(), pod);
        None
    }

    fn join(&mut self, pod: &PodInfo) -> Option<PodKey> {
        let key = group_of(pod);
        if self.of.get(&pod.key) != key.as_ref() {
            self.gone(&pod.key);
        }
        let key = key?;
        self.groups.entry(key.clone()).or_default().present.insert(pod.key.clone());
        self.of.insert(pod.key.clone(), key.clone());
        Some(key)
    }

    fn drop_if_empty(&mut self, key: &PodKey) {
        let empty = |group: &Group| group.policy.is_none() && group.present.is_empty();
        if self.groups.get(key).is_some_and(empty) {
            self.groups.remove(key);
        }
    }
}
