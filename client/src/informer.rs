//! A local, indexed copy of all objects of one kind, kept up to date by one list and one watch.
//!
//! What always holds: readers see the state at one moment of the watch, never half of a relist; every
//! change reaches handlers and subscribers in the order the server gave it; a relist is told as the
//! differences to what was known. The list is a quorum read (`resourceVersion` unset), because a control
//! loop that starts from an older view than its predecessor had could repeat what that one already did.
//! The informer doesn't know what its objects mean.

mod store;
mod told;

pub use store::{IndexFn, ObjectKey, Store};
pub use told::{Digest, Told};

use crate::{
    Shutdown,
    backoff::{Backoff, Policy},
    cause::{Cause, because},
    shutdown,
};
use futures::{StreamExt, pin_mut};
use kube::{
    Api, Resource,
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use std::{
    collections::VecDeque,
    fmt::Debug,
    mem::{replace, take},
    sync::Arc,
};
use tokio::{sync::mpsc, task::JoinHandle};

/// What an informer can hold: any Kubernetes object that can be read from JSON.
pub trait Object: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static {}
impl<K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static> Object for K {}

/// One difference between the copy before and after.
#[derive(Debug)]
pub enum Change<K> {
    /// The object is new (`old` is none) or has changed.
    Applied {
        /// The object as it was known before.
        old: Option<Arc<K>>,
        /// The object as it is now.
        new: Arc<K>,
    },
    /// The object is gone; this is its last known state.
    Deleted(Arc<K>),
    /// All objects that existed when the informer listed are in the store. Told after each list.
    Synced,
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Change::Applied { old, new } => Change::Applied { old: old.clone(), new: new.clone() },
            Change::Deleted(object) => Change::Deleted(object.clone()),
            Change::Synced => Change::Synced,
        }
    }
}

