//! Keeps the node's Lease, and with each renewal the node's promise to pods that fence themselves
//! ([`api::self_fence`], which decides; here it is carried out).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use api::self_fence::{self, Promise, Step, Tenure};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use crate::fence;
use crate::node::lease;
use crate::pod::PodUid;

/// Pods that may have been replaced while the node was silent: none of them may begin here.
#[derive(Debug)]
pub struct GivenUp {
    /// Those that the API server had when the node came back.
    pub listed: BTreeSet<PodUid>,
    /// All others that are of this version or older are gone from it.
    pub until: u64,
    /// Told once they have ended.
    pub done: oneshot::Sender<()>,
}

/// Who keeps the Lease.
pub struct Keeper {
    node: String,
    lasts: Duration,
    /// Containers end with the promise.
    keeps: bool,
    leases: Api<Lease>,
    client: kube::Client,
    promise: PathBuf,
    promised: watch::Sender<Duration>,
    given_up: mpsc::Sender<GivenUp>,
    tenure: Tenure,
}

impl Keeper {
    /// Of the node's Lease, for so long at a time. `promise`: where supervisors read what is promised. `keeps`:
    /// they do, on this node. `promised` and `given_up` tell the agent.
    pub fn new(
        client: kube::Client,
        node: &str,
        lasts: Duration,
        (promise, keeps): (PathBuf, bool),
        (promised, given_up): (watch::Sender<Duration>, mpsc::Sender<GivenUp>),
    ) -> Self {
        Self {
            node: node.to_owned(),
            lasts: Duration::from_secs(lease::whole_seconds(lasts).unsigned_abs().into()),
            keeps,
            leases: Api::namespaced(client.clone(), lease::NAMESPACE),
            client,
            promise,
            promised,
            given_up,
            tenure: Tenure::default(),
        }
    }

    /// One renewal, with all that it takes. `owner`: the Node, once it is registered. A failure, or giving the
    /// renewal up, costs the next one a look at what is there.
    pub async fn renew(&mut self, owner: Option<OwnerReference>) -> Result<(), kube::Error> {
        // Taken, so that who stops waiting leaves nothing behind that isn't so.
        let mut tenure = std::mem::take(&mut self.tenure);
        loop {
            match tenure.next() {
                Step::Read => tenure.read(&self.read(owner.clone()).await?),
                Step::EndPods => {
                    self.end_pods().await?;
                    tenure.pods_ended();
                }
                Step::Renew { version, mark } => {
                    let promise =
                        self_fence::promise(self.lasts, fence::now(), fence::promised(&self.promise));
                    let renewed = self.write(&version, mark, promise).await?;
                    if tenure.renewed(&renewed) {
                        self.keep(promise);
                        self.tenure = tenure;
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn read(&self, owner: Option<OwnerReference>) -> Result<Lease, kube::Error> {
        if let Some(lease) = self.leases.get_opt(&self.node).await? {
            return Ok(lease);
        }
        let new = lease::lease(&self.node, owner, self.lasts, Timestamp::now());
        self.leases.create(&PostParams::default(), &new).await
    }

    async fn write(&self, version: &str, mark: Option<&str>, promise: Promise) -> Result<Lease, kube::Error> {
        let now = Timestamp::now();
        let lasts = Duration::from_secs(promise.seconds.unsigned_abs().into());
        let patch = lease::tenure(&self.node, version, mark, (lasts, self.keeps), now);
        self.leases.patch(&self.node, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    fn keep(&self, promise: Promise) {
        if !self.keeps {
            return;
        }
        match fence::promise(&self.promise, promise.until) {
            Ok(()) => {
                self.promised.send_replace(promise.until);
            }
            Err(error) => tracing::warn!(%error, "write the promise to pods that fence themselves"),
        }
    }

    /// Has the API server know that the pods have failed which fence themselves, and the agent that none of them may
    /// begin.
    async fn end_pods(&self) -> Result<(), kube::Error> {
        let params = ListParams::default().fields(&format!("spec.nodeName={}", self.node));
        let list = Api::<Pod>::all(self.client.clone()).list(&params).await?;
        let asking: Vec<&Pod> =
            list.items.iter().filter(|pod| self_fence::asks(pod.metadata.annotations.as_ref())).collect();
        tracing::warn!(
            node = self.node,
            pods = asking.len(),
            "the node's pods may have been replaced: end them"
        );
        for pod in asking.iter().filter(|pod| !is_over(pod)) {
            self.fail(pod).await?;
        }
        let listed = asking.iter().filter_map(|pod| pod.metadata.uid.clone()).map(PodUid).collect();
        let until = list.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        let (done, ended) = oneshot::channel();
        // Who ends has nobody to begin anything any more.
        let _ = self.given_up.send(GivenUp { listed, until: until.unwrap_or(0), done }).await;
        let _ = ended.await;
        Ok(())
    }

    async fn fail(&self, pod: &Pod) -> Result<(), kube::Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let (reason, message) = (self_fence::REASON, self_fence::MESSAGE);
        let status = json!({"phase": "Failed", "reason": reason, "message": message});
        let patch = Patch::Merge(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
        match pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
            // Another of its name, or none: it is gone.
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => Ok(()),
            done => done.map(drop),
        }
    }
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
