//! Whether a Job is decided, and why.

use super::{Look, Verdict, conditions, policy};
use crate::pod::{self, Pod};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::JobCondition;

/// A decided Job; its pods may still have to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Or it has failed.
    pub success: bool,
    /// One CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Outcome {
    fn failure(reason: &str, message: impl Into<String>) -> Option<Outcome> {
        Some(Outcome { success: false, reason: reason.to_owned(), message: message.into() })
    }

    fn success(reason: &str, message: impl Into<String>) -> Option<Outcome> {
        Some(Outcome { success: true, reason: reason.to_owned(), message: message.into() })
    }

    fn of(condition: &JobCondition, success: bool) -> Option<Outcome> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Some(Outcome { success, reason: text(&condition.reason), message: text(&condition.message) })
    }
}

impl Look<'_> {
    /// How the Job ends, once that is decided; what was decided earlier stays.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        let decided = |type_: &str| conditions::is_true(self.job, type_);
        if let Some(condition) = decided("FailureTarget") {
            return Outcome::of(condition, false);
        }
        if let Some(condition) = decided("SuccessCriteriaMet") {
            return Outcome::of(condition, true);
        }
        self.failed_by_policy()
            .or_else(|| self.beyond_limits())
            .or_else(|| self.failed_by_indexes())
            .or_else(|| self.succeeded_by_policy())
            .or_else(|| self.completed())
    }

    fn failed_by_policy(&self) -> Option<Outcome> {
        self.failed.iter().find_map(|(_, verdict)| match verdict {
            Verdict::FailJob(message) => Outcome::failure("PodFailurePolicy", message.clone()),
            _ => None,
        })
    }

    fn beyond_limits(&self) -> Option<Outcome> {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if self.failed_total() > limit || self.restarts_reach(limit) {
            return Outcome::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if self.deadline().is_some_and(|deadline| deadline <= self.now) {
            return Outcome::failure("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        None
    }

    /// When the Job's time is over; none while it doesn't run, or is about to be started anew.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let resumes = conditions::is_true(self.job, "Suspended").is_some();
        if self.is_suspended() || resumes {
            return None;
        }
        let seconds = SignedDuration::from_secs(self.spec.active_deadline_seconds?);
        let start = self.status().start_time.map_or(self.now, |time| time.0);
        Some(start.checked_add(seconds).unwrap_or(Timestamp::MAX))
    }

    /// Containers that restart in place are failures, too.
    fn restarts_reach(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let runs = |pod: &&std::sync::Arc<Pod>| matches!(pod::phase(pod), "Running" | "Pending");
        let restarts: i32 = self.pods.iter().filter(runs).map(|pod| restarts(pod)).sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn failed_by_indexes(&self) -> Option<Outcome> {
        let indexes = self.indexes.as_ref().filter(|_| self.spec.backoff_limit_per_index.is_some())?;
        let failed = indexes.failed.count();
        if self.spec.max_failed_indexes.is_some_and(|most| failed > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Outcome::failure("MaxFailedIndexesExceeded", message);
        }
        if failed > 0 && failed + indexes.succeeded.count() >= indexes.completions {
            return Outcome::failure("FailedIndexes", "Job has failed indexes");
        }
        None
    }

    fn succeeded_by_policy(&self) -> Option<Outcome> {
        let indexes = self.indexes.as_ref()?;
        let message = policy::success(self.spec, &indexes.succeeded, indexes.completions)?;
        Outcome::success("SuccessPolicy", message)
    }

    fn completed(&self) -> Option<Outcome> {
        let wanted = self.spec.completions.unwrap_or(1);
        let outstanding = self.active.len() + self.pending.unseen(&self.pods);
        let reached = self.succeeded_total() >= wanted && outstanding == 0;
        if !reached || (self.is_suspended() && self.spec.completions.is_none()) {
            return None;
        }
        Outcome::success("CompletionsReached", "Reached expected number of succeeded pods")
    }
}

fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let plain = status.into_iter().flat_map(|status| status.container_statuses.iter().flatten());
    let init = status.into_iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    plain.chain(init).map(|container| container.restart_count).sum()
}
