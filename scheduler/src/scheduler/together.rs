//! Decisions about gangs: all that wait are tried on the snapshot, and either enough fit and all of those are
//! bound, or nobody is, and the snapshot is as it was. Two gangs can't hold each other up halfway, because no
//! half of one ever holds anything.

use super::{Effect, Scheduler};
use crate::diagnosis::GangShortage;
use crate::gang::Said;
use crate::name::PodKey;
use crate::queue::Taken;
use std::sync::Arc;
use std::time::Instant;

/// The key of a gang, how many pods it needs, and all its pods.
type Gang = (PodKey, usize, Vec<PodKey>);

impl Scheduler {
    /// Decides about every waiting pod of a gang at once. Nobody is driven away for a gang.
    pub(super) fn schedule_gang(
        &mut self,
        first: Taken,
        (key, needed, pods): Gang,
        now: Instant,
        random: u64,
        effects: &mut Vec<Effect>,
    ) {
        let before = (self.snapshot.version(), self.changes.clone());
        let is_placed =
            |pod: &PodKey| self.snapshot.pod(pod).is_some() && self.reservations.get(pod).is_none();
        let mut fit = pods.iter().filter(|pod| is_placed(pod)).count();
        let mut members = vec![first];
        members.extend(pods.iter().filter_map(|pod| self.queue.take(pod)));
        let (mut placed, mut begun, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for member in members {
            match self.decide(&member.pod, random) {
                Ok(node) => {
                    placed.push(member.pod.key.clone());
                    begun.extend(self.assume(member, node, now));
                    fit += 1;
                }
                Err(diagnosis) => refused.push((member, diagnosis)),
            }
        }
        let mut told = Said { scheduled: true, message: "".into() };
        if fit < needed {
            let why = refused.first().map(|(_, diagnosis)| diagnosis.clone()).unwrap_or_default();
            let shortage = GangShortage { group: key.name.as_ref().into(), fit, needed };
            let why = Arc::new((*why).clone().with_gang(shortage));
            told = Said { scheduled: false, message: why.to_string().into() };
            self.in_flight -= begun.len();
            begun.clear();
            let undone: Vec<Taken> = placed.iter().filter_map(|pod| self.undo(pod)).collect();
            self.snapshot.unchanged_since(before.0);
            self.changes = before.1;
            let all = undone.into_iter().chain(refused.into_iter().map(|(member, _)| member));
            refused = all.map(|member| (member, why.clone())).collect();
        }
        effects.extend(begun);
        let news = self.gangs.say(&key, &told);
        effects.extend(news.map(|uid| Effect::ReportGroup { group: key, uid, said: told }));
        for (member, diagnosis) in refused {
            effects.extend(self.park(member, diagnosis, now));
        }
    }

    /// Takes back an assumption of which nobody has heard.
    fn undo(&mut self, pod: &PodKey) -> Option<Taken> {
        self.snapshot.displace(pod);
        self.end_preparing(pod);
        self.assumed.remove(pod)?.retry
    }
}
