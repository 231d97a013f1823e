//! Self-fencing: a pod that asks for it ends by itself when its node can no longer say that it lives, so that it can be
//! replaced without asking the node. Two clocks and one promise, the node's lease:
//!
//! - On the node the pod may run until [`runs_until`], counted from before the renewal was sent that the API server
//!   has confirmed. The container's supervisor watches it; it needs neither the agent nor the network for that.
//! - The controller deletes the pod for good after [`surely_over`], counted from when it saw that renewal, which is
//!   later. Nobody compares clocks: each counts by its own, which may run a little faster or slower ([`DRIFT`]).

use std::collections::BTreeMap;
use std::time::Duration;

/// `"true"` asks for it, on a pod.
pub const ANNOTATION: &str = "amoeba.dev/self-fence";
/// Why a pod has failed that was ended so, and what its containers say.
pub const REASON: &str = "SelfFenced";
/// One part in so many by which a clock may run faster or slower than another.
pub const DRIFT: u32 = 100;
/// What ending a process and starting to count may take.
pub const MARGIN: Duration = Duration::from_secs(2);

/// Whether a pod with these annotations asks for it.
pub fn asks(annotations: Option<&BTreeMap<String, String>>) -> bool {
    annotations.and_then(|all| all.get(ANNOTATION)).is_some_and(|value| value == "true")
}

/// Until when the pod may run, on the node's clock: a renewal that was sent at `sent` promises `lease`.
pub fn runs_until(sent: Duration, lease: Duration) -> Duration {
    sent.saturating_add(lease)
}

/// How long after the last renewal was seen the pod has surely ended, on the clock of who saw it.
pub fn surely_over(lease: Duration) -> Duration {
    lease.saturating_add(lease / DRIFT).saturating_add(MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// In microseconds of true time: when a renewal is sent, how long its way to the server takes and the answer's
    /// back (none is lost), and how late the controller sees it.
    #[derive(Clone, Debug)]
    struct Renewal {
        sent: u64,
        there: Option<u64>,
        back: Option<u64>,
        seen: u64,
    }

    fn renewals() -> impl Strategy<Value = Vec<Renewal>> {
        let way = || proptest::option::weighted(0.8, 0..20_000_000_u64);
        let one = (1..15_000_000_u64, way(), way(), 0..30_000_000_u64);
        proptest::collection::vec(one, 1..30).prop_map(|all| {
            let mut sent = 0;
            let each = all.into_iter().map(|(pause, there, back, seen)| {
                sent += pause;
                Renewal { sent, there, back, seen }
            });
            each.collect()
        })
    }

    /// A clock that runs up to half of the drift faster or slower, per mille of it; and its inverse.
    fn on_clock(true_time: u64, rate: i64) -> u64 {
        let part = true_time as i128 * i128::from(rate) / 1_000 / (2 * i128::from(DRIFT));
        u64::try_from(true_time as i128 + part).expect("clocks run forwards")
    }

    fn micros(time: u64) -> Duration {
        Duration::from_micros(time)
    }

    /// True times at which the pod may still run, by what the node knows: until the latest confirmed promise.
    fn may_run(renewals: &[Renewal], lease: u64, rate: i64, at: u64) -> bool {
        renewals.iter().any(|renewal| {
            let answered = renewal.there.zip(renewal.back).map(|(there, back)| renewal.sent + there + back);
            let until = runs_until(micros(on_clock(renewal.sent, rate)), micros(lease));
            answered.is_some_and(|answered| answered <= at) && micros(on_clock(at, rate)) < until
        })
    }

    /// The true time at which the controller takes the pod for over: the first moment at which it has seen nothing
    /// new for long enough, while the server has nothing that it hasn't seen (it confirms that).
    fn gives_up(renewals: &[Renewal], lease: u64, rate: i64, wait: Duration) -> u64 {
        let mut arrived: Vec<(u64, u64)> = renewals
            .iter()
            .filter_map(|renewal| renewal.there.map(|there| (renewal.sent + there, renewal.sent + there + renewal.seen)))
            .collect();
        arrived.sort_unstable();
        // It begins to look at a random moment, too: at its own start, with what is there.
        let mut looks: Vec<u64> = arrived.iter().map(|(_, seen)| *seen).chain([0]).collect();
        looks.sort_unstable();
        let _ = lease;
        let over = |seen: u64| {
            let target = micros(on_clock(seen, rate)) + wait;
            // The first true microsecond whose reading is late enough.
            let mut at = seen;
            while micros(on_clock(at, rate)) < target {
                at += 1_000.max((target - micros(on_clock(at, rate))).as_micros() as u64 / 2);
            }
            at
        };
        for (n, seen) in looks.iter().enumerate() {
            let at = over(*seen);
            let undisturbed = looks.get(n + 1).is_none_or(|next| *next > at);
            let confirmed = arrived.iter().all(|(there, known)| *there > at || known <= seen);
            if undisturbed && confirmed {
                return at;
            }
        }
        u64::MAX
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// However late, lost or unanswered renewals are, and however clocks differ: when the controller gives the
        /// pod up, no promise of the node is left under which it could run. What is sent later than that is the next
        /// life's business: the agent lists its pods before it promises again.
        #[test]
        fn a_pod_is_never_given_up_while_it_may_run(
            all in renewals(),
            lease in 1_000_000..60_000_000_u64,
            node_rate in -1_000..=1_000_i64,
            own_rate in -1_000..=1_000_i64,
        ) {
            let at = gives_up(&all, lease, own_rate, surely_over(micros(lease)));
            let before: Vec<Renewal> = all
                .into_iter()
                .filter(|renewal| renewal.there.is_none_or(|there| renewal.sent + there <= at))
                .collect();
            prop_assert!(at == u64::MAX || !may_run(&before, lease, node_rate, at), "given up at {at}");
        }
    }

    #[test]
    fn without_the_allowance_for_drift_it_would_be() {
        let renewal = Renewal { sent: 0, there: Some(0), back: Some(0), seen: 0 };
        let lease = 300_000_000;
        let at = gives_up(&[renewal.clone()], lease, 1_000, micros(lease));
        assert!(may_run(&[renewal.clone()], lease, -1_000, at), "the test can fail");
        let at = gives_up(&[renewal.clone()], lease, 1_000, surely_over(micros(lease)));
        assert!(!may_run(&[renewal], lease, -1_000, at));
    }

    #[test]
    fn it_is_asked_for_in_one_word() {
        let with = |value: &str| BTreeMap::from([(ANNOTATION.to_owned(), value.to_owned())]);
        assert!(asks(Some(&with("true"))));
        assert!(!asks(Some(&with("yes"))) && !asks(Some(&BTreeMap::new())) && !asks(None));
    }
}
