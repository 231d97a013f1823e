//! Events: what happened to an object and why, for people.
//!
//! What always holds: recording never waits and never fails the caller; equal events become one Event with
//! a count; many similar ones become one combined Event; neither one object nor many can flood the cluster.
//! Events are a courtesy: when the queue is full or the server refuses one, it is dropped and counted.

mod bucket;
mod correlator;

pub use correlator::{Correlator, Note, Record};

use crate::cause::{Cause, acting};
use bucket::Bucket;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Events waiting to be written. Nobody waits when it is full: the event is dropped and counted.
const QUEUE: usize = 1024;

/// Events that a recorder may write in a burst, and in a second after it: upstream's limits of the scheduler's
/// client. When ten thousand pods find their nodes in a few seconds, telling so must not take the time of doing so.
const BURST: f64 = 100.0;
const PER_SECOND: f64 = 50.0;

/// How long the last events may take to be written when the process ends.
const DRAIN: Duration = Duration::from_secs(1);

/// Severity of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// As expected.
    Normal,
    /// Somebody should look.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        })
    }
}

/// Writes events in the name of one component; clones share one queue.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
    dropped: Arc<AtomicU64>,
}

/// The task behind a recorder; dropped, it stops at once.
#[derive(Debug)]
pub struct RecorderTask(Option<JoinHandle<()>>);

/// A recorder for `component` (e.g. `replicaset-controller`) on `host` (a node's name, or empty).
pub fn start(client: Client, component: &str, host: &str) -> (Recorder, RecorderTask) {
    let (queue, notes) = mpsc::channel(QUEUE);
    let writer = Writer { client, component: component.to_owned(), host: host.to_owned() };
    let task = tokio::spawn(writer.run(notes));
    (Recorder { queue, dropped: Arc::default() }, RecorderTask(Some(task)))
}

impl Recorder {
    /// Notes that `reason` (one CamelCase word) happened to `regarding`; `message` is for people.
    pub fn event(&self, regarding: &ObjectReference, severity: Severity, reason: &str, message: &str) {
        let note = Note {
            regarding: regarding.clone(),
            severity,
            reason: reason.to_owned(),
            message: message.to_owned(),
            component: None,
        };
        self.note(note);
    }

    /// As [`Recorder::event`], in the name of another component that shares this queue.
    pub fn note(&self, note: Note) {
        if self.queue.try_send(note).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// A reference to `object`, as an event's `involvedObject` carries it.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}

impl RecorderTask {
    /// Waits until the queued events are written, after all recorders are dropped; at most a second.
    pub async fn drain(mut self) {
        if let Some(mut task) = self.0.take()
            && timeout(DRAIN, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

impl Drop for RecorderTask {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

struct Writer {
    client: Client,
    component: String,
    host: String,
}

impl Writer {
    async fn run(self, mut notes: mpsc::Receiver<Note>) {
        let mut correlator = Correlator::default();
        let mut limit = Bucket::full(BURST, PER_SECOND, Timestamp::now());
        while let Some(note) = notes.recv().await {
            let now = Timestamp::now();
            let Some(record) = correlator.correlate(note, now, rand::random()) else { continue };
            sleep(limit.reserve(now)).await;
            if let Err(error) = self.write(&record).await {
                correlator.forget(&record);
                tracing::debug!(%error, reason = record.note.reason, "event not written");
            }
        }
    }

    async fn write(&self, record: &Record) -> kube::Result<()> {
        if record.count > 1 {
            match self.patch(record).await {
                // The event has expired or its namespace is new: write it as a first one.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => return other,
            }
        }
        self.events(record).create(&PostParams::default(), &self.event(record)).await.map(drop)
    }

    async fn patch(&self, record: &Record) -> kube::Result<()> {
        let patch = serde_json::json!({
            "count": record.count,
            "lastTimestamp": Time(record.last),
            "message": record.note.message,
        });
        self.events(record)
            .patch(&record.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .map(drop)
    }

    fn events(&self, record: &Record) -> Api<Event> {
        // The object as it was when this happened to it.
        let cause = Cause::parse(record.note.regarding.resource_version.as_deref());
        let client = cause.map(|cause| acting(&self.client, None, Some(cause)));
        Api::namespaced(client.unwrap_or_else(|| self.client.clone()), &record.namespace)
    }

    fn event(&self, record: &Record) -> Event {
        let Note { regarding, severity, reason, message, component } = record.note.clone();
        let component = component.unwrap_or_else(|| self.component.clone());
        let host = Some(self.host.clone()).filter(|host| !host.is_empty());
        Event {
            metadata: ObjectMeta {
                namespace: Some(record.namespace.clone()),
                name: Some(record.name.clone()),
                ..ObjectMeta::default()
            },
            involved_object: regarding,
            type_: Some(severity.to_string()),
            reason: Some(reason),
            message: Some(message),
            count: Some(record.count),
            first_timestamp: Some(Time(record.first)),
            last_timestamp: Some(Time(record.last)),
            reporting_component: Some(component.clone()),
            reporting_instance: host.clone(),
            source: Some(EventSource { component: Some(component), host }),
            ..Event::default()
        }
    }
}
