//! Tells the API server of the pods' statuses, and deletes the objects of pods that are over.
//!
//! Always holds: of several statuses of one pod only the newest is sent; a status is sent again until it
//! is acknowledged or the pod is gone; the final delete follows the acknowledged final status and names
//! the uid, so it can't hit a successor of the same name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::error::chain;
use client::Shutdown;
use client::backoff::Policy;
use client::cause::{self, Cause};
use client::queue::{Outcome, WorkQueue};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::agent::table::Publication;
use crate::pod::PodUid;

/// How many pods are told of at once: enough to fill the API server's group commits.
const CONCURRENCY: usize = 16;

/// Statuses that wait to be told, one for each pod.
#[derive(Clone)]
pub struct Publisher {
    client: kube::Client,
    queue: WorkQueue<PodUid>,
    newest: Arc<Mutex<BTreeMap<PodUid, Publication>>>,
    /// Something has been told: whoever flushes looks again.
    told: Arc<Notify>,
}

impl Publisher {
    /// Nothing to tell yet.
    pub fn new(client: kube::Client) -> Self {
        Self { client, queue: WorkQueue::new(Policy::CONNECT), newest: Arc::default(), told: Arc::default() }
    }

    /// Replaces what was to be told of this pod; `cause` is the pod as it was seen when that was found out.
    pub fn publish(&self, publication: Publication, cause: Option<Cause>) {
        let uid = publication.pod.uid.clone();
        self.newest.lock().insert(uid.clone(), publication);
        self.queue.add_because(uid, cause);
    }

    /// Tells until asked to stop.
    pub async fn run(&self, shutdown: Shutdown) {
        self.queue.run(CONCURRENCY, shutdown, |uid, cause| self.tell(uid, cause)).await;
    }

    /// Waits until everything has been told, but no longer than this.
    pub async fn flush(&self, limit: Duration) {
        let told = async {
            while !self.newest.lock().is_empty() {
                self.told.notified().await;
            }
        };
        if tokio::time::timeout(limit, told).await.is_err() {
            tracing::warn!(pods = self.newest.lock().len(), "statuses are left untold");
        }
    }

    async fn tell(&self, uid: PodUid, cause: Option<Cause>) -> Outcome {
        let Some(publication) = self.newest.lock().get(&uid).cloned() else { return Outcome::Done };
        match self.send(&publication, cause).await {
            Ok(()) => {
                let mut newest = self.newest.lock();
                if newest.get(&uid) == Some(&publication) {
                    newest.remove(&uid);
                }
                drop(newest);
                self.told.notify_one();
                Outcome::Done
            }
            Err(error) => {
                let pod = &publication.pod;
                tracing::warn!(%pod, error = %chain(&error), "tell the API server of a pod's status");
                Outcome::Retry
            }
        }
    }

    async fn send(&self, publication: &Publication, cause: Option<Cause>) -> Result<(), kube::Error> {
        let client = cause::acting(&self.client, None, cause);
        let pods: Api<Pod> = Api::namespaced(client, &publication.pod.namespace);
        let name = &publication.pod.name;
        let patch = Patch::Strategic(&publication.patch);
        let told = pods.patch_status(name, &PatchParams::default(), &patch).await;
        if is_settled(&told) || !publication.then_delete {
            return settled(told);
        }
        told?;
        let uid = Some(publication.pod.uid.0.clone());
        let preconditions = Some(Preconditions { uid, resource_version: None });
        let now = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
        settled(pods.delete(name, &now).await)
    }
}

/// The pod is gone, or another one has its name.
fn is_settled<T>(result: &Result<T, kube::Error>) -> bool {
    matches!(result, Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409)
}

/// A pod that is gone has been told of enough; so has one whose status the server calls invalid, since
/// saying it again changes nothing.
fn settled<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 422 => {
            tracing::error!(message = %status.message, "the API server refuses a pod's status");
            Ok(())
        }
        other => other.map(drop),
    }
}