impl<K> Change<K> {
    /// The object as it is now, or as it was last.
    pub fn object(&self) -> Option<&Arc<K>> {
        match self {
            Change::Applied { new, .. } => Some(new),
            Change::Deleted(object) => Some(object),
            Change::Synced => None,
        }
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;
type Transform<K> = Box<dyn Fn(&mut K) + Send + Sync>;

/// An informer that isn't running yet.
pub struct Builder<K> {
    api: Api<K>,
    config: watcher::Config,
    indexes: Vec<(&'static str, IndexFn<K>)>,
    handlers: Vec<Handler<K>>,
    transform: Transform<K>,
    keep: store::Keep<K>,
    policy: Policy,
}

impl<K: Object> Builder<K>
where
    K::DynamicType: Clone,
{
    /// All objects that `api` covers; their managed fields are dropped, since no control loop reads
    /// them and they are half of the memory.
    pub fn new(api: Api<K>) -> Builder<K> {
        Builder {
            api,
            // A watch that is renewed each minute finds a server that was stopped (not closed) within
            // 65 s, while upstream's clients need up to 10 minutes.
            config: watcher::Config::default().timeout(60),
            indexes: Vec::new(),
            handlers: Vec::new(),
            transform: Box::new(|object: &mut K| object.meta_mut().managed_fields = None),
            keep: Box::new(Arc::clone),
            policy: Policy::CONNECT,
        }
    }

    /// Only objects with this field selector.
    pub fn fields(mut self, selector: &str) -> Self {
        self.config = self.config.fields(selector);
        self
    }

    /// Only objects with this label selector.
    pub fn labels(mut self, selector: &str) -> Self {
        self.config = self.config.labels(selector);
        self
    }

    /// Adds an index: `values` names under which values an object is found.
    pub fn index(
        mut self,
        name: &'static str,
        values: impl Fn(&K) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        self.indexes.push((name, Box::new(values)));
        self
    }

    /// Calls `handler` at each change, after the store has it. It runs inside the informer's task, because of
    /// that change, and must not wait: it adds keys to a queue.
    pub fn on_change(mut self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) -> Self {
        self.handlers.push(Box::new(handler));
        self
    }

    /// Edits each object before it is kept, to drop what nobody reads. Replaces the default, which
    /// drops the managed fields.
    pub fn transform(mut self, edit: impl Fn(&mut K) + Send + Sync + 'static) -> Self {
        self.transform = Box::new(edit);
        self
    }

    /// Keeps of each object only what `some` leaves of it, after it has been told as it is. Handlers, and who
    /// subscribes by [`Builder::start_subscribed`], see everything of an object that is new or has changed; what
    /// it was before, and what is read from the store, is what was kept.
    pub fn keep(mut self, some: impl Fn(&K) -> K + Send + Sync + 'static) -> Self {
        self.keep = Box::new(move |object| Arc::new(some(object)));
        self
    }

    /// Pauses after failed lists and watches.
    pub fn backoff(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Starts listing and watching in a task owned by the returned informer.
    pub fn start(mut self) -> Informer<K> {
        let store = self.store();
        self.fill(store)
    }

    /// As [`Builder::start`], with a subscriber from the first object on; see [`Informer::subscribe`].
    pub fn start_subscribed(mut self, capacity: usize) -> (Informer<K>, Subscription<K>) {
        let store = self.store();
        let subscription = Subscription::to(&store, capacity);
        (self.fill(store), subscription)
    }

    fn store(&mut self) -> Store<K> {
        Store::new(take(&mut self.indexes), replace(&mut self.keep, Box::new(Arc::clone)))
    }

    fn fill(self, store: Store<K>) -> Informer<K> {
        let (trigger, stop) = shutdown::channel();
        let run = Run {
            store: store.clone(),
            handlers: self.handlers,
            transform: self.transform,
            listing: Vec::new(),
        };
        let task = tokio::spawn(run.run(self.api, self.config, self.policy, stop));
        Informer { store, trigger, task: Some(task) }
    }
}

/// A running informer; dropping it ends the watch.
#[derive(Debug)]
pub struct Informer<K> {
    store: Store<K>,
    trigger: shutdown::Trigger,
    task: Option<JoinHandle<()>>,
}

impl<K: Object> Informer<K>
where
    K::DynamicType: Clone,
{
    /// See [`Builder::new`].
    pub fn builder(api: Api<K>) -> Builder<K> {
        Builder::new(api)
    }
}

impl<K> Informer<K> {
    /// The copy; handles are cheap to clone and stay readable after the informer ends.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// See [`Store::wait_synced`].
    pub async fn wait_synced(&self) {
        self.store.wait_synced().await;
    }

    /// What is there now, then every later change. At most `capacity` changes wait unread; then the
    /// informer waits for this subscriber, and with it the watch and all others.
    pub fn subscribe(&self, capacity: usize) -> Subscription<K> {
        Subscription::to(&self.store, capacity)
    }

    /// Ends the watch and waits until the task is gone.
    pub async fn shutdown(mut self) {
        self.trigger.request();
        if let Some(task) = self.task.take() {
            // The only error is a panic of a handler, which tokio has already printed.
            let _ = task.await;
        }
    }
}

impl<K> Drop for Informer<K> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A stream of changes that starts with what is there.
#[derive(Debug)]
pub struct Subscription<K> {
    present: VecDeque<Change<K>>,
    receiver: mpsc::Receiver<Change<K>>,
}

impl<K> Subscription<K> {
    fn to(store: &Store<K>, capacity: usize) -> Self {
        let (sender, receiver) = mpsc::channel(capacity);
        Subscription { present: store.subscribe(sender), receiver }
    }

    /// The next change; none once the informer has ended.
    pub async fn recv(&mut self) -> Option<Change<K>> {
        match self.present.pop_front() {
            Some(change) => Some(change),
            None => self.receiver.recv().await,
        }
    }
}

/// The task of one informer.
struct Run<K> {
    store: Store<K>,
    handlers: Vec<Handler<K>>,
    transform: Transform<K>,
    /// Objects of a list that isn't complete yet.
    listing: Vec<Arc<K>>,
}

impl<K: Object> Run<K>
where
    K::DynamicType: Clone,
{
    async fn run(mut self, api: Api<K>, config: watcher::Config, policy: Policy, stop: Shutdown) {
        let url = api.resource_url().to_owned();
        let events = watcher(api, config);
        pin_mut!(events);
        let mut backoff = Backoff::new(policy);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = stop.requested() => return,
            };
            match event {
                Some(Ok(event)) => {
                    // The start of a list says nothing about the server's health.
                    if !matches!(event, Event::Init) {
                        backoff.succeeded();
                    }
                    self.apply(event).await;
                }
                Some(Err(error)) => {
                    let pause = backoff.failed(rand::random());
                    report(&url, &error, backoff.failures());
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = stop.requested() => return,
                    }
                }
                None => return,
            }
        }
    }

    async fn apply(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => {
                let object = self.transformed(object);
                self.listing.push(object);
            }
            Event::InitDone => {
                let (changes, audience) = self.store.replace(take(&mut self.listing));
                for change in changes {
                    self.tell(&audience, change).await;
                }
            }
            Event::Apply(object) => {
                let new = self.transformed(object);
                let (old, audience) = self.store.insert(new.clone());
                self.tell(&audience, Change::Applied { old, new }).await;
            }
            Event::Delete(object) => {
                let last = self.transformed(object);
                let audience = self.store.remove(&last);
                self.tell(&audience, Change::Deleted(last)).await;
            }
        }
    }

    fn transformed(&self, mut object: K) -> Arc<K> {
        (self.transform)(&mut object);
        Arc::new(object)
    }

    async fn tell(&self, audience: &[mpsc::Sender<Change<K>>], change: Change<K>) {
        let cause = change.object().and_then(|object| Cause::of(&**object));
        because(cause, || self.handlers.iter().for_each(|handler| handler(&change)));
        for subscriber in audience {
            // A closed receiver is a subscriber that has left; the store forgets it at the next change.
            let _ = subscriber.send(change.clone()).await;
        }
    }
}

/// A lost connection is normal while servers restart; only a lasting one is worth a warning.
fn report(url: &str, error: &watcher::Error, failures: u32) {
    if failures < 3 {
        tracing::debug!(url, failures, %error, "watch interrupted");
    } else {
        tracing::warn!(url, failures, %error, "watch keeps failing");
    }
}

#[cfg(test)]
mod tests;
