//! The local-path provisioner: a volume is a directory of the node that its first pod runs on.
//!
//! The node's agent makes the directory when it mounts the volume; a pod on that node removes it when the claim is
//! gone and the volume's policy is Delete. The class says below which directory (`parameters.path`).

use super::{PROVISIONED_BY, SELECTED_NODE, fit};
use crate::{
    owner,
    plan::{Action, Part, Plan, Severity, Target, to_value},
    pod::Pod,
};
use client::recorder::reference;
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus},
    storage::v1::StorageClass,
};
use kube::{ResourceExt, core::ApiResource};
use serde_json::{Value, json};

/// What classes name.
pub const PROVISIONER: &str = "amoeba.dev/local-path";
/// Where directories are made unless the class says otherwise.
const PATH: &str = "/var/lib/amoeba/volumes";
/// What the pod that removes a directory runs, unless the class says otherwise.
const IMAGE: &str = "busybox";
/// On a volume: the image of that pod.
const REMOVER_IMAGE: &str = "amoeba.dev/remover-image";
/// Where the pods that remove directories run.
pub const NAMESPACE: &str = "kube-system";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// The reference by which a volume names its claim.
pub fn reference_to(claim: &PersistentVolumeClaim) -> Value {
    json!({
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "namespace": claim.namespace(),
        "name": claim.name_any(),
        "uid": claim.uid(),
        "resourceVersion": claim.resource_version(),
    })
}

/// The name of the pod that removes a volume's directory.
pub fn remover_name(volume: &str) -> String {
    format!("remove-{volume}")
}

/// The volume whose directory a pod removes, if it is there for that.
pub fn removed_by(pod: &Pod) -> Option<&str> {
    let name =
        pod.metadata.name.as_deref().filter(|_| pod.metadata.namespace.as_deref() == Some(NAMESPACE))?;
    name.strip_prefix("remove-")
}

/// Makes a volume for the claim on the chosen node, or says why it can't be.
pub fn provision(claim: &PersistentVolumeClaim, class: &StorageClass, node: Option<&Node>, plan: &mut Plan) {
    let selected = claim.annotations().get(SELECTED_NODE);
    if selected.is_some() && node.is_none() {
        // Upstream's provisioners do the same, so that the scheduler chooses again.
        let patch = json!({"metadata": {"annotations": {SELECTED_NODE: null}}});
        return plan.patch(Target::of(claim), Part::Whole, patch, "the chosen node is gone");
    }
    if let Some(refusal) = refusal(claim, node) {
        let message =
            format!("failed to provision volume with StorageClass \"{}\": {refusal}", class.name_any());
        return plan.event(reference(claim), Severity::Warning, "ProvisioningFailed", message);
    }
    let node = node.map(hostname).unwrap_or_default();
    plan.push(Action::Create {
        kind: ApiResource::erase::<PersistentVolume>(&()),
        object: volume(claim, class, &node),
        announce: None,
        reason: format!("claim {} is to be on node {node}", claim.name_any()),
    });
}

fn refusal(claim: &PersistentVolumeClaim, node: Option<&Node>) -> Option<String> {
    let spec = claim.spec.clone().unwrap_or_default();
    if node.is_none() {
        return Some("a directory needs a node: set volumeBindingMode to WaitForFirstConsumer".to_owned());
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Some("a directory is no block device: set volumeMode to Filesystem".to_owned());
    }
    let single = |mode: &&String| mode.starts_with("ReadWriteOnce");
    let shared = spec.access_modes.iter().flatten().find(|mode| !single(mode));
    if let Some(mode) = shared {
        return Some(format!("a directory of one node is ReadWriteOnce or ReadWriteOncePod, not {mode}"));
    }
    spec.selector.map(|_| "a claim with a selector is for volumes that exist".to_owned())
}

fn hostname(node: &Node) -> String {
    node.labels().get(HOSTNAME).cloned().unwrap_or_else(|| node.name_any())
}

fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, node: &str) -> Value {
    let parameter = |name: &str| class.parameters.as_ref().and_then(|all| all.get(name)).map(String::as_str);
    let name = format!("pvc-{}", claim.uid().unwrap_or_default());
    let root = parameter("path").unwrap_or(PATH).trim_end_matches('/');
    let path = format!("{root}/{name}_{}_{}", claim.namespace().unwrap_or_default(), claim.name_any());
    let here = json!({"key": HOSTNAME, "operator": "In", "values": [node]});
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {
            PROVISIONED_BY: PROVISIONER,
            REMOVER_IMAGE: parameter("image").unwrap_or(IMAGE),
        }},
        "spec": {
            "capacity": to_value(&fit::requests(claim)),
            "accessModes": to_value(&claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref())),
            "volumeMode": "Filesystem",
            "storageClassName": class.name_any(),
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "hostPath": {"path": path, "type": "DirectoryOrCreate"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            "claimRef": reference_to(claim),
        },
    })
}

/// Removes the directory by a pod, then the volume. The pod is the volume's own, so it goes with it.
pub fn delete(volume: &PersistentVolume, remover: Option<&Pod>, plan: &mut Plan) {
    let phase = remover.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
    match (remover, phase) {
        (Some(_), Some("Succeeded")) if volume.metadata.deletion_timestamp.is_some() => {}
        (Some(_), Some("Succeeded")) => plan.delete(Target::of(volume), "its directory is removed"),
        (Some(pod), Some("Failed")) => failed(volume, pod, plan),
        (Some(_), _) => {}
        (None, _) => plan.actions.extend(removal(volume)),
    }
}

fn failed(volume: &PersistentVolume, pod: &Pod, plan: &mut Plan) {
    let message = format!("pod {NAMESPACE}/{} could not remove the directory", pod.name_any());
    let old = volume.status.clone().unwrap_or_default();
    let new = PersistentVolumeStatus {
        phase: Some("Failed".to_owned()),
        message: Some(message.clone()),
        ..old.clone()
    };
    if old != new {
        plan.event(reference(volume), Severity::Warning, "VolumeFailedDelete", message);
    }
    plan.status(Target::of(volume), &old, &new, "status");
}

/// The pod is put on its node without a scheduler, so that a full node is cleaned up, too.
fn removal(volume: &PersistentVolume) -> Option<Action> {
    let spec = volume.spec.as_ref()?;
    let path = spec.host_path.as_ref()?.path.as_str();
    let (parent, _) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty())?;
    let terms = &spec.node_affinity.as_ref()?.required.as_ref()?.node_selector_terms;
    let node = terms.first()?.match_expressions.as_ref()?.first()?.values.as_ref()?.first()?;
    let image = volume.annotations().get(REMOVER_IMAGE).map_or(IMAGE, String::as_str);
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": NAMESPACE,
            "name": remover_name(&volume.name_any()),
            "ownerReferences": [owner::controller_reference(volume)],
        },
        "spec": {
            "nodeName": node,
            "restartPolicy": "OnFailure",
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "remove",
                "image": image,
                "command": ["rm", "-rf", path],
                "volumeMounts": [{"name": "volumes", "mountPath": parent}],
            }],
            "volumes": [{"name": "volumes", "hostPath": {"path": parent, "type": "DirectoryOrCreate"}}],
        },
    });
    Some(Action::Create {
        kind: ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&()),
        object,
        announce: None,
        reason: format!("the directory {path} of the volume is to be removed"),
    })
}
