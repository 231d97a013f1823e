//! The cluster's Services, as far as containers' environments tell of them.
//!
//! What was seen last is kept in a file: a node that comes up while no API server answers begins its pods with the
//! Services of before rather than without, or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::informer::{Informer, ObjectKey};
use k8s_openapi::api::core::v1::{Pod, Service, ServiceSpec};
use kube::Api;
use kube::core::ObjectMeta;
use parking_lot::Mutex;

use crate::pod::service_links::{MASTER, MASTER_NAMESPACE, variables, wants_links};
use crate::pod::static_pod::is_static;

/// How long a container's start waits for the first list.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// The file, below the node's directory.
const FILE: &str = "services.json";

/// The Services that containers hear of.
#[derive(Clone)]
pub struct Services {
    informer: Arc<Informer<Service>>,
    file: PathBuf,
    /// Up to which change the file tells.
    kept: Arc<Mutex<u64>>,
}

impl Services {
    /// Those of this cluster, kept below this data directory.
    pub fn new(client: kube::Client, data_dir: &Path) -> Self {
        let informer = Informer::builder(Api::<Service>::all(client)).keep(essence).start();
        Self { informer: Arc::new(informer), file: data_dir.join(FILE), kept: Arc::default() }
    }

    /// What a container of this pod that begins now is told.
    ///
    /// # Errors
    /// The container's `waiting.message`: nobody knows of any Services yet.
    pub async fn variables(&self, pod: &Pod) -> Result<BTreeMap<String, String>, String> {
        let (namespace, all) =
            (pod.metadata.namespace.as_deref().unwrap_or_default(), self.known(pod).await?);
        let stands_in = |service: &&Service, namespace: &str| {
            service.metadata.namespace.as_deref().unwrap_or_default() == namespace
        };
        let master = all.iter().filter(|service| {
            stands_in(service, MASTER_NAMESPACE) && service.metadata.name.as_deref() == Some(MASTER)
        });
        let own = all.iter().filter(|service| wants_links(pod) && stands_in(service, namespace));
        Ok(variables(master.chain(own)))
    }

    /// Those that may concern the pod. One that runs from a file waits for no API server.
    async fn known(&self, pod: &Pod) -> Result<Vec<Service>, String> {
        let store = self.informer.store();
        let patience = if is_static(pod) { Duration::ZERO } else { FIRST_ANSWER };
        if store.is_synced() || tokio::time::timeout(patience, store.wait_synced()).await.is_ok() {
            self.keep();
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let master = store.get(&ObjectKey::new(MASTER_NAMESPACE, MASTER));
            let all = store.in_namespace(namespace).into_iter().chain(master);
            return Ok(all.map(|service| (*service).clone()).collect());
        }
        let kept = fs::read(&self.file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        match kept {
            Some(services) => Ok(services),
            None if is_static(pod) => Ok(Vec::new()),
            None => Err("services have not yet been read at least once, cannot construct envvars".to_owned()),
        }
    }

    /// Keeps what is known if it has changed. It isn't synced: what is lost with the power was true a moment ago.
    fn keep(&self) {
        let mut kept = self.kept.lock();
        let store = self.informer.store();
        let newest = store.newest();
        if std::mem::replace(&mut *kept, newest) == newest {
            return;
        }
        let all: Vec<Service> = store.list().iter().map(|service| (**service).clone()).collect();
        let (new, text) = (self.file.with_extension("new"), serde_json::to_vec(&all).unwrap_or_default());
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.file)) {
            tracing::warn!(file = %self.file.display(), %error, "keep the Services that containers hear of");
        }
    }
}

/// What variables are made of.
fn essence(service: &Service) -> Service {
    let spec = service.spec.as_ref().map(|spec| ServiceSpec {
        cluster_ip: spec.cluster_ip.clone(),
        type_: spec.type_.clone(),
        ports: spec.ports.clone(),
        ..ServiceSpec::default()
    });
    let metadata = ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        resource_version: service.metadata.resource_version.clone(),
        ..ObjectMeta::default()
    };
    Service { metadata, spec, status: None }
}
