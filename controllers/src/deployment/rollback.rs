//! Going back by itself when a rollout fails, for Deployments that ask for it. Upstream only reports the failure.
//!
//! What always holds: it happens once for a template. The ReplicaSet that was gone back to is noted on the
//! Deployment, so one that fails in its turn isn't left for the template that failed before it.

use super::{Rollout, revision, status};
use crate::plan::{Part, Severity, Target, difference, to_value};
use k8s_openapi::api::apps::v1::DeploymentStatus;
use kube::{Resource, ResourceExt};
use serde_json::json;

/// Asks for it: `true`.
pub const ASKED: &str = "amoeba.dev/rollback-on-failure";
/// The ReplicaSet that a failed rollout was ended for.
pub const DONE: &str = "amoeba.dev/rolled-back-to";

impl Rollout<'_> {
    /// Brings back the template of the last revision if the rollout ran into its deadline.
    pub(super) fn roll_back_if_failed(&mut self, status: &DeploymentStatus) {
        let deployment = self.deployment;
        let asked = deployment.annotations().get(ASKED).is_some_and(|asked| asked == "true");
        let idle = self.spec.paused == Some(true) || deployment.metadata.deletion_timestamp.is_some();
        if !asked || idle || !status::has_timed_out(status) {
            return;
        }
        let Some(failed) = self.new.as_ref().map(|new| new.set.clone()) else { return };
        let earlier = |number: i64| number > 0 && number < revision::of(&failed);
        let last = self.old.iter().filter(|old| earlier(revision::of(&old.set)));
        let Some(last) = last.max_by_key(|old| revision::of(&old.set)).map(|old| old.set.clone()) else {
            return;
        };
        if deployment.annotations().get(DONE) == Some(&failed.name_any()) {
            return;
        }
        let template = revision::without_hash(last.spec.template.clone().unwrap_or_default());
        let Some(patch) = difference(&to_value(&self.spec.template), &to_value(&template)) else { return };
        let (from, to) = (revision::of(&failed), revision::of(&last));
        let patch = json!({
            "metadata": {"annotations": {DONE: last.name_any()}},
            "spec": {"template": patch},
        });
        self.plan.patch(
            Target::of(deployment),
            Part::Whole,
            patch,
            format!("revision {from} made no progress"),
        );
        let message = format!(
            "Rolled back deployment {:?} to revision {to}, because revision {from} made no progress within its deadline",
            deployment.name_any()
        );
        self.plan.event(deployment.object_ref(&()), Severity::Warning, "DeploymentRollback", message);
    }
}
