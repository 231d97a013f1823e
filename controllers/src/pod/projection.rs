//! A pod as the controllers keep it: the fields that they read, by upstream's names, and nothing else.
//!
//! A cluster has more pods than anything else, and upstream's generated struct takes four kilobytes before it
//! holds a single string. Whatever isn't here is skipped while a pod is decoded; a controller that needs a
//! further field adds it here. Nothing is ever written back from a projection but by patches.

use k8s_openapi::{
    api::core::v1::{
        Affinity, ContainerPort, ContainerState, EphemeralVolumeSource, PersistentVolumeClaimVolumeSource,
        PodCondition, PodIP, Toleration,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Resource, core::NamespaceResourceScope};
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer};
use std::{borrow::Cow, collections::VecDeque, sync::Arc};

/// Different lists of tolerations that are remembered, to be shared by the pods that have them.
const TOLERATIONS: usize = 32;

/// What controllers know of a pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Without managed fields and what `kubectl apply` remembers.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: Option<PodSpec>,
    /// What is.
    pub status: Option<PodStatus>,
}

/// The part of a pod's `spec` that controllers read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// Where it runs.
    pub node_name: Option<String>,
    /// Its own name within its subdomain.
    pub hostname: Option<String>,
    /// The Service that it has a name in.
    pub subdomain: Option<String>,
    /// Seconds.
    pub termination_grace_period_seconds: Option<i64>,
    /// Only if it names nodes, as that of a daemon's pod does.
    #[serde(deserialize_with = "naming_nodes")]
    pub affinity: Option<Box<Affinity>>,
    /// Shared by pods that tolerate the same.
    #[serde(deserialize_with = "shared")]
    pub tolerations: Option<Arc<[Toleration]>>,
    /// Those that use a claim.
    #[serde(deserialize_with = "claiming")]
    pub volumes: Option<Vec<Volume>>,
    /// Those that have ports with a name.
    #[serde(deserialize_with = "with_ports")]
    pub containers: Option<Vec<Container>>,
    /// As `containers`.
    #[serde(deserialize_with = "with_ports")]
    pub init_containers: Option<Vec<Container>>,
}

/// A volume that uses a claim.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// A claim that somebody made.
    pub persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
    /// A claim that lives as long as the pod, and what it is made of.
    pub ephemeral: Option<Box<EphemeralVolumeSource>>,
}

/// A container and its named ports.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// `Always` makes an init container a sidecar.
    pub restart_policy: Option<String>,
    /// Those with a name.
    pub ports: Option<Vec<ContainerPort>>,
}

/// The part of a pod's `status` that controllers read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// `Pending`, `Running`, …
    pub phase: Option<String>,
    /// All of them, since they are written back as a list.
    #[serde(deserialize_with = "exact")]
    pub conditions: Option<Vec<PodCondition>>,
    /// How its containers are.
    #[serde(deserialize_with = "exact")]
    pub container_statuses: Option<Vec<ContainerStatus>>,
    /// How its init containers are.
    #[serde(deserialize_with = "exact")]
    pub init_container_statuses: Option<Vec<ContainerStatus>>,
    /// Its first address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// All its addresses.
    #[serde(rename = "podIPs", deserialize_with = "exact")]
    pub pod_ips: Option<Vec<PodIP>>,
    /// When the node took it.
    pub start_time: Option<Time>,
}

/// How a container is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Which one.
    pub name: String,
    /// How often it was started again.
    pub restart_count: i32,
    /// What it does now.
    pub state: Option<ContainerState>,
}

impl Resource for Pod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

fn metadata<'de, D: Deserializer<'de>>(input: D) -> Result<ObjectMeta, D::Error> {
    let mut metadata = ObjectMeta::deserialize(input)?;
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    metadata.annotations = metadata.annotations.filter(|annotations| !annotations.is_empty());
    metadata.owner_references.iter_mut().for_each(Vec::shrink_to_fit);
    metadata.finalizers.iter_mut().for_each(Vec::shrink_to_fit);
    Ok(metadata)
}

/// A list without room for more; a list without elements is none.
fn exact<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Option<Vec<T>>, D::Error> {
    only(input, |_| true)
}

/// As [`exact`], of those that are `wanted`.
fn only<'de, D, T>(input: D, wanted: impl Fn(&T) -> bool) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let Some(mut list) = Option::<Vec<T>>::deserialize(input)? else { return Ok(None) };
    list.retain(wanted);
    list.shrink_to_fit();
    Ok(Some(list).filter(|list| !list.is_empty()))
}

