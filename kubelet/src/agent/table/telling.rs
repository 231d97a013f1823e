//! What the API server is told of a pod, and what is recorded for the next agent: whenever it is something else than
//! before, and when somebody else has written over it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::Value;

use super::{Entry, PodTable, Work};
use crate::agent::status_patch::{owned_part, patch};
use crate::pod::static_pod::is_static;
use crate::pod::{PodRef, PodUid};

/// A status to be told to the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// Whose.
    pub pod: PodRef,
    /// The patch of the `status` subresource.
    pub patch: Value,
    /// All processes are gone: delete the object once this status has been acknowledged.
    pub then_delete: bool,
}

impl PodTable {
    /// Someone else wrote a status that is the node's to write: say it again.
    pub(super) fn reassert(&mut self, uid: &PodUid, seen: &Pod, work: &mut Vec<Work>) {
        let Some(entry) = self.pods.get(uid) else { return };
        let Some(published) = entry.published.as_ref().filter(|_| !self.stopping) else { return };
        if contradicts(seen, &published.patch["status"]) {
            work.push(Work::Publish(published.clone()));
        }
    }
}

/// Publishes and records the status if it has changed, and forgets the pod when nothing is left of it.
pub(super) fn report(entry: &mut Entry, now: Timestamp, work: &mut Vec<Work>) {
    if entry.life.is_forgotten() {
        if !std::mem::replace(&mut entry.forgotten, true) {
            work.push(Work::Forget(entry.life.pod_ref().clone()));
        }
        return;
    }
    if entry.life.has_ended() && !std::mem::replace(&mut entry.released, true) {
        work.push(Work::Release(entry.life.pod_ref().clone()));
    }
    let status = entry.life.status(now);
    let Some(pod) = told_as(entry) else { return record(entry, status, work) };
    let seen = entry.life.pod().status.as_ref();
    let publication =
        Publication { patch: patch(&pod, &status, seen), pod, then_delete: entry.life.may_be_deleted() };
    if entry.published.as_ref() == Some(&publication) {
        return;
    }
    entry.published = Some(publication.clone());
    record(entry, status, work);
    work.push(Work::Publish(publication));
}

/// Under which identity the API has the pod, if it has it at all.
fn told_as(entry: &Entry) -> Option<PodRef> {
    let own = entry.life.pod_ref().clone();
    if !is_static(entry.life.pod()) {
        return Some(own);
    }
    entry.mirror.clone().map(|uid| PodRef { uid, ..own })
}

fn record(entry: &mut Entry, status: PodStatus, work: &mut Vec<Work>) {
    if std::mem::replace(&mut entry.recorded, true) && !entry.life.is_preparing() {
        let mut record = entry.life.pod().clone();
        record.status = Some(status);
        work.push(Work::Save(Arc::new(record)));
    }
}

/// Whether the API server has another phase or another verdict on a condition than we have told. Details
/// don't count: a server that drops a field must not be told of it forever.
pub(super) fn contradicts(seen: &Pod, told: &Value) -> bool {
    let seen = seen.status.as_ref().map(owned_part).unwrap_or_default();
    let verdicts = |status: &Value| -> Vec<(Value, Value)> {
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().map(|c| (c["type"].clone(), c["status"].clone())).collect()
    };
    seen["phase"] != told["phase"] || verdicts(&seen) != verdicts(told)
}
