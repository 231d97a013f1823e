//! How an API server begins: its parts, in the order in which they need each other, and what goes on beside requests.

use std::sync::Arc;

use api::status::Status;
use parking_lot::Mutex;
use store::kv::{Kv, KvError};
use tokio::sync::{mpsc, watch};

use super::ApiServer;
use crate::admission::Programs;
use crate::admission::turns::Turns;
use crate::aggregation::Aggregation;
use crate::audit::Audit;
use crate::auth::{AccountTokens, Authenticator, Authorizer, token_tracking};
use crate::config::Config;
use crate::crd::feed::CrdFeed;
use crate::encryption::SealedKv;
use crate::flow::Flow;
use crate::flow::feed::FlowFeed;
use crate::flow::quota::Quotas;
use crate::node_proxy::NodeProxy;
use crate::pki::PkiError;
use crate::proxy::Proxy;
use crate::rbac_feed::RbacFeed;
use crate::reach::services::Services;
use crate::reach::tls::TrustError;
use crate::registry::Registry;
use crate::resource_metrics::Summaries;
use crate::storage::cache::{Cache, Observer};
use crate::storage::{Storage, follower};
use crate::webhook::Webhooks;
use crate::{aggregation, crd, first_objects, kubernetes_service};

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store refused to read what is there.
    #[error("read the store")]
    Load(#[source] KvError),
    /// The audit log could not be opened.
    #[error("open the audit log")]
    Audit(#[source] std::io::Error),
    /// The server's own certificate could not be made.
    #[error("issue the client certificate for kubelets")]
    Pki(#[source] PkiError),
    /// Others can't be spoken to over TLS.
    #[error("set up TLS to others")]
    Trust(#[from] TrustError),
    /// What every cluster needs could not be created.
    #[error("create {object}: {status}")]
    Bootstrap {
        /// Kind and name.
        object: String,
        /// The refusal.
        status: Box<Status>,
    },
}

impl ApiServer {
    /// Starts on a store, and makes sure that the objects exist that every cluster has.
    ///
    /// # Errors
    /// If the store can't be read or written.
    pub async fn start(store: Arc<dyn Kv>, config: Config) -> Result<Arc<Self>, StartError> {
        let sealed = Arc::new(SealedKv::new(store, config.pki.encryption_keys().clone()));
        let store: Arc<dyn Kv> = sealed.clone();
        let authorizer = Arc::new(Authorizer::default());
        let registry = Arc::new(Registry::builtin());
        let services = Services::new(registry.clone());
        let webhooks = Webhooks::new(services.clone());
        let definitions = CrdFeed::new(registry.clone(), webhooks.clone());
        let definitions_changed = definitions.subscribe();
        let aggregation = Arc::new(Aggregation::new(&config.pki)?);
        let limits = &config.limits;
        let flow = Flow::new(limits.seats, limits.queue_wait);
        let rbac = RbacFeed::new(authorizer.clone());
        let observers: [Box<dyn Observer>; 4] = [
            Box::new(rbac),
            Box::new(definitions),
            Box::new(FlowFeed::new(flow.clone())),
            Box::new(aggregation::feed::Feed(aggregation.clone())),
        ];
        let audit = config.audit.as_ref().map(Audit::open).transpose().map_err(StartError::Audit)?;
        let quotas = Quotas::new(limits.requests_per_user, limits.watches_per_user);
        let cache = Arc::new(Cache::new(config.limits, Box::new(observers)));
        let loaded = follower::load(store.as_ref(), &cache).await.map_err(StartError::Load)?;
        let follower = tokio::spawn(follower::follow(store.clone(), cache.clone(), loaded));
        let sealing = tokio::spawn(seal_anew(sealed));
        let storage = Arc::new(Storage::new(store, cache, &config));
        services.look_in(&storage);
        let accounts = AccountTokens::new(
            config.pki.account_keys().clone(),
            config.account_tokens.clone(),
            storage.clone(),
        );
        let (uses, used) = mpsc::channel(token_tracking::WAITING);
        let accounts = accounts.telling(uses);
        let server = Arc::new(Self {
            authenticator: Authenticator::new(config.static_tokens.clone(), accounts, storage.clone())
                .with_provider(config.provider.clone()),
            storage,
            registry,
            authorizer,
            node_proxy: NodeProxy::new(&config.pki).map_err(StartError::Pki)?,
            proxy: Proxy::new(config.proxy_loopback)?,
            aggregation,
            services,
            webhooks,
            summaries: Summaries::default(),
            metrics: Arc::default(),
            programs: Programs::default(),
            turns: Turns::default(),
            flow,
            quotas,
            audit,
            draining: watch::Sender::new(false),
            tasks: Mutex::new(vec![follower, sealing]),
            config,
        });
        first_objects::ensure(&server).await?;
        server.tend(definitions_changed, used);
        // From its first answer on the server judges by the roles that exist.
        let applied = server.storage.status().revision;
        server.storage.cache.wait_for(applied, server.config.limits.freshness).await;
        if let Some(own) = server.config.advertise {
            server.run(kubernetes_service::keep(Arc::downgrade(&server), own));
        }
        Ok(server)
    }

    /// What goes on beside requests.
    fn tend(
        self: &Arc<Self>,
        definitions_changed: watch::Receiver<()>,
        used: mpsc::Receiver<token_tracking::Used>,
    ) {
        self.run(token_tracking::run(Arc::downgrade(self), used));
        self.run(crd::controller::run(Arc::downgrade(self), definitions_changed));
        self.run(aggregation::controller::run(Arc::downgrade(self)));
    }

    fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().push(tokio::spawn(task));
    }
}

/// What can't be sealed anew stays readable, so this stops nothing else.
async fn seal_anew(sealed: Arc<SealedKv>) {
    match sealed.seal_anew().await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "sealed Secrets with the newest key"),
        Err(error) => tracing::warn!(%error, "some Secrets are still in clear or under an old key"),
    }
}
