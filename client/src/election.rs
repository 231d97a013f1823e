//! Leader election over a `coordination.k8s.io/v1` Lease: one process of several acts.
//!
//! What always holds: a candidate judges a lease by how long *its own* monotonic clock has not seen it
//! change, never by the other's wall clock; a leader counts its time from before it sent the renewal that
//! succeeded, so it stops acting before anybody else may start; every write carries the resourceVersion
//! that was observed. Losing the lease drops the leader's work at once. [`Candidate`] decides as a value;
//! the driver watches the lease, so a released lease is taken over without waiting for a poll.

mod candidate;

pub use candidate::{Candidate, Decision};

use crate::{
    Shutdown,
    backoff::{Backoff, Policy},
    informer::{Builder, Informer, Subscription},
    shutdown,
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

/// Which lease, who we are, and how fast leadership moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectionConfig {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Who we are; differs between candidates, also between two starts of one.
    pub identity: String,
    /// How long a lease that nobody renews keeps others out.
    pub lease: Duration,
    /// A leader that couldn't renew for this long stops acting; shorter than `lease`.
    pub renew: Duration,
    /// Pause between renewals.
    pub retry: Duration,
}

impl ElectionConfig {
    /// Leadership moves about 1.5 s after a leader died: the profile of a local cluster.
    pub fn fast(name: &str, identity: &str) -> ElectionConfig {
        ElectionConfig::new(name, identity, [1500, 1000, 300])
    }

    /// The timing of kube-controller-manager and kube-scheduler: 15 s, 10 s, 2 s.
    pub fn upstream(name: &str, identity: &str) -> ElectionConfig {
        ElectionConfig::new(name, identity, [15_000, 10_000, 2_000])
    }

    fn new(name: &str, identity: &str, millis: [u64; 3]) -> ElectionConfig {
        let [lease, renew, retry] = millis.map(Duration::from_millis);
        ElectionConfig {
            namespace: "kube-system".to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease,
            renew,
            retry,
        }
    }
}

/// The right to act, as long as [`Leadership::is_valid`].
#[derive(Debug, Clone)]
pub struct Leadership {
    valid_until: Arc<Mutex<Instant>>,
    ending: Shutdown,
    fence: Option<Arc<str>>,
}

impl Leadership {
    /// False once our time is over, even if nobody has told us yet: a process that was stopped and
    /// continued asks this before it writes.
    pub fn is_valid(&self) -> bool {
        Instant::now() < *self.valid_until.lock()
    }

    /// Resolves when the work should drain because the process ends. Lost leadership isn't told: it
    /// drops the work.
    pub fn ending(&self) -> Shutdown {
        self.ending.clone()
    }

    /// The term as servers check it (`NAMESPACE/NAME/TRANSITIONS/HOLDER` of the lease); none if there is no lease.
    pub fn fence(&self) -> Option<&str> {
        self.fence.as_deref()
    }

    /// The same leadership under a fence, for tests.
    pub fn fenced_by(self, fence: &str) -> Leadership {
        Leadership { fence: Some(fence.into()), ..self }
    }

    /// Leadership that never ends but by `shutdown`, for a single process and for tests.
    pub fn permanent(shutdown: Shutdown) -> Leadership {
        // A year is beyond the life of any test or single process, and safe to add to any instant.
        let far = Instant::now() + Duration::from_secs(365 * 24 * 3600);
        Leadership { valid_until: Arc::new(Mutex::new(far)), ending: shutdown, fence: None }
    }

    /// Leadership whose end somebody else decides, for tests.
    pub fn until(valid_until: Arc<Mutex<Instant>>, shutdown: Shutdown) -> Leadership {
        Leadership { valid_until, ending: shutdown, fence: None }
    }

    /// Leadership that is over, for tests of what must not happen then.
    pub fn expired(shutdown: Shutdown) -> Leadership {
        Leadership { valid_until: Arc::new(Mutex::new(Instant::now())), ending: shutdown, fence: None }
    }
}

/// Runs `work` whenever this process leads, until `shutdown`; then lets `work` drain and releases the
/// lease. `work` is dropped the moment leadership can't be renewed in time, and started again after the
/// next election.
pub async fn run_when_leader<F, R>(client: Client, config: ElectionConfig, shutdown: Shutdown, work: F)
where
    F: Fn(Leadership) -> R,
    R: Future<Output = ()>,
{
    let mut driver = Driver::new(client, config);
    while !shutdown.is_requested() {
        tokio::select! {
            () = driver.acquire() => {}
            () = shutdown.requested() => break,
        }
        driver.lead(&shutdown, &work).await;
    }
    driver.close().await;
}

struct Driver {
    api: Api<Lease>,
    candidate: Candidate,
    config: ElectionConfig,
    informer: Informer<Lease>,
    leases: Subscription<Lease>,
}

/// Changes of one lease that wait while a write is under way; when full, only the lease's own watch waits.
const LEASE_CHANGES: usize = 16;

impl Driver {
    fn new(client: Client, config: ElectionConfig) -> Driver {
        let api: Api<Lease> = Api::namespaced(client, &config.namespace);
        let selector = format!("metadata.name={}", config.name);
        let informer = Builder::new(api.clone()).fields(&selector).start();
        let leases = informer.subscribe(LEASE_CHANGES);
        Driver { api, candidate: Candidate::new(config.clone()), config, informer, leases }
    }

