//! One term of leadership: caches that start anew, all controllers over them, and the kinds that come and go.

use crate::{
    ControllersConfig, LEASE,
    caches::{Caches, Informers},
    catalog::{self, Known, Place},
    driver::{self, Controller, Performer},
    garbage_collector::Graph,
    looks::{self, GarbageCollector, Workload},
    node_lifecycle::Census,
    wiring::{Queues, Wires},
};
use client::{
    Shutdown,
    backoff::{Backoff, Policy},
    clock::Clock,
    election::Leadership,
    informer::{Informer, ObjectKey},
    queue::WorkQueue,
    recorder,
};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    certificates::v1::CertificateSigningRequest,
    core::v1::{Endpoints, ReplicationController, Service},
};
use kube::{Api, Client, api::DynamicObject, core::PartialObjectMeta};
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use tokio::sync::watch;

/// One term. Caches start anew with a quorum list: what an earlier leader wrote is in them.
pub async fn lead(client: Client, config: ControllersConfig, leadership: Leadership) {
    let shutdown = leadership.ending();
    let known = tokio::select! {
        known = discover(&client) => known,
        () = shutdown.requested() => return,
    };
    let (recorder, events) = recorder::start(client.clone(), LEASE, "");
    let queues = Queues::default();
    let garbage =
        GarbageCollector::new(Graph::new(known.iter().map(|known| (known.kind.clone(), known.namespaced))));
    let census = Census::new(config.nodes.clone());
    let wires = Wires::new(&queues, &garbage, &census);
    let mut informers = Informers::new(&client, &wires);
    let caches = Caches::from(&mut informers);
    wires.know(&caches);
    let others = observe_others(&client, &known, &informers.kinds, &wires);
    if !informers.wait_synced(&shutdown).await {
        return;
    }
    tracing::info!(kinds = known.len(), caches = informers.len() + others.len(), "controllers run");
    let client = client::fence::fenced(&client, &leadership);
    let performer = Performer { client, recorder, leadership, clock: Clock::start() };
    let term =
        Term { config: &config, known, caches, census, queues: &queues, performer: &performer, shutdown };
    // Boxed, because the parts of one future this big would have to fit on a stack together.
    tokio::join!(
        Box::pin(term.run_workloads()),
        Box::pin(term.run_jobs()),
        Box::pin(term.run_network()),
        Box::pin(term.run_namespaces()),
        Box::pin(term.run_nodes()),
        Box::pin(term.run_storage()),
        Box::pin(term.collect_garbage(&garbage, &others)),
        Box::pin(term.follow_kinds(&garbage, &wires)),
    );
    drop(performer);
    events.drain().await;
}

/// What the controllers of one term share.
struct Term<'a> {
    config: &'a ControllersConfig,
    known: Vec<Known>,
    caches: Caches,
    census: Census,
    queues: &'a Queues,
    performer: &'a Performer,
    shutdown: Shutdown,
}

