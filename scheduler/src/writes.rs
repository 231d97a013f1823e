//! The scheduler's writes to the API server: bindings and reports, many at once.
//!
//! A binding carries the pod's uid, so a pod recreated under the same name is never bound by mistake.
//! Nothing is sent once leadership has run out: an old leader that was paused writes nothing. Reports are
//! for people: of several about one pod only the last is sent, and a failed one is repeated by the next
//! attempt, not here.

mod bodies;

use crate::gang::Said;
use crate::name::{NodeName, PodKey, PodUid};
use crate::object::PodGroup;
use crate::scheduler::{ClaimWrite, Effect, Event};
use api::k8s::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use bodies::{binding_request, claim_patch, disrupted, group_condition, unschedulable};
use client::cause::{Cause, acting, mark};
use client::election::Leadership;
use client::recorder::{Note, Recorder, Severity};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Reports that may be under way at once; further ones wait, one per pod, so that a thousand unschedulable
/// pods don't keep bindings waiting.
const REPORTS_IN_FLIGHT: usize = 32;

/// The writes under way and the reports that wait.
pub struct Writes {
    writer: Arc<Writer>,
    /// Bindings, of which the state machine bounds the number, evictions, and the reports.
    tasks: JoinSet<Option<Event>>,
    reports_in_flight: usize,
    waiting: BTreeMap<PodKey, Report>,
}

/// The pod that is written to.
struct Subject {
    pod: PodKey,
    uid: PodUid,
    /// The `schedulerName` in whose name that is done.
    scheduler: Arc<str>,
}

/// What is to be told of a group.
struct GroupReport {
    uid: Box<str>,
    said: Said,
}

/// What a user is to be told of a pod.
struct Report {
    subject: Subject,
    message: Arc<str>,
    nominated: Option<NodeName>,
    cause: Option<Cause>,
}

/// What every write needs.
#[derive(Clone)]
struct Writer {
    /// Its writes end with our leadership.
    client: Client,
    /// For bindings, which say themselves that they do: each client within another hands a request on to a task.
    plain: Client,
    recorder: Recorder,
    leadership: Leadership,
    /// Who we are among schedulers that share nodes; `None` if we don't.
    sharer: Option<String>,
}

impl Writes {
    /// No writes yet.
    pub fn new(client: Client, recorder: Recorder, leadership: Leadership) -> Self {
        let (plain, client) = (client.clone(), client::fence::fenced(&client, &leadership));
        let writer = Writer { client, plain, recorder, leadership, sharer: None };
        let writer = Arc::new(writer);
        Writes { writer, tasks: JoinSet::new(), reports_in_flight: 0, waiting: BTreeMap::new() }
    }

    /// The same for a scheduler that shares nodes with others, under this name.
    pub fn sharing(self, sharer: Option<String>) -> Self {
        let writer = Writer { sharer, ..(*self.writer).clone() };
        Writes { writer: Arc::new(writer), ..self }
    }

    /// The right by which we write.
    pub fn leadership(&self) -> &Leadership {
        &self.writer.leadership
    }

    /// Begins an effect; `cause` is the pod as it was seen when that was decided, `seen` the newest version of pods.
    pub fn start(&mut self, effect: Effect, cause: Option<Cause>, seen: u64) {
        match effect {
            Effect::Bind { pod, uid, node, scheduler } => {
                let (writer, subject) = (self.writer.clone(), Subject { pod, uid, scheduler });
                self.tasks.spawn(async move { Some(writer.bind(subject, node, cause, seen).await) });
            }
            Effect::Prepare { pod, uid, claims, .. } => {
                let writer = self.writer.clone();
                self.tasks.spawn(async move {
                    let accepted = writer.prepare(&pod, &claims, cause).await;
                    Some(Event::Prepared { pod, uid, accepted })
                });
            }
            Effect::Report { pod, uid, message, nominated, scheduler } => {
                let subject = Subject { pod: pod.clone(), uid, scheduler };
                self.waiting.insert(pod, Report { subject, message, nominated, cause });
                self.start_reports();
            }
            Effect::ReportGroup { group, uid, said } => {
                let writer = self.writer.clone();
                self.reports_in_flight += 1;
                self.tasks.spawn(async move {
                    writer.report_group(&group, GroupReport { uid, said }).await;
                    None
                });
            }
            Effect::Evict { pod, uid, preemptor, node, scheduler } => {
                let (writer, victim) = (self.writer.clone(), Subject { pod, uid, scheduler });
                self.tasks.spawn(async move {
                    let gone = writer.evict(&victim, &preemptor, &node, cause).await;
                    Some(if gone { Event::Evicted } else { Event::NotEvicted(victim.uid) })
                });
            }
        }
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits for the next write to end; `Some` if the state machine must know of it.
    pub async fn next(&mut self) -> Option<Event> {
        let ended = self.tasks.join_next().await?;
        // A task has no code that panics and is never aborted while we wait.
        let event = ended.expect("a write neither panics nor is aborted");
        if event.is_none() {
            self.reports_in_flight -= 1;
            self.start_reports();
        }
        event
    }

    /// Lets the writes under way end, for at most `limit`.
    pub async fn drain(mut self, limit: Duration) {
        self.waiting.clear();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(writes = self.tasks.len(), "bindings were still under way at the end");
        }
    }

    fn start_reports(&mut self) {
        while self.reports_in_flight < REPORTS_IN_FLIGHT {
            let Some((_, report)) = self.waiting.pop_first() else { return };
            let writer = self.writer.clone();
            self.reports_in_flight += 1;
            self.tasks.spawn(async move {
                writer.report(report).await;
                None
            });
        }
    }
}