    /// Returns once we hold the lease.
    async fn acquire(&mut self) {
        let mut backoff = Backoff::new(Policy { first: Duration::from_millis(20), most: self.config.retry });
        self.informer.wait_synced().await;
        while !self.candidate.leads(Instant::now()) {
            self.observe_pending();
            match self.candidate.decide(Instant::now(), Timestamp::now()) {
                Decision::WaitUntil(when) => self.wait(when).await,
                decision => {
                    if let Err(error) = self.write(decision).await {
                        tracing::debug!(lease = self.config.name, error, "lease not acquired");
                        self.wait(Instant::now() + backoff.failed(rand::random())).await;
                    }
                }
            }
        }
        tracing::info!(lease = self.config.name, identity = self.config.identity, "leading");
    }

    /// Renews while `work` runs; returns when either ends.
    async fn lead<R: Future<Output = ()>>(&mut self, shutdown: &Shutdown, work: &impl Fn(Leadership) -> R) {
        let (trigger, ending) = shutdown::channel();
        let valid_until = Arc::new(Mutex::new(self.candidate.valid_until()));
        let fence = self.candidate.fence().map(Arc::from);
        let work = work(Leadership { valid_until: valid_until.clone(), ending, fence });
        let ask_to_end = async {
            shutdown.requested().await;
            trigger.request();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = work => {}
            () = ask_to_end => {}
            () = self.renew(&valid_until) => {
                tracing::warn!(lease = self.config.name, "leadership lost; the work is dropped");
            }
        }
    }

    /// Returns when our time is over.
    async fn renew(&mut self, valid_until: &Mutex<Instant>) {
        while self.candidate.leads(Instant::now()) {
            self.observe_pending();
            match self.candidate.decide(Instant::now(), Timestamp::now()) {
                Decision::WaitUntil(when) => self.wait(when.min(self.candidate.valid_until())).await,
                decision => {
                    if let Err(error) = self.write(decision).await {
                        tracing::debug!(lease = self.config.name, error, "lease not renewed");
                        let pause = (self.config.retry / 4).max(Duration::from_millis(1));
                        self.wait((Instant::now() + pause).min(self.candidate.valid_until())).await;
                    }
                }
            }
            *valid_until.lock() = self.candidate.valid_until();
        }
    }

    /// Writes the lease within the renew deadline; the outcome is told to the candidate.
    async fn write(&mut self, decision: Decision) -> Result<(), String> {
        let sent = Instant::now();
        let limit = self.config.renew.min(self.config.lease / 2).max(Duration::from_millis(100));
        let written = match decision {
            Decision::Create(lease) => tokio::time::timeout(limit, self.create(lease)).await,
            Decision::Update(lease) => tokio::time::timeout(limit, self.replace(lease)).await,
            Decision::WaitUntil(_) => return Ok(()),
        };
        match written {
            Ok(Ok(lease)) => {
                self.candidate.wrote(lease, sent);
                Ok(())
            }
            Ok(Err(error)) => self.explain(error).await,
            Err(_) => Err(format!("no answer within {limit:?}")),
        }
    }

    async fn create(&self, lease: Lease) -> kube::Result<Lease> {
        self.api.create(&PostParams::default(), &lease).await
    }

    async fn replace(&self, lease: Lease) -> kube::Result<Lease> {
        self.api.replace(&self.config.name, &PostParams::default(), &lease).await
    }

    /// After a conflict our copy is old: read it anew, since the watch may be late.
    async fn explain(&mut self, error: kube::Error) -> Result<(), String> {
        if matches!(&error, kube::Error::Api(status) if status.code == 409 || status.code == 404)
            && let Ok(lease) = self.api.get_opt(&self.config.name).await
        {
            self.candidate.observe(lease, Instant::now());
        }
        Err(error.to_string())
    }

    fn observe_pending(&mut self) {
        let store = self.informer.store();
        let key = crate::informer::ObjectKey::new(&self.config.namespace, &self.config.name);
        if let Some(lease) = store.get(&key) {
            self.candidate.observe_if_newer((*lease).clone(), Instant::now());
        }
    }

    /// Until `when` or the lease changes.
    async fn wait(&mut self, when: Instant) {
        tokio::select! {
            change = self.leases.recv() => match change {
                Some(crate::informer::Change::Deleted(_)) => self.candidate.observe(None, Instant::now()),
                Some(_) => {}
                // The informer only ends with this driver; without it there is still the clock.
                None => tokio::time::sleep_until(when.into()).await,
            },
            () = tokio::time::sleep_until(when.into()) => {}
        }
    }

    /// Gives the lease up, so that the next leader needn't wait for it to expire.
    async fn close(mut self) {
        if let Some(Decision::Update(lease)) = self.candidate.release(Instant::now(), Timestamp::now()) {
            // Best effort: an unreleased lease expires.
            let _ = tokio::time::timeout(self.config.renew, self.replace(lease)).await;
        }
        self.informer.shutdown().await;
    }
}

#[cfg(test)]
mod tests;
