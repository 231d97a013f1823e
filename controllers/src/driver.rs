//! The thin driver of all controllers: takes keys from a queue, has them looked at, has the plans performed
//! ([`Performer`]).
//!
//! What always holds: a plan that couldn't be performed to its end is dropped, and the key is looked at again,
//! later each time. The driver decides nothing.

mod outcome;
mod perform;
mod runs;

use crate::{expectations::Written, plan::Plan};
use client::{
    Shutdown,
    cause::Cause,
    informer::ObjectKey,
    queue::{Outcome, WorkQueue},
};
use jiff::Timestamp;
pub use perform::Performer;
use std::{fmt::Display, future::Future, hash::Hash, time::Duration};

/// One controller as the driver sees it.
pub trait Controller: Sync {
    /// What it reconciles.
    type Key: Clone + Eq + Hash + Display + Send + Sync;

    /// Its name in events and logs, as upstream's.
    const NAME: &'static str;

    /// Builds the snapshot for `key` and decides. Only a controller that must ask the server can fail here.
    fn look(&self, key: &Self::Key, now: Timestamp) -> impl Future<Output = kube::Result<Plan>> + Send;

    /// Learns what became of its plan.
    fn performed(&self, _key: &Self::Key, _report: &Report, _now: Timestamp) {}
}

/// What became of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Objects that now exist.
    pub created: Vec<Written>,
    /// Objects whose deletion the server has accepted.
    pub deleted: Vec<(ObjectKey, String)>,
    /// Objects that were patched, as they are now.
    pub patched: Vec<Written>,
    /// Uids that the server has confirmed as gone.
    pub gone: Vec<String>,
    /// How far it came.
    pub end: End,
}

impl Report {
    /// Of a plan that nothing was done about yet.
    pub fn empty() -> Report {
        Report {
            created: Vec::new(),
            deleted: Vec::new(),
            patched: Vec::new(),
            gone: Vec::new(),
            end: End::Complete,
        }
    }
}

/// How far a plan came.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// To the end.
    Complete,
    /// Something wasn't as expected: the view was old.
    Conflict(String),
    /// The server refused a create for a lasting reason, e.g. quota.
    Refused(String),
    /// The namespace is being deleted: nothing can be created in it, and nothing needs to be.
    NamespaceEnds,
    /// The server could not be asked.
    Failed(String),
    /// Our leadership ended.
    NotLeading,
}

/// Runs `controller` over `queue` until `shutdown`.
pub async fn run<C: Controller>(
    controller: &C,
    queue: &WorkQueue<C::Key>,
    concurrency: usize,
    performer: &Performer,
    shutdown: Shutdown,
) {
    let reconcile = |key, cause| async move { reconcile(controller, &key, cause, performer).await };
    queue.run(concurrency, shutdown, reconcile).await;
}

async fn reconcile<C: Controller>(
    controller: &C,
    key: &C::Key,
    cause: Option<Cause>,
    performer: &Performer,
) -> Outcome {
    let plan = match controller.look(key, performer.clock.now()).await {
        Ok(plan) => plan,
        Err(error) => {
            tracing::debug!(controller = C::NAME, %key, %error, "could not look");
            return Outcome::Retry;
        }
    };
    if plan.actions.is_empty() {
        return after(&plan, performer.clock.now());
    }
    for action in &plan.actions {
        tracing::debug!(controller = C::NAME, %key, "{action}");
    }
    let report = performer.acting(C::NAME, cause).perform(C::NAME, &plan).await;
    let now = performer.clock.now();
    controller.performed(key, &report, now);
    match &report.end {
        End::Complete | End::NamespaceEnds => after(&plan, now),
        end => {
            tracing::debug!(controller = C::NAME, %key, ?end, "plan dropped");
            Outcome::Retry
        }
    }
}

fn after(plan: &Plan, now: Timestamp) -> Outcome {
    match plan.again {
        Some(again) => Outcome::After(Duration::try_from(again.duration_since(now)).unwrap_or_default()),
        None => Outcome::Done,
    }
}

#[cfg(test)]
mod tests;
