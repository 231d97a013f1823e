//! Performs plans: requests to the API server, in the plan's order.
//!
//! What always holds: a plan ends at the first thing that isn't as it expected. Creates start slowly (1, 2, 4, …),
//! so that a refusal costs one request and not hundreds. Nothing is written after leadership has run out.

use super::{
    End, Report,
    outcome::{end_of, end_of_create, written_of},
    runs::run_length,
};
use crate::{
    expectations::Written,
    plan::{Action, Announce, Part, Plan, Presence, Target},
};
use client::{
    cause::{self, Cause},
    clock::Clock,
    election::Leadership,
    informer::ObjectKey,
    recorder::{Note, Recorder, Severity},
};
use futures::{StreamExt, future::join_all, stream};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::ApiResource,
};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Requests of one plan under way at the same time.
const CONCURRENT_REQUESTS: usize = 64;

/// What performing needs.
#[derive(Clone)]
pub struct Performer {
    /// The API server.
    pub client: Client,
    /// For events.
    pub recorder: Recorder,
    /// Our right to write.
    pub leadership: Leadership,
    /// Shared by all controllers.
    pub clock: Clock,
}

/// The versions that our own writes of a plan replaced, and by which: later actions on the same object go on from
/// there.
#[derive(Default)]
struct Versions(HashMap<String, (Option<String>, Option<String>)>);

impl Versions {
    /// The version that `target` must have now: the one it was seen in, or the one our own write of this plan
    /// made directly from it.
    fn current(&self, target: &Target) -> Option<String> {
        match self.0.get(&target.uid) {
            Some((seen, now)) if *seen == target.version => now.clone(),
            _ => target.version.clone(),
        }
    }
}

/// State of one plan while it is performed.
struct Progress {
    report: Report,
    versions: Versions,
}

impl Performer {
    /// For one plan of `controller`: its writes name their author, in the form PROCESS/CONTROLLER, of which the
    /// server takes the first part as the fields' manager (upstream's name, which tools know), and their cause.
    pub(super) fn acting(&self, controller: &str, cause: Option<Cause>) -> Performer {
        let agent = format!("{}/{controller}", crate::LEASE);
        Performer { client: cause::acting(&self.client, Some(&agent), cause), ..self.clone() }
    }

    /// Performs `plan` until something isn't as it expects.
    pub async fn perform(&self, component: &str, plan: &Plan) -> Report {
        let mut progress = Progress { report: Report::empty(), versions: Versions::default() };
        let mut rest = plan.actions.as_slice();
        while let Some(first) = rest.first() {
            let (run, later) = rest.split_at(run_length(first, rest));
            rest = later;
            if let Err(end) = self.perform_run(component, run, &mut progress).await {
                progress.report.end = end;
                break;
            }
        }
        progress.report
    }

    async fn perform_run(&self, component: &str, run: &[Action], progress: &mut Progress) -> Result<(), End> {
        match &run[0] {
            Action::Create { .. } => self.create_slowly(component, run, progress).await,
            Action::Delete { .. } => self.delete_all(component, run, progress).await,
            Action::Patch { .. } => self.patch_all(run, progress).await,
            single => self.perform_one(component, single, progress).await,
        }
    }

