//! Pods that run from files, among the pods of the node.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::telling::{contradicts, report};
use super::{PodTable, Work};
use crate::pod::static_pod::is_static;
use crate::pod::{PodRef, PodUid};

impl PodTable {
    /// These are the pods of the files now.
    pub fn static_pods(&mut self, wanted: Vec<Pod>, now: Timestamp) -> Vec<Work> {
        self.wanted = wanted.into_iter().map(|pod| (PodRef::of(&pod).uid, pod)).collect();
        let gone: Vec<PodUid> = self
            .of_files()
            .map(|(uid, _)| uid)
            .filter(|uid| !self.wanted.contains_key(uid))
            .cloned()
            .collect();
        let mut work: Vec<Work> = gone.iter().flat_map(|uid| self.removed(uid, now)).collect();
        work.extend(self.begin_static_pods(now));
        work
    }

    /// Begins those of whose name nothing is left.
    pub fn begin_static_pods(&mut self, now: Timestamp) -> Vec<Work> {
        let waits = |pod: &&Pod| {
            let PodRef { namespace, name, .. } = PodRef::of(pod);
            self.named(&namespace, &name).is_none()
        };
        let free: Vec<Pod> = self.wanted.values().filter(waits).cloned().collect();
        free.iter().flat_map(|pod| self.applied(pod, now)).collect()
    }

    /// Those of the files, also of files that are gone while something of them is left.
    pub fn from_files(&self) -> impl Iterator<Item = &Pod> {
        self.of_files().map(|(_, pod)| pod)
    }

    fn of_files(&self) -> impl Iterator<Item = (&PodUid, &Pod)> {
        self.pods.iter().map(|(uid, entry)| (uid, entry.life.pod())).filter(|(_, pod)| is_static(pod))
    }

    /// What stands in the API for the pod `of` is like this, or is gone.
    pub fn mirrored(&mut self, of: &PodUid, mirror: Option<&Pod>, now: Timestamp) -> Vec<Work> {
        let mut work = Vec::new();
        let Some(entry) = self.pods.get_mut(of) else { return work };
        entry.mirror = mirror.map(|mirror| PodRef::of(mirror).uid);
        report(entry, now, &mut work);
        if let (Some(mirror), Some(told), true) = (mirror, &entry.published, work.is_empty())
            && contradicts(mirror, &told.patch["status"])
        {
            work.push(Work::Publish(told.clone()));
        }
        work
    }
}

/// Pods that the files ask for, by uid.
pub(super) type Wanted = BTreeMap<PodUid, Pod>;
