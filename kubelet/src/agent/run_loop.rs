//! The loop itself: select, step, perform.

mod carrying_out;
mod draining;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use client::Shutdown;
use client::clock::Clock;
use client::informer::{Change, Informer, Subscription};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Interval;

use crate::agent::perform::Performer;
use crate::agent::publisher::Publisher;
use crate::agent::storage;
use crate::agent::table::{PodTable, Work};
use crate::eviction::Observation;
use crate::eviction::storage::{StorageUsage, is_limited};
use crate::node::object::Health;
use crate::node::tenure::GivenUp;
use crate::pod::effect::PodEvent;
use crate::pod::env::{ReferenceKey, refers};
use crate::pod::life::PodLife;
use crate::pod::static_pod::mirrored;
use crate::pod::volumes::{is_made_of_objects, volumes};
use crate::pod::{PodRef, PodUid};
use crate::runtime::{RuntimeError, RuntimeEvent};
use crate::server::Query;

/// Changes of pods that wait for the loop. When it is full, the watch waits: nothing is lost.
const CHANGES: usize = 256;

/// Everything the loop owns.
pub struct RunLoop {
    pub performer: Performer,
    pub publisher: Publisher,
    pub table: PodTable,
    /// Questions of the node's API.
    pub queries: mpsc::Receiver<Query>,
    /// Counts ended containers: whoever follows a log looks again.
    pub ended: watch::Sender<u64>,
    pub clock: Clock,
    /// Effects being carried out; each ends in at most one answer.
    pub answers: JoinSet<Answer>,
    /// What of the pods becomes when the agent is asked to stop.
    pub stop: Stop,
    /// Measurements of the node, taken one after the other.
    pub observations: mpsc::Receiver<Observation>,
    /// How the node is, for those who report it.
    pub health: watch::Sender<Health>,
    /// Pods that may not begin any more.
    pub given_up: mpsc::Receiver<GivenUp>,
    /// Who waits until they have ended.
    pub ending: Vec<oneshot::Sender<()>>,
    /// The pods that run from files, whenever they change.
    pub files: mpsc::Receiver<Vec<Pod>>,
    /// Who keeps their mirrors is told of them.
    pub mirrors: watch::Sender<Vec<Pod>>,
    /// When to look at what pods with a limit have on the disk.
    pub looks: Interval,
    /// Where that is.
    pub data_dir: PathBuf,
}

/// What of the pods becomes when the agent is asked to stop.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// They run on for the next agent.
    LeavePods,
    /// They end within this time; the next agent runs them again.
    EndPods(Duration),
    /// The node goes down, and they end for good.
    Node {
        /// For those that aren't critical.
        ordinary: Duration,
        /// For the others, afterwards.
        critical: Duration,
    },
}

/// What a task of the loop comes back with.
pub enum Answer {
    /// The next event of a pod.
    Pod(PodUid, PodEvent),
    /// All traces of a pod are gone.
    Forgotten(PodUid),
    /// What a pod has on the disk.
    Stored(PodUid, StorageUsage),
    /// Nothing.
    None,
}

enum Event {
    Change(Change<Pod>),
    Ended(RuntimeEvent),
    Answer(Answer),
    References(BTreeSet<ReferenceKey>),
    /// Tokens of these pods are to be renewed.
    Tokens(Vec<PodUid>),
    Query(Query),
    Observed(Observation),
    GivenUp(GivenUp),
    /// The pods that run from files are these now.
    Files(Vec<Pod>),
    /// Time to look at what pods have on the disk.
    Look,
    Timer,
    Stop,
}

impl RunLoop {
    /// Runs until asked to stop, then drains.
    pub async fn run(mut self, informer: &Informer<Pod>, shutdown: Shutdown) -> Result<(), RuntimeError> {
        // Listing comes first: it has the ends of running containers told as events.
        let mut ends = self.performer.runtime.events().expect("the agent is the only reader of events");
        let found = self.performer.runtime.list_containers().await?;
        let records = self.performer.checkpoints.load().unwrap_or_else(|error| {
            tracing::error!(%error, "read the pods' records");
            Vec::new()
        });
        let work = self.table.restore(records, found, self.clock.now());
        self.carry_out(work);
        let mut changes = informer.subscribe(CHANGES);
        loop {
            let event = self.next(&mut changes, &mut ends, &shutdown).await;
            if matches!(event, Event::Stop) {
                break;
            }
            self.handle(event, informer);
        }
        self.drain(&mut ends).await;
        Ok(())
    }

    async fn next(
        &mut self,
        changes: &mut Subscription<Pod>,
        ends: &mut mpsc::Receiver<RuntimeEvent>,
        shutdown: &Shutdown,
    ) -> Event {
        let wake = self.table.next_wake().map(|at| self.clock.instant(at));
        tokio::select! {
            biased;
            () = shutdown.requested() => Event::Stop,
            Some(end) = ends.recv() => Event::Ended(end),
            Some(done) = self.answers.join_next(), if !self.answers.is_empty() => Event::Answer(answer(done)),
            Some(change) = changes.recv() => Event::Change(change),
            keys = self.performer.references.changed() => Event::References(keys),
            pods = self.performer.volumes.due() => Event::Tokens(pods),
            Some(query) = self.queries.recv() => Event::Query(query),
            Some(seen) = self.observations.recv() => Event::Observed(seen),
            Some(pods) = self.given_up.recv() => Event::GivenUp(pods),
            Some(pods) = self.files.recv() => Event::Files(pods),
            _ = self.looks.tick() => Event::Look,
            () = sleep_until(wake) => Event::Timer,
        }
    }