fn naming_nodes<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Box<Affinity>>, D::Error> {
    Ok(Option::<Box<Affinity>>::deserialize(input)?.filter(|affinity| names_nodes(affinity)))
}

fn names_nodes(affinity: &Affinity) -> bool {
    let node = affinity.node_affinity.as_ref();
    let required = node.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    required
        .is_some_and(|selector| selector.node_selector_terms.iter().any(|term| term.match_fields.is_some()))
}

fn claiming<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<Volume>>, D::Error> {
    only(input, |volume: &Volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some())
}

fn with_ports<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<Container>>, D::Error> {
    let mut containers = Option::<Vec<Container>>::deserialize(input)?.unwrap_or_default();
    for container in &mut containers {
        let ports = container.ports.take().into_iter().flatten();
        container.ports = Some(ports.filter(|port| port.name.is_some()).collect());
    }
    containers.retain(|container| container.ports.as_ref().is_some_and(|ports| !ports.is_empty()));
    containers.shrink_to_fit();
    Ok(Some(containers).filter(|containers| !containers.is_empty()))
}

/// The lists of tolerations seen last. There are few different ones: what admission adds is the same everywhere.
static KNOWN: Mutex<VecDeque<Arc<[Toleration]>>> = Mutex::new(VecDeque::new());

fn shared<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Arc<[Toleration]>>, D::Error> {
    let Some(list) = only(input, |_| true)? else { return Ok(None) };
    let mut known = KNOWN.lock();
    if let Some(same) = known.iter().find(|same| ***same == *list) {
        return Ok(Some(same.clone()));
    }
    let list: Arc<[Toleration]> = list.into();
    known.truncate(TOLERATIONS - 1);
    known.push_front(list.clone());
    Ok(Some(list))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "managedFields": [{"manager": "m"}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"}},
            "spec": {
                "nodeName": "n1", "restartPolicy": "Always",
                "tolerations": [{"key": "k", "operator": "Exists"}],
                "volumes": [{"name": "v", "emptyDir": {}},
                    {"name": "w", "persistentVolumeClaim": {"claimName": "c"}}],
                "containers": [{"name": "x", "image": "i", "ports": [{"containerPort": 1}]},
                    {"name": "y", "image": "i", "ports": [{"name": "http", "containerPort": 80}]}],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                "hostIPs": [], "containerStatuses": []},
        })
    }

    fn decode(pod: &Value) -> Pod {
        serde_json::from_str(&pod.to_string()).expect("a pod")
    }

    #[test]
    fn what_controllers_read_is_kept_and_nothing_else() {
        let kept = decode(&pod("a"));
        let (spec, status) = (kept.spec.expect("a spec"), kept.status.expect("a status"));
        assert_eq!(kept.metadata.managed_fields, None);
        assert_eq!(kept.metadata.annotations, Some([("a".to_owned(), "b".to_owned())].into()));
        let volumes: Vec<String> = spec.volumes.into_iter().flatten().map(|volume| volume.name).collect();
        assert_eq!((spec.node_name.as_deref(), volumes), (Some("n1"), vec!["w".to_owned()]));
        assert_eq!(spec.containers.map(|containers| containers.len()), Some(1), "only one has a named port");
        assert_eq!((status.phase.as_deref(), status.pod_ip.as_deref()), (Some("Running"), Some("10.0.0.1")));
        assert_eq!(status.pod_ips.map(|addresses| addresses.len()), Some(1));
        assert_eq!(status.container_statuses, None);
    }

    #[test]
    fn pods_that_tolerate_the_same_share_it() {
        let tolerations = |pod: Pod| pod.spec.and_then(|spec| spec.tolerations).expect("tolerations");
        let (a, b) = (tolerations(decode(&pod("a"))), tolerations(decode(&pod("b"))));
        assert!(Arc::ptr_eq(&a, &b));
    }

    #[test]
    fn absent_and_null_are_the_same() {
        let bare = decode(&json!({"metadata": {"name": "a"}, "spec": {"containers": null, "volumes": null}}));
        assert_eq!(bare.spec, Some(PodSpec::default()));
    }

    /// The figure in docs/bench-api.md depends on it.
    #[test]
    fn a_pod_without_strings_is_small() {
        assert!(size_of::<Pod>() < 800, "{} bytes", size_of::<Pod>());
    }
}
