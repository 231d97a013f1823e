//! The kinds that the world knows.

use kube::core::{ApiResource, GroupVersionKind};

/// Group, version, kind, plural, namespaced.
const KINDS: [(&str, &str, &str, &str, bool); 28] = [
    ("", "v1", "ConfigMap", "configmaps", true),
    ("", "v1", "Endpoints", "endpoints", true),
    ("", "v1", "Namespace", "namespaces", false),
    ("", "v1", "Node", "nodes", false),
    ("", "v1", "PersistentVolume", "persistentvolumes", false),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true),
    ("", "v1", "Pod", "pods", true),
    ("", "v1", "ReplicationController", "replicationcontrollers", true),
    ("", "v1", "Secret", "secrets", true),
    ("", "v1", "Service", "services", true),
    ("", "v1", "ServiceAccount", "serviceaccounts", true),
    ("apps", "v1", "ControllerRevision", "controllerrevisions", true),
    ("apps", "v1", "DaemonSet", "daemonsets", true),
    ("apps", "v1", "Deployment", "deployments", true),
    ("apps", "v1", "ReplicaSet", "replicasets", true),
    ("apps", "v1", "StatefulSet", "statefulsets", true),
    ("batch", "v1", "CronJob", "cronjobs", true),
    ("batch", "v1", "Job", "jobs", true),
    ("coordination.k8s.io", "v1", "Lease", "leases", true),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses", false),
    ("", "v1", "ResourceQuota", "resourcequotas", true),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    ("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", false),
    ("networking.k8s.io", "v1", "IPAddress", "ipaddresses", false),
    ("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", false),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
];

/// Each kind, and whether its objects have namespaces.
pub fn all() -> impl Iterator<Item = (ApiResource, bool)> {
    KINDS.into_iter().map(|(_, _, _, plural, namespaced)| (kind(plural), namespaced))
}

pub fn kind(plural: &str) -> ApiResource {
    let (group, version, kind, plural, _) =
        KINDS.into_iter().find(|row| row.3 == plural).unwrap_or_else(|| panic!("there is no kind {plural}"));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

pub fn is_namespaced(plural: &str) -> bool {
    KINDS.into_iter().any(|row| row.3 == plural && row.4)
}
