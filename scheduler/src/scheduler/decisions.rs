//! Decisions: a waiting pod is placed, or others are driven away for it, or it is parked and its user told.

use super::{Assumed, Effect, Kind, Scheduler};
use crate::changes::{Changes, Hopes};
use crate::decision::{self, Decision};
use crate::diagnosis::Diagnosis;
use crate::name::{NodeName, PodKey};
use crate::pod::PodInfo;
use crate::preemption::{self, Candidate};
use crate::queue::Taken;
use crate::snapshot::Snapshot;
use crate::volumes;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

impl Scheduler {
    pub(super) fn wake_parked(&mut self, now: Instant) {
        let changes = std::mem::take(&mut self.changes);
        if changes.is_empty() {
            return;
        }
        let heirs = self.heirs(&changes);
        self.activate(&heirs);
        let (snapshot, memo, reservations) = (&mut self.snapshot, &mut self.memo, &mut self.reservations);
        self.queue.wake(now, |pod, hopes| {
            changes.concern(pod, hopes, |pod, slot| {
                // Equal pods are asked by one of them, which may be the one that the room is reserved for: it is
                // among the heirs.
                let respected = |one: &PodInfo| one.priority >= pod.priority;
                reservations.judged_on(snapshot, (pod, slot), respected, |snapshot| {
                    decision::would_admit(snapshot, memo, pod, slot)
                        || pod.preempts() && preemption::has_room_below(snapshot, pod, slot)
                })
            })
        });
    }

    /// Pods that can come to the nodes on which room is reserved for them.
    fn heirs(&mut self, changes: &Changes) -> Vec<PodKey> {
        let mut heirs = Vec::new();
        for slot in changes.freed() {
            let Some(name) = self.snapshot.node(slot).map(|node| node.name.clone()) else { continue };
            for pod in self.reservations.heirs(&name) {
                let others = |one: &PodInfo| one.key != pod.key && one.priority >= pod.priority;
                let memo = &mut self.memo;
                let admits = |snapshot: &mut Snapshot| decision::would_admit(snapshot, memo, &pod, slot);
                if self.reservations.judged_on(&mut self.snapshot, (&pod, slot), others, admits) {
                    heirs.push(pod.key.clone());
                }
            }
        }
        heirs
    }

    pub(super) fn schedule_one(
        &mut self,
        taken: Taken,
        now: Instant,
        random: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(_) = self.gangs.hold(taken.pod.clone()) else { return };
        if let Some(gang) = self.gangs.gang(&taken.pod) {
            return self.schedule_gang(taken, gang, now, random, effects);
        }
        match self.decide(&taken.pod, random) {
            Ok(node) => effects.extend(self.assume(taken, node, now)),
            Err(diagnosis) => self.refuse(taken, diagnosis, now, random, effects),
        }
    }

    /// Where the pod goes, with the room respected that is reserved for others.
    pub(super) fn decide(&mut self, pod: &PodInfo, random: u64) -> Result<NodeName, Arc<Diagnosis>> {
        let version = self.snapshot.version();
        if self.refused.0 != version {
            self.refused = (version, HashMap::new());
        }
        if let Some(diagnosis) =
            self.refused.1.get(&kind(pod)).filter(|_| self.reservations.get(&pod.key).is_none())
        {
            return Err(diagnosis.clone());
        }
        let nominated = self.reservations.get(&pod.key).and_then(|one| self.snapshot.slot(&one.node));
        let (snapshot, memo) = (&mut self.snapshot, &mut self.memo);
        let reserved = self.reservations.fill_for(snapshot, pod);
        let there = nominated.filter(|slot| reserved.admits(snapshot, memo, pod, *slot));
        if let Some(node) = there.and_then(|slot| snapshot.node(slot)) {
            return Ok(node.name.clone());
        }
        let excluded = reserved.bare_rejections(snapshot, memo, pod);
        match decision::decide(snapshot, memo, pod, &excluded, random) {
            Decision::Place(node) => Ok(node),
            Decision::Unschedulable(diagnosis) => Err(Arc::new(diagnosis)),
        }
    }