impl Writer {
    fn pods(&self, pod: &PodKey, cause: Option<Cause>) -> Api<Pod> {
        Api::namespaced(acting(&self.client, None, cause), &pod.namespace)
    }

    async fn bind(&self, subject: Subject, node: NodeName, cause: Option<Cause>, seen: u64) -> Event {
        let request = binding_request(&subject, &node, self.sharer.as_ref().map(|sharer| (seen, sharer)));
        let accepted =
            self.leadership.is_valid() && self.post_binding(request, &subject.pod, &node, cause).await;
        if accepted {
            let message = format!("Successfully assigned {} to {node}", subject.pod);
            self.tell(&subject, Severity::Normal, "Scheduled", message);
        }
        Event::Bound { pod: subject.pod, uid: subject.uid, accepted }
    }

    /// Records an Event of the pod in the name of the scheduler that did this.
    fn tell(&self, subject: &Subject, severity: Severity, reason: &str, message: String) {
        self.recorder.note(Note {
            regarding: subject.reference(),
            severity,
            reason: reason.to_owned(),
            message,
            component: Some(subject.scheduler.to_string()),
        });
    }

    /// One request, of whose answer only the status is read: this is the hot path.
    async fn post_binding(
        &self,
        request: http::Result<http::Request<Vec<u8>>>,
        pod: &PodKey,
        node: &NodeName,
        cause: Option<Cause>,
    ) -> bool {
        let sent = match request {
            Ok(mut request) => {
                mark(&mut request, cause);
                client::fence::mark(&mut request, &self.leadership);
                self.plain.request::<IgnoredAny>(request).await.map(drop)
            }
            Err(error) => Err(kube::Error::HttpError(error)),
        };
        if let Err(error) = &sent {
            tracing::info!(%pod, %node, %error, "binding refused; the pod will be tried again");
        }
        sent.is_ok()
    }

    /// Writes what is to become of the pod's claims. False at the first refusal: somebody else was faster, or a claim
    /// is gone, and the pod is decided about anew.
    async fn prepare(&self, pod: &PodKey, claims: &[ClaimWrite], cause: Option<Cause>) -> bool {
        let client = acting(&self.client, None, cause);
        for claim in claims {
            if !self.leadership.is_valid() {
                return false;
            }
            if let Err(error) = write_claim(&client, claim).await {
                tracing::info!(%pod, %error, "a claim's choice was refused; the pod will be tried again");
                return false;
            }
        }
        true
    }

    /// Marks the victim, so that everybody knows why it ends, and deletes it; it has its grace period.
    async fn evict(
        &self,
        victim: &Subject,
        preemptor: &PodUid,
        node: &NodeName,
        cause: Option<Cause>,
    ) -> bool {
        if !self.leadership.is_valid() {
            return false;
        }
        let Subject { pod, uid, .. } = victim;
        let pods = self.pods(pod, cause);
        let patch = Patch::Strategic(disrupted(victim, jiff::Timestamp::now()));
        let marked = pods.patch_status(&pod.name, &PatchParams::default(), &patch).await.map(drop);
        let options = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.to_string()), resource_version: None }),
            ..DeleteParams::default()
        };
        let deleted = match marked {
            Ok(()) => pods.delete(&pod.name, &options).await.map(drop),
            error => error,
        };
        match deleted {
            Ok(()) => {
                let message = format!("Preempted by pod {preemptor} on node {node}");
                self.tell(victim, Severity::Normal, "Preempted", message);
                true
            }
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
            Err(error) => {
                tracing::info!(%pod, %error, "could not drive a pod away");
                false
            }
        }
    }

    async fn report_group(&self, group: &PodKey, report: GroupReport) {
        if !self.leadership.is_valid() {
            return;
        }
        let groups: Api<PodGroup> = Api::namespaced(self.client.clone(), &group.namespace);
        let patch = Patch::Strategic(group_condition(&report, jiff::Timestamp::now()));
        if let Err(error) = groups.patch_status(&group.name, &PatchParams::default(), &patch).await {
            tracing::info!(%group, %error, "could not tell the group's condition");
        }
    }

    async fn report(&self, Report { subject, message, nominated, cause }: Report) {
        if !self.leadership.is_valid() {
            return;
        }
        self.tell(&subject, Severity::Warning, "FailedScheduling", message.to_string());
        let patch = unschedulable(&subject, &message, nominated.as_ref(), jiff::Timestamp::now());
        let pod = &subject.pod;
        let pods = self.pods(pod, cause);
        let patched = pods.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        if let Err(error) = patched {
            tracing::info!(%pod, %error, "could not report the pod as unschedulable");
        }
    }
}

impl Subject {
    fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(self.pod.namespace.to_string()),
            name: Some(self.pod.name.to_string()),
            uid: Some(self.uid.to_string()),
            ..ObjectReference::default()
        }
    }
}

async fn write_claim(client: &Client, write: &ClaimWrite) -> kube::Result<()> {
    let parameters = PatchParams::default();
    match write {
        ClaimWrite::Select { claim, .. } => {
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &claim.namespace);
            claims.patch(&claim.name, &parameters, &Patch::Merge(claim_patch(write))).await.map(drop)
        }
        ClaimWrite::Give { volume, .. } => {
            let volumes: Api<PersistentVolume> = Api::all(client.clone());
            volumes.patch(&volume.0, &parameters, &Patch::Merge(claim_patch(write))).await.map(drop)
        }
    }
}
