//! Rolling updates: pods of an old revision are deleted, the highest ordinal first, and made anew.

use super::{Look, is_healthy, revision_of};
use crate::{history::Revision, pod};
use k8s_openapi::{
    api::apps::v1::RollingUpdateStatefulSetStrategy, apimachinery::pkg::util::intstr::IntOrString,
};

impl Look<'_> {
    fn rolling(&self) -> Option<RollingUpdateStatefulSetStrategy> {
        let strategy = self.spec.update_strategy.clone().unwrap_or_default();
        (strategy.type_.as_deref() != Some("OnDelete")).then(|| strategy.rolling_update.unwrap_or_default())
    }

    /// The ordinal from which pods are of the new revision.
    fn partition(&self) -> i32 {
        let partition = self.rolling().and_then(|rolling| rolling.partition).unwrap_or(0);
        self.wanted().start.saturating_add(partition)
    }

    /// The revision of a new pod.
    pub(super) fn revision_for(&self, ordinal: i32) -> &Revision {
        if ordinal < self.partition() { &self.current } else { &self.update }
    }

    /// Deletes pods of an old revision, as many as may be unavailable. One that isn't available anyway costs
    /// nothing, and must not hold up the rollout that would heal it.
    pub(super) fn roll(&mut self) {
        let Some(rolling) = self.rolling() else { return };
        let wanted = self.wanted();
        let most = most_unavailable(rolling.max_unavailable.as_ref(), wanted.end - wanted.start);
        let mut unavailable = self.unavailable();
        for ordinal in (self.partition()..wanted.end).rev() {
            let Some(pod) = self.pods.get(&ordinal).cloned() else { continue };
            if revision_of(&pod) == self.update.name || pod::is_terminating(&pod) {
                continue;
            }
            if is_healthy(&pod) && self.is_available(&pod) {
                if unavailable >= most {
                    continue;
                }
                unavailable += 1;
            }
            let reason = format!("its revision is {}, not {}", revision_of(&pod), self.update.name);
            self.delete(&pod, &reason);
        }
    }

    fn unavailable(&mut self) -> i32 {
        let mut count = 0;
        for ordinal in self.wanted() {
            let pod = self.pods.get(&ordinal).cloned();
            let stands = pod.is_some_and(|pod| is_healthy(&pod) && self.is_available(&pod));
            count += i32::from(!stands);
        }
        count
    }
}

/// A count or a rounded-down share of `replicas`, but at least one, or nothing would move.
fn most_unavailable(value: Option<&IntOrString>, replicas: i32) -> i32 {
    let count = match value {
        Some(IntOrString::Int(count)) => *count,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            i32::try_from(i64::from(replicas) * percent / 100).unwrap_or(i32::MAX)
        }
        None => 1,
    };
    count.max(1)
}
