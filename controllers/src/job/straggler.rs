//! Second copies of tasks that run far longer than their siblings, as batch systems since MapReduce have them.
//!
//! Off unless the Job is annotated with a factor. A copy takes a free slot of the Job's parallelism only, prefers
//! another node, and ends like its original: whoever finishes first completes the index, which is a set and so
//! counts once; the other is removed without counting as a failure.

use super::{Look, pods, workload::Work};
use crate::{
    plan::Action,
    pod::{self, Pod},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use std::sync::Arc;

/// How many times the median duration of finished siblings makes a straggler, e.g. `2.5`; at least 1.
pub const FACTOR: &str = "amoeba.dev/straggler-factor";
/// Before this many siblings have finished nobody is judged by them.
const SIBLINGS: usize = 3;

/// The factor, if the Job asks for copies.
pub fn factor(job: &Job) -> Option<f64> {
    job.annotations().get(FACTOR)?.parse().ok().filter(|factor: &f64| *factor >= 1.0 && factor.is_finite())
}

impl Look<'_> {
    /// At most `free` second copies; notes when the next one is due.
    pub(super) fn copies(&self, free: usize, work: &mut Work) -> Vec<Action> {
        let Some(limit) = self.straggler_limit() else { return Vec::new() };
        let mut copies = Vec::new();
        for pod in &self.active {
            let (Some(index), Some(start)) = (pods::index_of(pod), pods::started_at(pod)) else { continue };
            if pod.uid().is_some_and(|uid| work.deleted.contains(&uid))
                || copies.len() == free
                || self.runs_twice(index)
                || self.pauses(Some(start + limit), work)
            {
                continue;
            }
            copies.push(self.create(Some(index), format!("{} runs longer than {limit:#}", pod.name_any())));
        }
        copies
    }

    /// How long a task may take before it is copied; none if that can't be judged.
    fn straggler_limit(&self) -> Option<SignedDuration> {
        let factor = factor(self.job)?;
        let mut durations: Vec<SignedDuration> = self.pods.iter().filter_map(duration).collect();
        durations.sort();
        let median = (durations.len() >= SIBLINGS).then(|| durations[durations.len() / 2])?;
        Some(SignedDuration::from_secs_f64((median.as_secs_f64() * factor).clamp(1.0, 1e9)))
    }

    fn runs_twice(&self, index: i32) -> bool {
        self.active.iter().filter(|pod| pods::index_of(pod) == Some(index)).count() > 1
    }
}

/// How long a succeeded pod took.
fn duration(pod: &Arc<Pod>) -> Option<SignedDuration> {
    if pod::phase(pod) != "Succeeded" {
        return None;
    }
    let (start, end): (Timestamp, Timestamp) = (pods::started_at(pod)?, pods::ended_at(pod)?);
    Some(end.duration_since(start))
}
