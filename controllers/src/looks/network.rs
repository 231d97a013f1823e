//! Looks at what surrounds pods: Endpoints, budgets and claims. (Slices are made, so they are in `workloads`.)

use crate::{
    caches::{BY_SERVICE, Caches},
    claim_protection, cluster_dns, disruption,
    driver::Controller,
    endpoint_mirror, endpoint_slice, endpoints,
    expectations::Pending,
    looks::workloads::Maker,
    owner,
    plan::Plan,
    pod::Pod,
};
use client::informer::{ObjectKey, Store};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt;
use std::{collections::BTreeMap, sync::Arc};

fn slices_of(caches: &Caches, service: ObjectKey, manager: &str) -> Vec<Arc<EndpointSlice>> {
    let mut slices = caches.slices.by_index(BY_SERVICE, &service.to_string());
    slices.retain(|slice| slice.labels().get(endpoint_slice::MANAGED_BY).is_some_and(|by| by == manager));
    slices
}

/// The slice of Service `kube-dns`.
pub struct ClusterDns(pub Caches);

impl Controller for ClusterDns {
    type Key = ObjectKey;
    const NAME: &'static str = "cluster-dns-controller";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let (service, slice) = (self.0.services.get(key), self.0.slices.get(key));
        let nodes = self.0.nodes.list();
        let nodes = nodes.iter().map(|node| &**node);
        Ok(cluster_dns::reconcile(service.as_deref(), slice.as_deref(), nodes))
    }
}

/// The slices of Services with a selector.
impl Maker for Service {
    const NAME: &'static str = "endpoint-slice-controller";
    type Made = EndpointSlice;

    fn own(caches: &Caches) -> &Store<Self> {
        &caches.services
    }

    fn made(caches: &Caches) -> &Store<EndpointSlice> {
        &caches.slices
    }

    fn plan(&self, caches: &Caches, pending: Pending, _: Timestamp) -> Plan {
        let view = endpoint_slice::Snapshot {
            pods: caches.pods.in_namespace(&self.namespace().unwrap_or_default()),
            slices: slices_of(caches, ObjectKey::of(self), endpoint_slice::MANAGER),
            nodes: caches.nodes.list(),
            pending,
        };
        endpoint_slice::reconcile(self, &view)
    }
}

/// The slices that mirror Endpoints.
impl Maker for Endpoints {
    const NAME: &'static str = "endpoint-slice-mirroring-controller";
    type Made = EndpointSlice;

    fn own(caches: &Caches) -> &Store<Self> {
        &caches.endpoints
    }

    fn made(caches: &Caches) -> &Store<EndpointSlice> {
        &caches.slices
    }

    fn plan(&self, caches: &Caches, pending: Pending, _: Timestamp) -> Plan {
        let view = endpoint_mirror::Snapshot {
            service: caches.services.get(&ObjectKey::of(self)),
            slices: slices_of(caches, ObjectKey::of(self), endpoint_mirror::MANAGER),
            pending,
        };
        endpoint_mirror::reconcile(self, &view)
    }
}

/// The endpoints controller.
pub struct EndpointsLists(pub Caches);

impl Controller for EndpointsLists {
    type Key = ObjectKey;
    const NAME: &'static str = "endpoint-controller";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let (service, known) = (self.0.services.get(key), self.0.endpoints.get(key));
        let pods = self.0.pods.in_namespace(&key.namespace);
        Ok(endpoints::reconcile(service.as_deref(), known.as_deref(), &pods))
    }
}

/// The disruption controller.
pub struct Budgets(pub Caches);

impl Controller for Budgets {
    type Key = ObjectKey;
    const NAME: &'static str = "controllermanager";

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        let Some(budget) = self.0.budgets.get(key) else { return Ok(Plan::nothing()) };
        let mut pods = self.0.pods.in_namespace(&key.namespace);
        pods.retain(|pod| disruption::matches(&budget, pod));
        let scales = pods.iter().filter_map(|pod| self.scale_of(pod)).collect::<BTreeMap<_, _>>();
        Ok(disruption::reconcile(&budget, &disruption::Snapshot { pods, scales }, now))
    }
}

impl Budgets {
    /// The uid of the pod's controller (of its Deployment, if it has one), and how many pods that wants.
    fn scale_of(&self, pod: &Pod) -> Option<(String, Option<i32>)> {
        let owner = owner::controller_of(pod)?;
        let key = ObjectKey::new(pod.namespace().unwrap_or_default(), &owner.name);
        let caches = &self.0;
        let wanted = match owner.kind.as_str() {
            "ReplicaSet" => {
                let set = caches.sets.get(&key)?;
                if let Some(of_deployment) = self.deployment_scale(&key.namespace, &set) {
                    return Some(of_deployment);
                }
                set.spec.replicas
            }
            "StatefulSet" => caches.stateful_sets.get(&key)?.spec.replicas,
            "ReplicationController" => {
                caches.replication_controllers.get(&key)?.spec.as_ref().and_then(|spec| spec.replicas)
            }
            _ => return Some((owner.uid.clone(), None)),
        };
        Some((owner.uid.clone(), Some(wanted.unwrap_or(1))))
    }

    fn deployment_scale(
        &self,
        namespace: &str,
        set: &k8s_openapi::api::apps::v1::ReplicaSet,
    ) -> Option<(String, Option<i32>)> {
        let owner = owner::controller_of(set).filter(|owner| owner.kind == "Deployment")?;
        let deployment = self.0.deployments.get(&ObjectKey::new(namespace, &owner.name))?;
        Some((owner.uid.clone(), Some(deployment.spec.replicas.unwrap_or(1))))
    }
}

/// The claim protection controller.
pub struct ClaimProtection(pub Caches);

impl Controller for ClaimProtection {
    type Key = ObjectKey;
    const NAME: &'static str = "pvc-protection-controller";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let Some(claim) = self.0.claims.get(key) else { return Ok(Plan::nothing()) };
        Ok(claim_protection::reconcile(&claim, &self.0.pods.in_namespace(&key.namespace)))
    }
}