impl Term<'_> {
    async fn run<C: Controller>(&self, controller: C, queue: &WorkQueue<C::Key>) {
        driver::run(&controller, queue, self.config.concurrency, self.performer, self.shutdown.clone()).await;
    }

    fn caches(&self) -> Caches {
        self.caches.clone()
    }

    async fn run_workloads(&self) {
        let client = self.performer.client.clone();
        let autoscalers = looks::Autoscalers::new(self.caches(), client, self.known.clone());
        tokio::join!(
            self.run(Workload::<ReplicaSet>::new(self.caches()), &self.queues.sets),
            self.run(Workload::<Deployment>::new(self.caches()), &self.queues.deployments),
            self.run(
                Workload::<ReplicationController>::new(self.caches()),
                &self.queues.replication_controllers
            ),
            self.run(Workload::<StatefulSet>::new(self.caches()), &self.queues.stateful_sets),
            self.run(Workload::<DaemonSet>::new(self.caches()), &self.queues.daemon_sets),
            self.run(autoscalers, &self.queues.autoscalers),
        );
    }

    async fn run_jobs(&self) {
        tokio::join!(
            self.run(Workload::<Job>::new(self.caches()), &self.queues.jobs),
            self.run(looks::JobPods(self.caches()), &self.queues.job_pods),
            self.run(looks::JobEnds(self.caches()), &self.queues.job_ends),
            self.run(Workload::<CronJob>::new(self.caches()), &self.queues.cron_jobs),
        );
    }

    async fn run_network(&self) {
        tokio::join!(
            self.run(Workload::<Service>::new(self.caches()), &self.queues.services),
            self.run(looks::EndpointsLists(self.caches()), &self.queues.endpoints),
            self.run(Workload::<Endpoints>::new(self.caches()), &self.queues.mirrors),
            self.run(looks::Budgets(self.caches()), &self.queues.budgets),
            self.run(looks::ClusterDns(self.caches()), &self.queues.cluster_dns),
            self.run(looks::ServiceRanges(self.caches()), &self.queues.service_ranges),
        );
    }

    async fn run_namespaces(&self) {
        let client = self.performer.client.clone();
        tokio::join!(
            self.run(
                looks::Namespaces { caches: self.caches(), client: client.clone() },
                &self.queues.namespaces
            ),
            self.run(
                looks::Quotas { caches: self.caches(), client, known: self.known.clone() },
                &self.queues.quotas
            ),
            self.run(looks::Accounts(self.caches()), &self.queues.accounts),
            self.run(looks::TokenSecrets(self.caches()), &self.queues.token_secrets),
            self.run(
                looks::LegacyTokens { caches: self.caches(), client: self.performer.client.clone() },
                &self.queues.legacy_tokens
            ),
            self.run(looks::RoleAggregation(self.caches()), &self.queues.roles),
            self.publish_root_ca(),
            self.sign_certificates(),
            self.tend_bootstrap_tokens(),
        );
    }

    async fn run_storage(&self) {
        tokio::join!(
            self.run(looks::ClaimProtection(self.caches()), &self.queues.claims),
            self.run(looks::ClaimBinding(self.caches()), &self.queues.claim_binding),
            self.run(looks::VolumeBinding(self.caches()), &self.queues.volume_binding),
            self.run(looks::VolumeProtection(self.caches()), &self.queues.volumes),
            self.run(looks::EphemeralClaims(self.caches()), &self.queues.ephemeral_claims),
        );
    }

    async fn run_nodes(&self) {
        let (census, times, silences) =
            (self.census.clone(), self.config.nodes.clone(), looks::Silences::default());
        let nodes = looks::NodeLifecycle::new(self.caches(), census, times, silences.clone());
        let pod_gc = looks::PodGc::new(self.caches(), self.config.missing_node_quarantine, silences);
        tokio::join!(
            self.run(nodes, &self.queues.nodes),
            self.run(looks::NodeTtl(self.caches()), &self.queues.node_ttl),
            self.give_ranges(),
            self.run(looks::TaintEviction::new(self.caches()), &self.queues.evictions),
            self.run(pod_gc, &self.queues.pod_gc),
        );
    }

    /// Certificate requests are rare and nobody else's business: they have a cache and a queue of their own.
    async fn sign_certificates(&self) {
        let Some(signer) = self.config.signer.clone() else { return };
        let (client, queue) = (self.performer.client.clone(), WorkQueue::default());
        let added: WorkQueue<ObjectKey> = queue.clone();
        let requests = Informer::builder(Api::<CertificateSigningRequest>::all(client.clone()))
            .on_change(move |change| {
                if let Some(request) = change.object() {
                    added.add(ObjectKey::of(&**request));
                }
            })
            .start();
        self.run(
            looks::Certificates { requests: requests.store(), caches: self.caches(), client, signer },
            &queue,
        )
        .await;
    }

    async fn tend_bootstrap_tokens(&self) {
        let Some(ca) = self.config.root_ca.clone() else { return };
        let bootstrap = looks::Bootstrap::start(&self.performer.client);
        let caches = tokio::select! {
            caches = bootstrap.caches() => caches,
            () = self.shutdown.requested() => return,
        };
        let signer = looks::BootstrapSigner { caches: caches.clone(), ca };
        tokio::join!(
            self.run(signer, &bootstrap.signing),
            self.run(looks::TokenCleaner(caches), &bootstrap.cleaning),
        );
    }

    async fn give_ranges(&self) {
        if let Some(ranges) = self.config.node_ranges.clone() {
            self.run(looks::NodeRanges::new(self.caches(), ranges), &self.queues.node_ranges).await;
        }
    }

    async fn publish_root_ca(&self) {
        if let Some(ca) = self.config.root_ca.clone() {
            self.run(looks::RootCa { caches: self.caches(), ca }, &self.queues.root_ca).await;
        }
    }

    /// Kinds come and go with their definitions: the collector observes those that are there.
    async fn follow_kinds(&self, garbage: &GarbageCollector, wires: &Wires) {
        let client = &self.performer.client;
        let definitions = kube::core::ApiResource::from_gvk_with_plural(
            &kube::core::GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            "customresourcedefinitions",
        );
        let (notify, mut changed) = watch::channel(());
        let _definitions = Informer::<PartialObjectMeta<DynamicObject>>::builder(Api::all_with(
            client.clone(),
            &definitions,
        ))
        .on_change(move |_| {
            notify.send_replace(());
        })
        .start();
        let first: BTreeSet<Place> = self.known.iter().map(Known::place).collect();
        let mut observed: BTreeMap<Place, Vec<Informer<PartialObjectMeta<DynamicObject>>>> = BTreeMap::new();
        loop {
            tokio::select! {
                told = changed.changed() => if told.is_err() { return },
                () = self.shutdown.requested() => return,
            }
            let now = tokio::select! {
                now = discover(client) => now,
                () = self.shutdown.requested() => return,
            };
            observed.retain(|place, _| now.iter().any(|known| known.place() == *place));
            for kind in now.into_iter().filter(|kind| !first.contains(&kind.place())) {
                if let Entry::Vacant(place) = observed.entry(kind.place()) {
                    let again = garbage.learn(&kind.kind, kind.namespaced);
                    again.into_iter().for_each(|uid| self.queues.garbage.add(uid));
                    place.insert(observe_others(client, &[kind], &[], wires));
                }
            }
        }
    }

    /// The collector starts when every kind has been listed: until then a missing owner means nothing.
    async fn collect_garbage(
        &self,
        garbage: &GarbageCollector,
        others: &[Informer<PartialObjectMeta<DynamicObject>>],
    ) {
        for informer in others {
            tokio::select! {
                () = informer.wait_synced() => {}
                () = self.shutdown.requested() => return,
            }
        }
        self.run(garbage.clone(), &self.queues.garbage).await;
    }
}

/// Informers over the metadata of all kinds that have none of their own, for the garbage collector only.
fn observe_others(
    client: &Client,
    known: &[Known],
    typed: &[(String, String)],
    wires: &Wires,
) -> Vec<Informer<PartialObjectMeta<DynamicObject>>> {
    let is_typed = |known: &Known| typed.contains(&(known.kind.group.clone(), known.kind.plural.clone()));
    let others = known.iter().filter(|known| !is_typed(known));
    others
        .map(|known| {
            let (kind, wires) = (known.kind.clone(), wires.clone());
            Informer::builder(Api::all_with(client.clone(), &known.kind))
                .on_change(move |change| wires.observe(&kind, change))
                .start()
        })
        .collect()
}

/// The kinds of the API server; it is asked until it answers.
async fn discover(client: &Client) -> Vec<Known> {
    let mut backoff = Backoff::new(Policy::CONNECT);
    loop {
        match catalog::discover(client).await {
            Ok(known) => return known,
            Err(error) => {
                tracing::debug!(%error, "the API server's kinds are not known yet");
                tokio::time::sleep(backoff.failed(rand::random())).await;
            }
        }
    }
}