    /// In batches of 1, 2, 4, …: the first refusal ends it.
    async fn create_slowly(
        &self,
        component: &str,
        run: &[Action],
        progress: &mut Progress,
    ) -> Result<(), End> {
        let (mut rest, mut size) = (run, 1);
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            let results = join_all(batch.iter().map(|action| self.create(component, action))).await;
            let mut end = Ok(());
            for result in results {
                match result {
                    Ok(created) => progress.report.created.push(created),
                    Err(refusal) => end = Err(refusal),
                }
            }
            end?;
            rest = later;
            size = (size * 2).min(CONCURRENT_REQUESTS);
        }
        Ok(())
    }

    async fn create(&self, component: &str, action: &Action) -> Result<Written, End> {
        let Action::Create { kind, object, announce, .. } = action else {
            unreachable!("a run of creates holds creates only")
        };
        self.check_leadership()?;
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
        let object: DynamicObject = serde_json::from_value(object.clone())
            .map_err(|error| End::Refused(format!("not an object: {error}")))?;
        match self.api(kind, namespace).create(&PostParams::default(), &object).await {
            Ok(created) => {
                let created = written_of(kind, &created);
                self.announce(component, announce.as_ref(), "SuccessfulCreate", "Created", &created.key.name);
                Ok(created)
            }
            Err(error) => Err(self.create_failed(component, announce.as_ref(), error)),
        }
    }

    fn create_failed(&self, component: &str, announce: Option<&Announce>, error: kube::Error) -> End {
        let end = end_of_create(&error);
        if let (Some(announce), End::Refused(message) | End::Failed(message)) = (announce, &end) {
            let message = format!("Error creating: {message}");
            self.note(component, announce, Severity::Warning, "FailedCreate", message);
        }
        end
    }

    async fn delete_all(&self, component: &str, run: &[Action], progress: &mut Progress) -> Result<(), End> {
        let versions = &progress.versions;
        let results: Vec<_> = stream::iter(run)
            .map(|action| self.delete(component, action, versions))
            .buffered(CONCURRENT_REQUESTS)
            .collect()
            .await;
        for result in results {
            progress.report.deleted.push(result?);
        }
        Ok(())
    }

    async fn delete(
        &self,
        component: &str,
        action: &Action,
        versions: &Versions,
    ) -> Result<(ObjectKey, String), End> {
        let Action::Delete { target, propagation, grace, announce, .. } = action else {
            unreachable!("a run of deletes holds deletes only")
        };
        self.check_leadership()?;
        let params = DeleteParams {
            grace_period_seconds: *grace,
            propagation_policy: propagation.clone(),
            preconditions: Some(Preconditions {
                uid: Some(target.uid.clone()),
                resource_version: versions.current(target),
            }),
            ..DeleteParams::default()
        };
        match self.api(&target.kind, &target.namespace).delete(&target.name, &params).await {
            Ok(_) => self.announce(component, announce.as_ref(), "SuccessfulDelete", "Deleted", &target.name),
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(end_of(&error)),
        }
        Ok((ObjectKey::new(&target.namespace, &target.name), target.uid.clone()))
    }

    async fn perform_one(
        &self,
        component: &str,
        action: &Action,
        progress: &mut Progress,
    ) -> Result<(), End> {
        self.check_leadership()?;
        match action {
            Action::DeleteCollection { kind, namespace, .. } => self.delete_collection(kind, namespace).await,
            Action::Finalize { target, finalizers, .. } => self.finalize(target, finalizers, progress).await,
            Action::Confirm { target, expected, .. } => self.confirm(target, *expected, progress).await,
            Action::Event { regarding, severity, event, message } => {
                self.recorder.note(Note {
                    regarding: regarding.clone(),
                    severity: *severity,
                    reason: (*event).to_owned(),
                    message: message.clone(),
                    component: Some(component.to_owned()),
                });
                Ok(())
            }
            Action::Create { .. } | Action::Delete { .. } | Action::Patch { .. } => {
                unreachable!("creates, deletes and patches are performed in runs")
            }
        }
    }

    async fn patch_all(&self, run: &[Action], progress: &mut Progress) -> Result<(), End> {
        let versions = &progress.versions;
        let results: Vec<_> = stream::iter(run)
            .map(|action| self.patch(action, versions))
            .buffered(CONCURRENT_REQUESTS)
            .collect()
            .await;
        let mut end = Ok(());
        for result in results {
            match result {
                Ok((target, written)) => progress.replaced(&target, written),
                Err(refusal) => end = Err(refusal),
            }
        }
        end
    }

    async fn patch(&self, action: &Action, versions: &Versions) -> Result<(Target, DynamicObject), End> {
        let Action::Patch { target, part, patch, .. } = action else {
            unreachable!("a run of patches holds patches only")
        };
        self.check_leadership()?;
        let mut patch = patch.clone();
        patch["metadata"]["uid"] = json!(target.uid);
        if let Some(version) = versions.current(target) {
            patch["metadata"]["resourceVersion"] = json!(version);
        }
        let api = self.api(&target.kind, &target.namespace);
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = match part {
            Part::Whole => api.patch(&target.name, &params, &patch).await,
            Part::Status => api.patch_status(&target.name, &params, &patch).await,
            Part::Approval => api.patch_subresource("approval", &target.name, &params, &patch).await,
            Part::Scale => api.patch_subresource("scale", &target.name, &params, &patch).await,
        };
        patched.map(|patched| (target.clone(), patched)).map_err(|error| end_of(&error))
    }

    async fn delete_collection(&self, kind: &ApiResource, namespace: &str) -> Result<(), End> {
        let api = self.api(kind, namespace);
        let deleted = api.delete_collection(&DeleteParams::background(), &ListParams::default()).await;
        deleted.map(drop).map_err(|error| end_of(&error))
    }

    async fn finalize(
        &self,
        target: &Target,
        finalizers: &[String],
        progress: &mut Progress,
    ) -> Result<(), End> {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": target.name,
                "uid": target.uid,
                "resourceVersion": progress.versions.current(target),
            },
            "spec": {"finalizers": finalizers},
        });
        let request = http::Request::put(format!("/api/v1/namespaces/{}/finalize", target.name))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(object.to_string().into_bytes())
            .expect("a namespace's name is a DNS label and fits into a path");
        self.client.request::<Value>(request).await.map(drop).map_err(|error| end_of(&error))
    }

    async fn confirm(&self, target: &Target, expected: Presence, progress: &mut Progress) -> Result<(), End> {
        let found = self.api(&target.kind, &target.namespace).get_opt(&target.name).await;
        let found = found.map_err(|error| end_of(&error))?;
        let same =
            found.filter(|object| target.uid.is_empty() || object.metadata.uid.as_ref() == Some(&target.uid));
        let holds = match (expected, &same) {
            (Presence::Gone, found) => found.is_none(),
            (Presence::Alive, Some(object)) => object.metadata.deletion_timestamp.is_none(),
            (Presence::Unchanged, Some(object)) => object.metadata.resource_version == target.version,
            (_, None) => false,
        };
        if !holds {
            return Err(End::Conflict(format!("{target} is not {expected:?}")));
        }
        if expected == Presence::Gone {
            progress.report.gone.push(target.uid.clone());
        }
        Ok(())
    }

    fn api(&self, kind: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        match namespace {
            "" => Api::all_with(self.client.clone(), kind),
            namespace => Api::namespaced_with(self.client.clone(), namespace, kind),
        }
    }

    fn check_leadership(&self) -> Result<(), End> {
        if self.leadership.is_valid() { Ok(()) } else { Err(End::NotLeading) }
    }

    fn announce(&self, component: &str, announce: Option<&Announce>, event: &str, verb: &str, name: &str) {
        if let Some(announce) = announce {
            let message = format!("{verb} {}: {name}", announce.noun);
            self.note(component, announce, Severity::Normal, event, message);
        }
    }

    fn note(&self, component: &str, announce: &Announce, severity: Severity, event: &str, message: String) {
        self.recorder.note(Note {
            regarding: announce.regarding.clone(),
            severity,
            reason: event.to_owned(),
            message,
            component: Some(component.to_owned()),
        });
    }
}

impl Progress {
    fn replaced(&mut self, target: &Target, patched: DynamicObject) {
        self.report.patched.push(written_of(&target.kind, &patched));
        if target.version.is_some() {
            let version = patched.metadata.resource_version;
            self.versions.0.insert(target.uid.clone(), (target.version.clone(), version));
        }
    }
}
