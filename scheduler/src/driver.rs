//! Connects the state machine to an API server: watches in, writes out, one loop.
//!
//! It owns the informers, the pending writes and the clock, and decides nothing about pods. It leads by the
//! Lease `kube-system/kube-scheduler`; what it knows is built anew with each term, so a former leader's
//! assumptions can't survive.

mod storage_feed;

use self::storage_feed::StorageFeed;
use crate::budget::Budget;
use crate::configuration::Configuration;
use crate::gang::GroupInfo;
use crate::name::PodKey;
use crate::namespace::NamespaceInfo;
use crate::node::NodeInfo;
use crate::object::{PodGroup, PodObject};
use crate::pod::{DEFAULT_SCHEDULER, PodInfo};
use crate::profile::Profiles;
use crate::queue::Backoff;
use crate::scheduler::{Effect, Event, Scheduler};
use crate::storage::StorageEvent;
use crate::writes::Writes;
use api::k8s::api::core::v1::{Namespace, Node};
use api::k8s::api::policy::v1::PodDisruptionBudget;
use client::backoff::Policy;
use client::cause::Cause;
use client::election::{ElectionConfig, Leadership, run_when_leader};
use client::informer::{Change, Digest, Informer, ObjectKey, Subscription, Told};
use client::{Shutdown, recorder};
use futures::FutureExt;
use kube::{Api, Client, Resource};
use std::time::{Duration, Instant};

/// Changes that wait unread; when this many do, the watch waits for us.
const CHANGES: usize = 1024;

/// Changes taken in before deciding, and decisions made before looking at changes again.
const BATCH: usize = 256;

/// Between two looks whether a server that doesn't know PodGroups has learned of them.
const MISSING_KIND: Policy = Policy { first: Duration::from_secs(1), most: Duration::from_secs(60) };

/// How long bindings under way may take to finish when the process ends.
const DRAIN: Duration = Duration::from_secs(2);

/// How to run the scheduler.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Who we are among the candidates for leadership.
    pub identity: String,
    /// Lease and timing; the default lease is `kube-system/kube-scheduler`.
    pub election: ElectionConfig,
    /// Whether leadership is decided by the lease, or this process always leads.
    pub elects: bool,
    /// Pods that name these are ours.
    pub profiles: Profiles,
    /// How long pods that failed wait.
    pub backoff: Backoff,
    /// Other schedulers bind pods to the same nodes: no binding is made that doesn't know of theirs. All of them must
    /// say so, and the API server must be ours.
    pub shares_nodes: bool,
}

impl SchedulerConfig {
    /// The default scheduler, with the leadership timing of a local cluster.
    pub fn new(identity: &str) -> Self {
        SchedulerConfig {
            identity: identity.to_owned(),
            election: ElectionConfig::fast("kube-scheduler", identity),
            elects: true,
            profiles: Profiles::upstream(DEFAULT_SCHEDULER),
            backoff: Backoff::default(),
            shares_nodes: false,
        }
    }

    /// The same as a configuration file says it; what that leaves out stays.
    pub fn configured(mut self, file: Configuration) -> Self {
        let Configuration { profiles, backoff, election, .. } = file;
        let own = &mut self.election;
        own.name = election.name.unwrap_or_else(|| own.name.clone());
        own.namespace = election.namespace.unwrap_or_else(|| own.namespace.clone());
        own.lease = election.lease.unwrap_or(own.lease);
        own.renew = election.renew.unwrap_or(own.renew);
        own.retry = election.retry.unwrap_or(own.retry);
        SchedulerConfig { elects: election.elects, profiles, backoff, ..self }
    }

    /// Who we are in Events that are no pod's: the first of the profiles.
    fn reporter(&self) -> &str {
        self.profiles.names().next().map_or(DEFAULT_SCHEDULER, |name| name)
    }
}

