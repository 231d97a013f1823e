//! The scheduler's writes to the API server: bindings and reports, many at once.
//!
//! A binding carries the pod's uid, so a pod recreated under the same name is never bound by mistake.
//! Nothing is sent once leadership has run out: an old leader that was paused writes nothing. Reports are
//! for people: of several about one pod only the last is sent, and a failed one is repeated by the next
//! attempt, not here.

use crate::gang::{INITIALLY_SCHEDULED, Said};
use crate::name::{NodeName, PodKey, PodUid};
use crate::object::PodGroup;
use crate::scheduler::{ClaimWrite, Effect, Event};
use crate::storage::SELECTED_NODE;
use api::k8s::api::core::v1::{Binding, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::cause::{Cause, acting, mark};
use client::election::Leadership;
use client::recorder::{Recorder, Severity};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Reports that may be under way at once; further ones wait, one per pod, so that a thousand unschedulable
/// pods don't keep bindings waiting.
const REPORTS_IN_FLIGHT: usize = 32;

/// On a volume: whoever binds may take it back, since no user has said whose it is.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// The writes under way and the reports that wait.
pub struct Writes {
    writer: Arc<Writer>,
    /// Bindings, of which the state machine bounds the number, evictions, and the reports.
    tasks: JoinSet<Option<Event>>,
    reports_in_flight: usize,
    waiting: BTreeMap<PodKey, Report>,
}

/// What is to be told of a group.
struct GroupReport {
    uid: Box<str>,
    said: Said,
}

/// What a user is to be told of a pod.
struct Report {
    uid: PodUid,
    message: Arc<str>,
    nominated: Option<NodeName>,
    cause: Option<Cause>,
}

/// What every write needs.
struct Writer {
    /// Our `schedulerName`.
    name: String,
    /// Its writes end with our leadership.
    client: Client,
    /// For bindings, which say themselves that they do: each client within another hands a request on to a task.
    plain: Client,
    recorder: Recorder,
    leadership: Leadership,
    /// Who we are among schedulers that share nodes; `None` if we don't.
    sharer: Option<String>,
}

/// The header in which a binding says on which knowledge it was decided: our API server refuses it if another
/// scheduler's was made to the node since. Others ignore it.
const ROOM: &str = "amoeba-room";

impl Writes {
    /// No writes yet.
    pub fn new(name: &str, client: Client, recorder: Recorder, leadership: Leadership) -> Self {
        let (plain, client) = (client.clone(), client::fence::fenced(&client, &leadership));
        let writer = Writer { name: name.to_owned(), client, plain, recorder, leadership, sharer: None };
        let writer = Arc::new(writer);
        Writes { writer, tasks: JoinSet::new(), reports_in_flight: 0, waiting: BTreeMap::new() }
    }

    /// The same for a scheduler that shares nodes with others, under this name.
    pub fn sharing(self, sharer: Option<String>) -> Self {
        let Writer { name, client, plain, recorder, leadership, .. } = &*self.writer;
        let (name, recorder, leadership) = (name.clone(), recorder.clone(), leadership.clone());
        let (client, plain) = (client.clone(), plain.clone());
        let writer = Writer { name, client, plain, recorder, leadership, sharer };
        Writes { writer: Arc::new(writer), ..self }
    }

    /// The right by which we write.
    pub fn leadership(&self) -> &Leadership {
        &self.writer.leadership
    }

    /// Begins an effect; `cause` is the pod as it was seen when that was decided, `seen` the newest version of pods.
    pub fn start(&mut self, effect: Effect, cause: Option<Cause>, seen: u64) {
        match effect {
            Effect::Bind { pod, uid, node } => {
                let writer = self.writer.clone();
                self.tasks.spawn(async move { Some(writer.bind(pod, uid, node, cause, seen).await) });
            }
            Effect::Prepare { pod, uid, claims, .. } => {
                let writer = self.writer.clone();
                self.tasks.spawn(async move {
                    let accepted = writer.prepare(&pod, &claims, cause).await;
                    Some(Event::Prepared { pod, uid, accepted })
                });
            }
            Effect::Report { pod, uid, message, nominated } => {
                self.waiting.insert(pod, Report { uid, message, nominated, cause });
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
            Effect::Evict { pod, uid, preemptor, node } => {
                let writer = self.writer.clone();
                self.tasks.spawn(async move {
                    let gone = writer.evict(&pod, &uid, &preemptor, &node, cause).await;
                    Some(if gone { Event::Evicted } else { Event::NotEvicted(uid) })
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
            let Some((pod, report)) = self.waiting.pop_first() else { return };
            let writer = self.writer.clone();
            self.reports_in_flight += 1;
            self.tasks.spawn(async move {
                writer.report(&pod, report).await;
                None
            });
        }
    }
}

impl Writer {
    fn pods(&self, pod: &PodKey, cause: Option<Cause>) -> Api<Pod> {
        Api::namespaced(acting(&self.client, None, cause), &pod.namespace)
    }

    async fn bind(&self, pod: PodKey, uid: PodUid, node: NodeName, cause: Option<Cause>, seen: u64) -> Event {
        let request = binding_request(&pod, &uid, &node, self.sharer.as_ref().map(|sharer| (seen, sharer)));
        let accepted = self.leadership.is_valid() && self.post_binding(request, &pod, &node, cause).await;
        if accepted {
            let message = format!("Successfully assigned {pod} to {node}");
            self.recorder.event(&reference(&pod, &uid), Severity::Normal, "Scheduled", &message);
        }
        Event::Bound { pod, uid, accepted }
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
        pod: &PodKey,
        uid: &PodUid,
        preemptor: &PodUid,
        node: &NodeName,
        cause: Option<Cause>,
    ) -> bool {
        if !self.leadership.is_valid() {
            return false;
        }
        let pods = self.pods(pod, cause);
        let patch = Patch::Strategic(disrupted(uid, &self.name, jiff::Timestamp::now()));
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
                self.recorder.event(&reference(pod, uid), Severity::Normal, "Preempted", &message);
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

    async fn report(&self, pod: &PodKey, Report { uid, message, nominated, cause }: Report) {
        if !self.leadership.is_valid() {
            return;
        }
        self.recorder.event(&reference(pod, &uid), Severity::Warning, "FailedScheduling", &message);
        let patch =
            Patch::Strategic(unschedulable(&uid, &message, nominated.as_ref(), jiff::Timestamp::now()));
        let pods = self.pods(pod, cause);
        if let Err(error) = pods.patch_status(&pod.name, &PatchParams::default(), &patch).await {
            tracing::info!(%pod, %error, "could not report the pod as unschedulable");
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

/// The patch; the uid and version in it make the API server refuse it for another object, or another state of it.
fn claim_patch(write: &ClaimWrite) -> Value {
    match write {
        ClaimWrite::Select { uid, node, .. } => {
            json!({"metadata": {"uid": uid, "annotations": {SELECTED_NODE: *node.0}}})
        }
        ClaimWrite::Give { uid, version, claim: (key, claim_uid), ours, .. } => {
            let mut patch = json!({
                "metadata": {"uid": uid, "resourceVersion": version},
                "spec": {"claimRef": {
                    "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": *key.namespace,
                    "name": *key.name, "uid": claim_uid,
                }},
            });
            if *ours {
                patch["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
            }
            patch
        }
    }
}

fn group_condition(GroupReport { uid, said }: &GroupReport, now: jiff::Timestamp) -> Value {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (status, reason) = if said.scheduled { ("True", "Scheduled") } else { ("False", "Unschedulable") };
    json!({
        "metadata": {"uid": uid},
        "status": {"conditions": [{
            "type": INITIALLY_SCHEDULED, "status": status, "reason": reason, "message": *said.message,
            "lastTransitionTime": now,
        }]},
    })
}

fn binding_request(
    pod: &PodKey,
    uid: &PodUid,
    node: &NodeName,
    room: Option<(u64, &String)>,
) -> http::Result<http::Request<Vec<u8>>> {
    let body = serde_json::to_vec(&binding(pod, uid, node)).expect("a binding has a JSON form");
    let path = format!("/api/v1/namespaces/{}/pods/{}/binding", pod.namespace, pod.name);
    let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
    let request = match room {
        Some((seen, sharer)) => request.header(ROOM, format!("{seen}/{sharer}")),
        None => request,
    };
    request.body(body)
}

fn binding(pod: &PodKey, uid: &PodUid, node: &NodeName) -> Binding {
    Binding {
        metadata: ObjectMeta {
            name: Some(pod.name.to_string()),
            namespace: Some(pod.namespace.to_string()),
            uid: Some(uid.to_string()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_string()),
            ..ObjectReference::default()
        },
    }
}

/// The status patch; the uid in it makes the API server refuse it for another incarnation of the pod.
fn unschedulable(uid: &PodUid, message: &str, nominated: Option<&NodeName>, now: jiff::Timestamp) -> Value {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "metadata": {"uid": *uid.0},
        "status": {"nominatedNodeName": nominated.map(|node| &*node.0), "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastProbeTime": null, "lastTransitionTime": now,
        }]},
    })
}

/// The status patch of a victim.
fn disrupted(uid: &PodUid, scheduler: &str, now: jiff::Timestamp) -> Value {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "metadata": {"uid": *uid.0},
        "status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
            "lastTransitionTime": now,
        }]},
    })
}

fn reference(pod: &PodKey, uid: &PodUid) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.to_string()),
        name: Some(pod.name.to_string()),
        uid: Some(uid.to_string()),
        ..ObjectReference::default()
    }
}
