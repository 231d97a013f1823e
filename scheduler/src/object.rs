//! The parts of API objects that decisions depend on, as they are decoded from the watch.
//!
//! Of a pod's JSON most is skipped: the copy of a large cluster shrinks to a fraction, and decoding takes a
//! fraction of the time. It also knows `schedulingGroup`, which the generated types don't have yet.

use api::k8s::api::core::v1 as core;
use api::k8s::apimachinery::pkg::api::resource::Quantity;
use api::k8s::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::core::NamespaceResourceScope;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A pod.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodObject {
    /// Name, labels, owners.
    #[serde(default, deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// What it asks for.
    pub spec: Option<PodSpec>,
    /// How it is.
    pub status: Option<PodStatus>,
}

/// What a pod asks for. Fields are as in the API's `PodSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the API's reference describes each field")]
pub struct PodSpec {
    pub containers: Vec<Container>,
    pub init_containers: Option<Vec<Container>>,
    pub overhead: Option<BTreeMap<String, Quantity>>,
    pub resources: Option<Resources>,
    pub affinity: Option<core::Affinity>,
    pub node_selector: Option<BTreeMap<String, String>>,
    pub node_name: Option<String>,
    pub tolerations: Option<Vec<core::Toleration>>,
    pub topology_spread_constraints: Option<Vec<core::TopologySpreadConstraint>>,
    pub priority: Option<i32>,
    pub preemption_policy: Option<String>,
    pub scheduler_name: Option<String>,
    pub scheduling_gates: Option<Vec<core::PodSchedulingGate>>,
    pub scheduling_group: Option<SchedulingGroup>,
    pub volumes: Option<Vec<Volume>>,
}

/// A volume of a pod, as far as it is a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// A claim of the pod's namespace.
    pub persistent_volume_claim: Option<ClaimSource>,
    /// A claim that is made for the pod, under the names of both.
    pub ephemeral: Option<IgnoredAny>,
}

/// The claim that a volume is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSource {
    /// Its name.
    pub claim_name: String,
}

/// A container, as far as it occupies its node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the API's reference describes each field")]
pub struct Container {
    pub name: String,
    pub image: Option<String>,
    pub ports: Option<Vec<core::ContainerPort>>,
    pub resources: Option<Resources>,
    pub restart_policy: Option<String>,
}

/// Requested resources; limits are the node's business.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Resources {
    /// By name.
    pub requests: Option<BTreeMap<String, Quantity>>,
}

/// Which group a pod is scheduled with.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SchedulingGroup {
    /// A PodGroup of the pod's namespace.
    pub pod_group_name: Option<String>,
}

/// How a pod is. Fields are as in the API's `PodStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the API's reference describes each field")]
pub struct PodStatus {
    pub phase: Option<String>,
    pub conditions: Option<Vec<Condition>>,
    pub nominated_node_name: Option<String>,
    pub start_time: Option<Time>,
    pub container_statuses: Option<Vec<ContainerStatus>>,
    pub init_container_statuses: Option<Vec<ContainerStatus>>,
    pub resources: Option<Resources>,
    pub allocated_resources: Option<BTreeMap<String, Quantity>>,
}

/// How a container is, as far as it occupies its node. Fields are as in the API's `ContainerStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the API's reference describes each field")]
pub struct ContainerStatus {
    pub name: String,
    pub resources: Option<Resources>,
    pub allocated_resources: Option<BTreeMap<String, Quantity>>,
}

/// A condition, without its times.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the API's reference describes each field")]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    pub reason: Option<String>,
    pub message: Option<String>,
}

/// A group of pods (`scheduling.k8s.io`).
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodGroup {
    /// Its name.
    #[serde(default, deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default)]
    pub spec: PodGroupSpec,
    /// What was said of it.
    pub status: Option<PodGroupStatus>,
}

/// What was said of a group.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodGroupStatus {
    /// Whether its pods have places, among others.
    pub conditions: Vec<Condition>,
}

/// What is asked for of a group.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodGroupSpec {
    /// One by one, or as a gang.
    pub scheduling_policy: SchedulingPolicy,
}

/// How the pods of a group are scheduled.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SchedulingPolicy {
    /// All or nothing; without it one by one.
    pub gang: Option<GangPolicy>,
}

/// All or nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GangPolicy {
    /// So many pods must have a node at the same time.
    pub min_count: i64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
}

/// Metadata without managed fields and annotations, which are often its larger part.
fn metadata<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let metadata = Metadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        labels: metadata.labels,
        owner_references: metadata.owner_references,
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
        ..ObjectMeta::default()
    })
}

macro_rules! namespaced {
    ($object:ty, $group:literal, $version:literal, $kind:literal, $plural:literal) => {
        impl kube::Resource for $object {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

namespaced!(PodObject, "", "v1", "Pod", "pods");
namespaced!(PodGroup, "scheduling.k8s.io", "v1beta1", "PodGroup", "podgroups");

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_needed_is_read_and_the_rest_skipped() {
        let pod: PodObject = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "uid": "u", "managedFields": [{"manager": "m"}], "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "env": [{"name": "E"}], "resources": {"requests": {"cpu": "1"}}}],
                "schedulingGroup": {"podGroupName": "g"}, "volumes": [{"name": "v"}], "preemptionPolicy": "Never"},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}],
                "nominatedNodeName": "n1", "startTime": null},
        }))
        .expect("a pod");
        assert_eq!((pod.metadata.name.as_deref(), pod.metadata.managed_fields), (Some("p"), None));
        let spec = pod.spec.expect("a spec");
        let group = spec.scheduling_group.and_then(|group| group.pod_group_name);
        assert_eq!((group.as_deref(), spec.preemption_policy.as_deref()), (Some("g"), Some("Never")));
        let status = pod.status.expect("a status");
        assert_eq!(status.nominated_node_name.as_deref(), Some("n1"));
        assert_eq!(status.conditions.expect("conditions")[0].type_, "PodScheduled");
    }

    #[test]
    fn a_group_is_a_gang_or_none() {
        let read = |policy| {
            let group = json!({"metadata": {"name": "g"}, "spec": {"schedulingPolicy": policy}});
            let group: PodGroup = serde_json::from_value(group).expect("a group");
            group.spec.scheduling_policy.gang.map(|gang| gang.min_count)
        };
        assert_eq!(read(json!({"gang": {"minCount": 3}})), Some(3));
        assert_eq!(read(json!({"basic": {}})), None);
    }
}