/// Schedules pods whenever this process leads, until `shutdown`.
pub async fn run(client: Client, config: SchedulerConfig, shutdown: Shutdown) {
    let (recorder, events) = recorder::start(client.clone(), config.reporter(), "");
    let lead = |leadership| {
        let scheduler = Scheduler::with(config.profiles.clone(), config.backoff);
        let writes = Writes::new(client.clone(), recorder.clone(), leadership);
        let sharer = config.shares_nodes.then(|| config.identity.clone());
        Term::new(client.clone(), scheduler, writes.sharing(sharer)).run()
    };
    if config.elects {
        run_when_leader(client.clone(), config.election.clone(), shutdown, lead).await;
    } else {
        lead(Leadership::permanent(shutdown)).await;
    }
    drop(recorder);
    events.drain().await;
}

/// One term of leadership.
struct Term {
    scheduler: Scheduler,
    writes: Writes,
    nodes: (Informer<Node>, Subscription<Node>),
    pods: (Informer<Told<PodInfo>>, Subscription<Told<PodInfo>>),
    budgets: (Informer<PodDisruptionBudget>, Subscription<PodDisruptionBudget>),
    groups: (Informer<PodGroup>, Subscription<PodGroup>),
    namespaces: (Informer<Namespace>, Subscription<Namespace>),
    storage: StorageFeed,
    /// Kinds whose first list hasn't arrived. Deciding earlier would see a cluster without its pods.
    unlisted: usize,
    /// The newest version of a pod that was observed; all older ones were, too.
    seen: u64,
}

/// What the loop waits for.
enum Input {
    Node(Option<Change<Node>>),
    Pod(Option<Change<Told<PodInfo>>>),
    Budget(Option<Change<PodDisruptionBudget>>),
    Group(Option<Change<PodGroup>>),
    Namespace(Option<Change<Namespace>>),
    /// `None` when one of its kinds has been listed.
    Storage(Option<StorageEvent>),
    Written(Option<Event>),
    BackoffEnded,
    Ending,
}

impl Term {
    fn new(client: Client, scheduler: Scheduler, writes: Writes) -> Self {
        let nodes = Informer::builder(Api::<Node>::all(client.clone())).transform(strip_node).start();
        // The snapshot keeps what is to be known of pods; of so many objects two copies would be one too many.
        let pods = Informer::builder(Api::all(client.clone())).forgetful().start_subscribed(CHANGES);
        let budgets = Informer::builder(Api::<PodDisruptionBudget>::all(client.clone())).start();
        let groups = Informer::builder(Api::<PodGroup>::all(client.clone())).backoff(MISSING_KIND).start();
        let namespaces = Informer::builder(Api::<Namespace>::all(client.clone()))
            .transform(|namespace| namespace.metadata.managed_fields = None)
            .start();
        let changes = (nodes.subscribe(CHANGES), budgets.subscribe(CHANGES), groups.subscribe(CHANGES));
        let labels = namespaces.subscribe(CHANGES);
        Term {
            scheduler,
            writes,
            nodes: (nodes, changes.0),
            pods,
            budgets: (budgets, changes.1),
            groups: (groups, changes.2),
            namespaces: (namespaces, labels),
            storage: StorageFeed::start(&client),
            unlisted: 3 + StorageFeed::KINDS,
            seen: 0,
        }
    }

    async fn run(mut self) {
        let ending = self.writes.leadership().ending();
        loop {
            match self.next(&ending).await {
                Input::Ending | Input::Node(None) | Input::Pod(None) | Input::Budget(None) => break,
                input => self.observe(input),
            }
            self.observe_ready();
            while self.unlisted == 0 && self.schedule() == BATCH {
                self.observe_ready();
            }
        }
        self.writes.drain(DRAIN).await;
    }

    async fn next(&mut self, ending: &Shutdown) -> Input {
        let wake = self.scheduler.next_wake();
        tokio::select! {
            change = self.nodes.1.recv() => Input::Node(change),
            change = self.pods.1.recv() => Input::Pod(change),
            change = self.budgets.1.recv() => Input::Budget(change),
            Some(change) = self.groups.1.recv() => Input::Group(Some(change)),
            Some(change) = self.namespaces.1.recv() => Input::Namespace(Some(change)),
            Some(event) = self.storage.next() => Input::Storage(event),
            event = self.writes.next(), if !self.writes.is_idle() => Input::Written(event),
            () = sleep_until(wake), if wake.is_some() => Input::BackoffEnded,
            () = ending.requested() => Input::Ending,
        }
    }

