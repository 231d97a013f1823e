//! One queue a controller.

use crate::looks::Uid;
use client::{informer::ObjectKey, queue::WorkQueue};

/// The queues of all controllers; clones are the same queues.
#[derive(Clone, Default)]
pub struct Queues {
    /// ReplicaSets.
    pub sets: WorkQueue<ObjectKey>,
    /// Deployments.
    pub deployments: WorkQueue<ObjectKey>,
    /// ReplicationControllers.
    pub replication_controllers: WorkQueue<ObjectKey>,
    /// StatefulSets.
    pub stateful_sets: WorkQueue<ObjectKey>,
    /// DaemonSets.
    pub daemon_sets: WorkQueue<ObjectKey>,
    /// HorizontalPodAutoscalers.
    pub autoscalers: WorkQueue<ObjectKey>,
    /// Jobs.
    pub jobs: WorkQueue<ObjectKey>,
    /// Pods that a Job's finalizer may hold without need.
    pub job_pods: WorkQueue<ObjectKey>,
    /// Finished Jobs that may have a time to live.
    pub job_ends: WorkQueue<ObjectKey>,
    /// CronJobs.
    pub cron_jobs: WorkQueue<ObjectKey>,
    /// Services whose EndpointSlices may change.
    pub services: WorkQueue<ObjectKey>,
    /// Services whose Endpoints may change.
    pub endpoints: WorkQueue<ObjectKey>,
    /// Endpoints that may have to be mirrored.
    pub mirrors: WorkQueue<ObjectKey>,
    /// PodDisruptionBudgets.
    pub budgets: WorkQueue<ObjectKey>,
    /// The Service `kube-dns`.
    pub cluster_dns: WorkQueue<ObjectKey>,
    /// Claims that a pod may use.
    pub claims: WorkQueue<ObjectKey>,
    /// Claims that may get a volume, or have lost it.
    pub claim_binding: WorkQueue<ObjectKey>,
    /// Volumes whose claims may have come or gone.
    pub volume_binding: WorkQueue<ObjectKey>,
    /// Volumes that a claim may be bound to.
    pub volumes: WorkQueue<ObjectKey>,
    /// Pods with ephemeral volumes.
    pub ephemeral_claims: WorkQueue<ObjectKey>,
    /// ClusterRoles with an aggregation rule.
    pub roles: WorkQueue<ObjectKey>,
    /// Secrets with a service account's token.
    pub token_secrets: WorkQueue<ObjectKey>,
    /// Secrets whose token may not be used any more.
    pub legacy_tokens: WorkQueue<ObjectKey>,
    /// ServiceCIDRs.
    pub service_ranges: WorkQueue<ObjectKey>,
    /// Nodes whose TTL depends on how many there are.
    pub node_ttl: WorkQueue<ObjectKey>,
    /// Nodes that may have no range of pod addresses.
    pub node_ranges: WorkQueue<ObjectKey>,
    /// ResourceQuotas to count anew.
    pub quotas: WorkQueue<ObjectKey>,
    /// Namespaces that end.
    pub namespaces: WorkQueue<ObjectKey>,
    /// Namespaces that want a service account.
    pub accounts: WorkQueue<ObjectKey>,
    /// Namespaces that want the root CA.
    pub root_ca: WorkQueue<ObjectKey>,
    /// Nodes.
    pub nodes: WorkQueue<ObjectKey>,
    /// Pods that may have to leave their node.
    pub evictions: WorkQueue<ObjectKey>,
    /// Pods that nobody may finish.
    pub pod_gc: WorkQueue<ObjectKey>,
    /// Objects whose owners may be gone.
    pub garbage: WorkQueue<Uid>,
}
