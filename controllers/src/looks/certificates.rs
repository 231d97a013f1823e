//! Looks at certificate requests; asks the API server whether their senders may make them.

use crate::{
    caches::Caches,
    certificates::{self, CertificateSigner, Reached},
    driver::Controller,
    plan::Plan,
};
use client::informer::{ObjectKey, Store};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    certificates::v1::CertificateSigningRequest,
    core::v1::Node,
};
use kube::{Api, Client, api::PostParams};
use std::sync::Arc;

/// Somebody may yet be allowed what he wasn't: then his request is looked at again after this.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// The controller of certificate requests.
pub struct Certificates {
    /// What it reads.
    pub requests: Store<CertificateSigningRequest>,
    /// Nodes, for their serving certificates; and what API servers are reached by.
    pub caches: Caches,
    /// Whom it asks.
    pub client: Client,
    /// Who signs.
    pub signer: Arc<dyn CertificateSigner>,
}

impl Controller for Certificates {
    type Key = ObjectKey;
    const NAME: &'static str = "certificatesigningrequest-signing-controller";

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        let Some(request) = self.requests.get(key) else { return Ok(Plan::nothing()) };
        if let Some(node) = certificates::serving_node(&request) {
            let plan = certificates::approve_serving(&request, &node, &self.reached(&node), now);
            if plan != Plan::nothing() {
                return Ok(plan);
            }
        }
        let recognised = certificates::recognise(&request);
        for as_what in &recognised {
            if self.may(&request, as_what.permission).await? {
                return Ok(certificates::approve(&request, *as_what));
            }
        }
        let mut plan = certificates::reconcile(&request, self.signer.as_ref(), now);
        if !recognised.is_empty() && plan.actions.is_empty() {
            plan.look_again(now.saturating_add(PATIENCE).unwrap_or(Timestamp::MAX));
        }
        Ok(plan)
    }
}

impl Certificates {
    fn reached(&self, node: &str) -> Reached {
        let node = self.caches.nodes.get(&ObjectKey::cluster(node));
        let kubernetes = ObjectKey::new("default", "kubernetes");
        let service =
            self.caches.services.get(&kubernetes).and_then(|service| service.spec.clone()?.cluster_ip);
        let endpoints = self.caches.endpoints.get(&kubernetes);
        let subsets = endpoints.iter().flat_map(|endpoints| endpoints.subsets.iter().flatten());
        let servers = subsets.flat_map(|subset| subset.addresses.iter().flatten()).map(|one| one.ip.clone());
        let servers = servers.chain(service).filter_map(|ip| ip.parse().ok()).collect();
        let addresses = |node: &Node| {
            let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
            all.filter_map(|address| address.address.parse().ok()).collect()
        };
        Reached { node: node.map(|node| addresses(&node)), servers }
    }

    async fn may(&self, request: &CertificateSigningRequest, permission: &str) -> kube::Result<bool> {
        let spec = &request.spec;
        let act = ResourceAttributes {
            group: Some("certificates.k8s.io".to_owned()),
            resource: Some("certificatesigningrequests".to_owned()),
            subresource: Some(permission.to_owned()),
            verb: Some("create".to_owned()),
            version: Some("*".to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(act),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = Api::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}