    fn handle(&mut self, event: Event, informer: &Informer<Pod>) {
        let now = self.clock.now();
        let stirred = matches!(&event, Event::Change(change) if stirs_mirrors(change));
        let work = match event {
            Event::Change(change) => self.changed(change, informer, now),
            Event::Ended(RuntimeEvent { pod, id, exit }) => {
                let work = self.table.exited(&pod, id, exit, now);
                self.ended.send_modify(|count| *count += 1);
                work
            }
            Event::Query(query) => {
                query.answer(&self.table);
                Vec::new()
            }
            Event::Answer(Answer::Pod(uid, event)) => self.table.answered(&uid, event, now),
            Event::Answer(Answer::Forgotten(uid)) => {
                self.table.forgotten(&uid);
                self.table.begin_static_pods(now)
            }
            Event::Files(pods) => self.table.static_pods(pods, now),
            Event::Look => {
                self.measure_limited();
                Vec::new()
            }
            Event::Answer(Answer::Stored(uid, usage)) => self.table.stored(&uid, &usage, now),
            Event::Tokens(pods) => {
                self.refresh_where(|life| pods.contains(&life.pod_ref().uid));
                Vec::new()
            }
            Event::References(keys) => {
                self.refresh_where(|life| refers(life.pod(), |key| keys.contains(key)));
                keys.iter().flat_map(|key| self.table.reference_changed(key, now)).collect()
            }
            Event::Observed(seen) => {
                let work = self.table.observed(&seen, now);
                self.tell_health(false);
                work
            }
            Event::GivenUp(GivenUp { listed, until, done }) => {
                self.ending.push(done);
                self.table.give_up(listed, until, now)
            }
            Event::Timer => self.table.tick(now),
            Event::Answer(Answer::None) | Event::Stop => Vec::new(),
        };
        self.carry_out(work);
        self.tell_mirrors(stirred);
        if !self.ending.is_empty() && self.table.given_up_have_ended() {
            // Who waited in vain asks again.
            for done in self.ending.drain(..) {
                let _ = done.send(());
            }
        }
    }

    /// The API server told of a pod.
    fn changed(&mut self, change: Change<Pod>, informer: &Informer<Pod>, now: Timestamp) -> Vec<Work> {
        match change {
            Change::Applied { new, .. } if let Some(of) = mirrored(&new) => {
                self.table.mirrored(&of, Some(&new), now)
            }
            Change::Deleted(old) if let Some(of) = mirrored(&old) => self.table.mirrored(&of, None, now),
            Change::Applied { new, .. } => {
                // Its labels may have changed, which a volume shows.
                self.refresh_volumes(&new);
                self.table.applied(&new, now)
            }
            Change::Deleted(old) => self.table.removed(&PodRef::of(&old).uid, now),
            Change::Synced => {
                let present = informer.store().list().iter().map(|pod| PodRef::of(pod).uid).collect();
                self.table.synced(&present, now)
            }
        }
    }

    /// Beside everything else, since it may take long.
    fn measure_limited(&mut self) {
        let limited = self.table.pods().filter(|life| !life.is_ending() && is_limited(life.pod()));
        let pods: Vec<PodRef> = limited.map(|life| life.pod_ref().clone()).collect();
        for pod in pods {
            let dir = self.data_dir.clone();
            self.answers.spawn_blocking(move || {
                let usage = storage::measure(&dir, &pod);
                Answer::Stored(pod.uid, usage)
            });
        }
    }

    /// Each of those that run from files has a mirror as long as anything of it is left. `stirred`: one may have
    /// changed in the API.
    fn tell_mirrors(&self, stirred: bool) {
        self.mirrors.send_if_modified(|told| {
            let uid = |pod: &Pod| pod.metadata.uid.clone();
            let changed = !told.iter().map(uid).eq(self.table.from_files().map(uid));
            if changed {
                *told = self.table.from_files().cloned().collect();
            }
            changed || stirred
        });
    }

    fn refresh_where(&mut self, wanted: impl Fn(&PodLife) -> bool) {
        let pods: Vec<Pod> =
            self.table.pods().filter(|life| wanted(life)).map(|life| life.pod().clone()).collect();
        pods.iter().for_each(|pod| self.refresh_volumes(pod));
    }

    /// Brings the pod's volumes up to date, beside everything else.
    fn refresh_volumes(&mut self, pod: &Pod) {
        // What ends soon is not brought up to date: its volumes may be on their way out.
        if pod.metadata.deletion_timestamp.is_some() || !volumes(pod).any(is_made_of_objects) {
            return;
        }
        let (performer, pod, now) = (self.performer.volumes.clone(), pod.clone(), self.clock.now());
        self.answers.spawn(async move {
            performer.refresh(&pod, now).await;
            Answer::None
        });
    }

    fn tell_health(&self, shutting_down: bool) {
        let pressure = self.table.pressure();
        self.health.send_if_modified(|told| {
            let before = (told.pressure, told.shutting_down);
            (told.pressure, told.shutting_down) = (pressure, shutting_down);
            before != (pressure, shutting_down)
        });
    }
}

/// A mirror comes or is to go, or a name becomes free.
fn stirs_mirrors(change: &Change<Pod>) -> bool {
    match change {
        Change::Applied { old, new } => {
            mirrored(new).is_some() && (old.is_none() || new.metadata.deletion_timestamp.is_some())
        }
        Change::Deleted(_) | Change::Synced => true,
    }
}

/// A task that panicked takes the agent with it: its pod would wait for the answer forever, and the next
/// agent adopts everything.
fn answer(done: Result<Answer, tokio::task::JoinError>) -> Answer {
    match done {
        Ok(answer) => answer,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Answer::None,
    }
}

async fn sleep_until(wake: Option<tokio::time::Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
