//! Simulated nodes: many in one process, on which pods are said to run and nothing does.
//!
//! Upstream's kubemark calls such nodes hollow. Unlike the fake runtime under a whole agent each, they share
//! one watch, one queue of writes and one round of heartbeats, so that thousands cost a laptop little. What a
//! pod does is a function of its object ([`pod`]); only this file and [`nodes`] await. They serve no API: a
//! simulated pod has no logs.

mod agenda;
mod nodes;
mod pod;

use crate::config::{CapacityOverrides, Heartbeat};
use agenda::{Agenda, Work};
use client::Shutdown;
use client::informer::{Change, Informer, Subscription};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use nodes::Nodes;
use pod::RunTimes;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

pub use pod::{EXIT_CODE, RUN_TIME, START_DELAY};

/// Changes that wait unread; when this many do, the watch waits for us.
const CHANGES: usize = 1024;
/// Writes that may be under way at once; further pods wait in the agenda.
const WRITES: usize = 64;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct HollowConfig {
    /// Nodes are called `PREFIX-1`, `PREFIX-2`, ….
    pub prefix: String,
    /// How many.
    pub count: usize,
    /// Over how many zones they are dealt, one after the other; 0 leaves out the label.
    pub zones: usize,
    /// What each offers; what is left out is 32 cores, 256 GiB and 110 pods.
    pub capacity: CapacityOverrides,
    /// Further labels of each.
    pub labels: BTreeMap<String, String>,
    /// How often each says that it lives, and for how long that holds.
    pub heartbeat: Heartbeat,
    /// How long a pod runs that isn't restarted for ever, unless its annotation [`RUN_TIME`] says otherwise.
    pub run_time: Duration,
}

/// The simulation couldn't begin.
#[derive(Debug, thiserror::Error)]
#[error("register the simulated node {node}")]
pub struct HollowError {
    /// The node.
    pub node: String,
    /// What the API server said.
    #[source]
    pub source: Box<kube::Error>,
}

/// Simulates nodes until `shutdown`. `ready` is called once all are registered.
pub async fn run(
    client: Client,
    config: HollowConfig,
    shutdown: Shutdown,
    ready: impl FnOnce(),
) -> Result<(), HollowError> {
    let nodes = Nodes::new(client.clone(), &config);
    tokio::select! {
        registered = nodes.register_all() => registered?,
        () = shutdown.requested() => return Ok(()),
    }
    ready();
    let simulation = Simulation::new(client, &config);
    tokio::select! {
        () = nodes.heartbeats(config.heartbeat) => {}
        () = simulation.run() => {}
        () = shutdown.requested() => {}
    }
    Ok(())
}

/// The pods of all nodes.
struct Simulation {
    client: Client,
    pods: (Informer<Pod>, Subscription<Pod>),
    agenda: Agenda,
    writes: JoinSet<(Work, Result<(), kube::Error>)>,
    /// Names of our nodes; other nodes' pods are none of our business.
    prefix: String,
    numbers: HashMap<String, usize>,
}

/// What the loop waits for.
enum Input {
    Pod(Option<Change<Pod>>),
    Written(Work, Result<(), kube::Error>),
    Due,
}

impl Simulation {
    fn new(client: Client, config: &HollowConfig) -> Self {
        let builder = Informer::builder(Api::<Pod>::all(client.clone())).fields("spec.nodeName!=");
        let informer = builder.transform(pod::strip).start();
        let subscription = informer.subscribe(CHANGES);
        let names = (1..=config.count).map(|number| (nodes::name(&config.prefix, number), number));
        Simulation {
            client,
            pods: (informer, subscription),
            agenda: Agenda::new(RunTimes { finite: config.run_time }),
            writes: JoinSet::new(),
            prefix: config.prefix.clone(),
            numbers: names.collect(),
        }
    }

    async fn run(mut self) {
        loop {
            match self.next().await {
                Input::Pod(None) => {
                    tracing::error!(nodes = self.prefix, "the watch of pods ended for good");
                    return;
                }
                Input::Pod(Some(change)) => self.observe(&change),
                Input::Written(work, Err(error)) => self.failed(work, &error),
                Input::Written(_, Ok(())) | Input::Due => {}
            }
            self.start_writes();
        }
    }

    async fn next(&mut self) -> Input {
        let due = self.agenda.next_due().filter(|_| self.writes.len() < WRITES);
        tokio::select! {
            Some(ended) = self.writes.join_next() => {
                let (work, result) = ended.expect("a write neither panics nor is aborted");
                Input::Written(work, result)
            }
            change = self.pods.1.recv() => Input::Pod(change),
            () = sleep_until(due) => Input::Due,
        }
    }

    fn observe(&mut self, change: &Change<Pod>) {
        match change {
            Change::Applied { new, .. } if self.is_ours(new) => self.agenda.observe(new, Instant::now()),
            Change::Deleted(pod) => self.agenda.forget(pod),
            Change::Applied { .. } | Change::Synced => {}
        }
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        node.is_some_and(|node| self.numbers.contains_key(node))
    }

    fn start_writes(&mut self) {
        let room = WRITES - self.writes.len();
        for work in self.agenda.take_due(Instant::now(), room) {
            let client = self.client.clone();
            self.writes.spawn(async move {
                let written = perform(&client, &work).await;
                (work, written)
            });
        }
    }

    /// A pod that is gone or was made anew needs no more of us; everything else is tried again.
    fn failed(&mut self, work: Work, error: &kube::Error) {
        if matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409 | 422)) {
            return;
        }
        tracing::info!(pod = work.path(), %error, "a simulated pod's write failed; it is tried again");
        self.agenda.again(work, Instant::now());
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Does one piece of work. The answer isn't decoded: the watch tells.
async fn perform(client: &Client, work: &Work) -> Result<(), kube::Error> {
    let request = work.request(jiff::Timestamp::now()).map_err(kube::Error::HttpError)?;
    client.request::<IgnoredAny>(request).await.map(drop)
}

/// A pod under the name by which the agenda knows it.
type SharedPod = Arc<Pod>;