    /// The pod fits nowhere: others are driven away for it, or it waits.
    fn refuse(
        &mut self,
        taken: Taken,
        diagnosis: Arc<Diagnosis>,
        now: Instant,
        random: u64,
        effects: &mut Vec<Effect>,
    ) {
        let pod = taken.pod.clone();
        let known = self.refused.1.get(&kind(&pod)).is_some_and(|known| Arc::ptr_eq(known, &diagnosis));
        if known || self.reservations.get(&pod.key).is_some_and(|one| !one.victims.is_empty()) {
            // It has been tried already, or those who are to leave are still leaving.
            effects.extend(self.park(taken, diagnosis, now));
            return;
        }
        let (snapshot, memo) = (&mut self.snapshot, &mut self.memo);
        let reserved = self.reservations.fill_for(snapshot, &pod);
        let found = preemption::preempt(snapshot, memo, &self.budgets, &pod, &reserved, random);
        let diagnosis = match found {
            Ok(candidate) => {
                self.make_room(&pod, candidate, effects);
                diagnosis
            }
            Err(why) => {
                let nominated = self.reservations.get(&pod.key).is_some();
                self.end_nomination(&pod.key);
                let diagnosis = match why {
                    Some(why) => Arc::new((*diagnosis).clone().with_preemption(why)),
                    None => diagnosis,
                };
                if !nominated {
                    self.refused.1.insert(kind(&pod), diagnosis.clone());
                }
                diagnosis
            }
        };
        effects.extend(self.park(taken, diagnosis, now));
    }

    /// Reserves the node for the pod and asks the victims to leave.
    fn make_room(&mut self, pod: &Arc<PodInfo>, candidate: Candidate, effects: &mut Vec<Effect>) {
        let Candidate { node, victims, .. } = candidate;
        let lower = self.reservations.below(&node, pod.priority);
        lower.iter().for_each(|key| self.end_nomination(key));
        self.activate(&lower);
        let evict = |victim: &Arc<PodInfo>| Effect::Evict {
            pod: victim.key.clone(),
            uid: victim.uid.clone(),
            preemptor: pod.uid.clone(),
            node: node.clone(),
            scheduler: pod.scheduler_name.clone(),
        };
        effects.extend(victims.iter().filter(|victim| !victim.terminating).map(evict));
        let leaving = victims.iter().map(|victim| victim.uid.clone()).collect();
        self.nominate(pod, node, leaving);
    }

    /// Puts the pod on its node, and begins what that takes; nothing now if its claims are on their way already.
    pub(super) fn assume(&mut self, taken: Taken, node: NodeName, now: Instant) -> Option<Effect> {
        let PodInfo { key, uid, shape, .. } = &*taken.pod;
        let slot = self.snapshot.slot(&node).expect("a pod is placed on a known node");
        let fates = volumes::fates(&self.snapshot, shape, slot);
        let until = now + shape.needs.profile.bind_timeout;
        let placed = Arc::new(PodInfo { node: Some(node.clone()), ..(*taken.pod).clone() });
        self.end_nomination(key);
        self.snapshot.place(placed.clone(), &node);
        self.changes.pod_placed();
        let (key, uid) = (key.clone(), uid.clone());
        self.assumed.insert(key.clone(), Assumed { uid: uid.clone(), retry: Some(taken) });
        if !fates.is_empty() {
            return self.prepare(key, uid, node, fates, until);
        }
        Some(self.bind(&placed, node))
    }

    /// Begins the binding of a pod that is assumed on that node.
    pub(super) fn bind(&mut self, pod: &PodInfo, node: NodeName) -> Effect {
        self.in_flight += 1;
        let PodInfo { key, uid, scheduler_name, .. } = pod;
        Effect::Bind { pod: key.clone(), uid: uid.clone(), node, scheduler: scheduler_name.clone() }
    }

    /// Parks a pod; reports it unless its condition already says the same.
    pub(super) fn park(
        &mut self,
        mut taken: Taken,
        diagnosis: Arc<Diagnosis>,
        now: Instant,
    ) -> Option<Effect> {
        let message: Arc<str> = diagnosis.to_string().into();
        let pod = &taken.pod;
        let nominated = self.reservations.get(&pod.key).map(|one| one.node.clone());
        let news = pod.reported.as_ref() != Some(&message) || pod.nominated != nominated;
        let report = Effect::Report {
            pod: pod.key.clone(),
            uid: pod.uid.clone(),
            message: message.clone(),
            nominated: nominated.clone(),
            scheduler: pod.scheduler_name.clone(),
        };
        let pod = taken.pod.clone();
        taken.pod = Arc::new(PodInfo { reported: Some(message), nominated, ..(*pod).clone() });
        self.queue.park(taken, Hopes::after(&diagnosis, &pod), now);
        news.then_some(report)
    }
}

fn kind(pod: &PodInfo) -> Kind {
    (pod.shape.clone(), pod.priority, pod.never_preempts)
}
