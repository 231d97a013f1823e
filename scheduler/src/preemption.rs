//! Room for a pod that fits nowhere: which pods of lower priority must leave which node.
//!
//! As upstream's `DefaultPreemption`: on each candidate node everybody of lower priority is taken away in
//! thought, and as many as possible are let back, those first whose budgets forbid their disruption, and the
//! more important before the less important. Of the candidates the one that hurts least is chosen. The
//! snapshot is changed while this thinks, and is the same again afterwards.

use crate::budget::Budgets;
use crate::diagnosis::Preemption;
use crate::memo::Memo;
use crate::name::NodeName;
use crate::plugins::{Plugin, Reason};
use crate::pod::PodInfo;
use crate::reservation::Reserved;
use crate::resources::PODS;
use crate::snapshot::{Slot, Snapshot};
use jiff::Timestamp;
use std::cmp::Reverse;
use std::sync::Arc;

/// A node, and who must leave it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The node.
    pub node: NodeName,
    /// Who leaves, the most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them have a budget that doesn't allow it.
    pub violations: usize,
}

/// How much a candidate hurts: violated budgets, then the highest priority among its victims, then the sum of
/// their priorities, then their number, then how long the most important of them have been running.
type Harm = (usize, i64, i64, usize, Reverse<Option<Timestamp>>);

impl Candidate {
    fn harm(&self) -> Harm {
        let priority = |pod: &Arc<PodInfo>| i64::from(pod.priority);
        let highest = self.victims.iter().map(priority).max().unwrap_or(i64::MIN);
        // Priorities are raised above zero, so that fewer victims sum up to less.
        let sum = self.victims.iter().map(|pod| priority(pod) - i64::from(i32::MIN)).sum();
        let top = self.victims.iter().filter(|pod| priority(pod) == highest);
        (self.violations, highest, sum, self.victims.len(), Reverse(top.filter_map(|pod| pod.started).min()))
    }
}

/// Finds room for `pod`, which no node takes as it is, while `reserved` is filled. `start` says at which node the
/// search begins. The error is `None` if the pod's profile drives nobody away.
pub fn preempt(
    snapshot: &mut Snapshot,
    memo: &mut Memo,
    budgets: &Budgets,
    pod: &PodInfo,
    reserved: &Reserved<'_>,
    start: u64,
) -> Result<Candidate, Option<Preemption>> {
    let Some(limits) = pod.shape.needs.profile.preemption else { return Err(None) };
    if pod.never_preempts {
        return Err(Some(Preemption::NotEligible("preemptionPolicy=Never")));
    }
    let refused = reserved.rejections(snapshot, memo, pod);
    let (helpful, helpless): (Vec<_>, Vec<_>) =
        refused.into_iter().partition(|(slot, why)| may_be_helped(snapshot, pod, *slot, &why.reasons));
    let mut slots: Vec<Slot> = helpful.into_iter().map(|(slot, _)| slot).collect();
    let middle = usize::try_from(start % slots.len().max(1) as u64).expect("an index into a slice");
    slots.rotate_left(middle);
    let enough = (snapshot.node_count() * limits.percent / 100).max(limits.least);
    let mut candidates = Vec::new();
    for slot in &slots {
        candidates.extend(dry_run(snapshot, memo, budgets, pod, reserved, *slot));
        if candidates.len() >= enough {
            break;
        }
    }
    let best = candidates.into_iter().min_by_key(Candidate::harm);
    best.ok_or_else(|| {
        Some(Preemption::Hopeless {
            no_victims: slots.len(),
            not_helpful: helpless.len(),
            by_others: pod.shape.is_tied_to_others() || snapshot.distances().next().is_some(),
        })
    })
}

/// Whether the node's refusal can end by others leaving it.
fn may_be_helped(snapshot: &Snapshot, pod: &PodInfo, slot: Slot, reasons: &[Reason]) -> bool {
    reasons.iter().all(|reason| match reason {
        Reason::Insufficient(resource) => {
            pod.shape.needs.requests.exact.get(resource) <= snapshot.column(resource).allocatable(slot)
        }
        other => other.is_resolvable(),
    })
}

/// Whether the node would have enough of everything if all pods of lower priority left it. Cheap, and necessary.
pub fn has_room_below(snapshot: &Snapshot, pod: &PodInfo, slot: Slot) -> bool {
    let lower = || snapshot.pods_on(slot).filter(|other| other.priority < pod.priority);
    let count = i64::try_from(lower().count()).expect("a count");
    let fits = |resource: &str, amount: i64| {
        let freed: i64 = lower().map(|other| other.shape.needs.requests.exact.get(resource)).sum();
        snapshot.column(resource).left(slot) + freed >= amount
    };
    let fits_all = || {
        let mut asked = pod.shape.needs.must_fit();
        snapshot.column(PODS).left(slot) + count >= 1 && asked.all(|(name, amount)| fits(name, amount))
    };
    count > 0 && (!pod.shape.needs.profile.filters(Plugin::NodeResourcesFit) || fits_all())
}

/// Who would have to leave this node; `None` if that wouldn't help.
fn dry_run(
    snapshot: &mut Snapshot,
    memo: &mut Memo,
    budgets: &Budgets,
    pod: &PodInfo,
    reserved: &Reserved<'_>,
    slot: Slot,
) -> Option<Candidate> {
    if !has_room_below(snapshot, pod, slot) {
        return None;
    }
    let version = snapshot.version();
    let node = snapshot.node(slot).expect("a node that refused the pod is known").name.clone();
    let mut lower: Vec<_> =
        snapshot.pods_on(slot).filter(|other| other.priority < pod.priority).cloned().collect();
    lower.sort_by(|a, b| importance(a).cmp(&importance(b)));
    for other in &lower {
        snapshot.displace(&other.key);
    }
    let stay = |snapshot: &mut Snapshot, memo: &mut Memo, other: &Arc<PodInfo>| {
        snapshot.place(other.clone(), &node);
        let stays = reserved.admits(snapshot, memo, pod, slot);
        if !stays {
            snapshot.displace(&other.key);
        }
        stays
    };
    let (mut victims, mut violations) = (Vec::new(), 0);
    let helps = reserved.admits(snapshot, memo, pod, slot);
    if helps {
        let (forbidden, allowed) = budgets.part(lower.clone());
        victims.extend(forbidden.into_iter().filter(|other| !stay(snapshot, memo, other)));
        violations = victims.len();
        victims.extend(allowed.into_iter().filter(|other| !stay(snapshot, memo, other)));
    } else {
        victims = lower;
    }
    for victim in &victims {
        snapshot.place(victim.clone(), &node);
    }
    snapshot.unchanged_since(version);
    victims.sort_by(|a, b| importance(a).cmp(&importance(b)));
    helps.then_some(Candidate { node, victims, violations })
}

/// The more important come first: higher priority, then longer running. Names make the order total.
fn importance(pod: &PodInfo) -> (Reverse<i32>, Timestamp, &crate::name::PodKey) {
    (Reverse(pod.priority), pod.started.unwrap_or(Timestamp::MAX), &pod.key)
}