    /// Takes in what has already arrived, without waiting, so that a burst is decided about as a whole.
    fn observe_ready(&mut self) {
        for _ in 0..BATCH {
            let node = self.nodes.1.recv().now_or_never().map(Input::Node);
            let pod = || self.pods.1.recv().now_or_never().map(Input::Pod);
            let Some(input) = node.or_else(pod) else { return };
            self.observe(input);
        }
    }

    fn observe(&mut self, input: Input) {
        if let Input::Pod(Some(change)) = &input {
            self.seen = self.seen.max(change.object().map_or(0, |pod| version(&**pod)));
        }
        let event = match input {
            Input::Node(Some(Change::Applied { new, .. })) => Event::Node(NodeInfo::of(&new)),
            Input::Node(Some(Change::Deleted(node))) => Event::NodeGone(NodeInfo::of(&node).name),
            Input::Pod(Some(Change::Applied { new, .. })) => match new.digest() {
                Some(pod) => Event::Pod(pod.clone()),
                None => return,
            },
            Input::Pod(Some(Change::Deleted(pod))) => Event::PodGone(key(&*pod)),
            Input::Budget(Some(Change::Applied { new, .. })) => Event::Budget(Budget::of(&new)),
            Input::Budget(Some(Change::Deleted(budget))) => Event::BudgetGone(key(&*budget)),
            Input::Group(Some(Change::Applied { new, .. })) => Event::Group(GroupInfo::of(&new)),
            Input::Group(Some(Change::Deleted(group))) => Event::GroupGone(key(&*group)),
            Input::Namespace(Some(Change::Applied { new, .. })) => Event::Namespace(NamespaceInfo::of(&new)),
            Input::Namespace(Some(Change::Deleted(namespace))) => {
                Event::NamespaceGone(NamespaceInfo::of(&namespace).name)
            }
            Input::Written(Some(event)) => event,
            Input::Storage(Some(event)) => Event::Storage(event),
            Input::Node(Some(Change::Synced))
            | Input::Pod(Some(Change::Synced))
            | Input::Namespace(Some(Change::Synced))
            | Input::Storage(None) => {
                // Later lists are told as differences; they don't make us wait again.
                self.unlisted = self.unlisted.saturating_sub(1);
                return;
            }
            _ => return,
        };
        self.scheduler.observe(event, Instant::now());
    }

    /// Decides about one batch of pods. Returns how many writes that takes.
    fn schedule(&mut self) -> usize {
        let effects = self.scheduler.schedule(BATCH, Instant::now(), &mut rand::random);
        let count = effects.len();
        for effect in effects {
            let cause = self.cause(&effect);
            self.writes.start(effect, cause, self.seen);
        }
        count
    }

    /// The pod as it was seen when that was decided.
    fn cause(&self, effect: &Effect) -> Option<Cause> {
        let (Effect::Bind { pod, .. }
        | Effect::Prepare { pod, .. }
        | Effect::Report { pod, .. }
        | Effect::Evict { pod, .. }) = effect
        else {
            return None;
        };
        let key = ObjectKey::new(&*pod.namespace, &*pod.name);
        self.pods.0.store().get(&key).and_then(|pod| Cause::of(&*pod))
    }
}

async fn sleep_until(wake: Option<Instant>) {
    if let Some(wake) = wake {
        tokio::time::sleep_until(wake.into()).await;
    }
}

/// Versions of our API server, as of etcd's, are numbers that grow; others' are of no use here.
fn version(object: &impl Resource) -> u64 {
    let version = object.meta().resource_version.as_deref();
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn key(object: &impl Resource) -> PodKey {
    let metadata = object.meta();
    PodKey::new(
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

impl Digest for PodInfo {
    type Of = PodObject;

    fn of(pod: &PodObject) -> PodInfo {
        PodInfo::of(pod)
    }
}

/// Drops what no rule reads.
fn strip_node(node: &mut Node) {
    node.metadata.managed_fields = None;
    node.metadata.annotations = None;
    if let Some(status) = &mut node.status {
        status.conditions = None;
    }
}

#[cfg(test)]
mod tests;
