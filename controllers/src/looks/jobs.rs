//! Looks at what Jobs leave behind: pods that they hold, and themselves.

use crate::{caches::Caches, driver::Controller, job, owner, plan::Plan};
use client::informer::ObjectKey;
use jiff::Timestamp;

/// Releases pods whose Job counts no more.
pub struct JobPods(pub Caches);

impl Controller for JobPods {
    type Key = ObjectKey;
    const NAME: &'static str = "job-controller";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let Some(pod) = self.0.pods.get(key) else { return Ok(Plan::nothing()) };
        let owner = owner::controller_of(&*pod);
        let job = owner.and_then(|owner| self.0.jobs.get(&ObjectKey::new(&key.namespace, &owner.name)));
        Ok(job::release_pod(&pod, job.as_deref()))
    }
}

/// Deletes finished Jobs whose time to live is over.
pub struct JobEnds(pub Caches);

impl Controller for JobEnds {
    type Key = ObjectKey;
    const NAME: &'static str = "ttl-after-finished-controller";

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        Ok(self.0.jobs.get(key).map_or_else(Plan::nothing, |job| job::expire(&job, now)))
    }
}
