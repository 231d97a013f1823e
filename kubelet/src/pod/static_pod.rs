//! Pods that a node runs by itself, from files, and what stands for them in the API: their mirrors.
//!
//! What a manifest becomes is upstream's (`pkg/kubelet/config/common.go`): a name with the node's at its end, the
//! namespace `default`, a uid that follows from node, file and content, so that it outlives the agent, and a toleration
//! of everything that would drive the pod away.

use std::path::Path;

use api::schema::{Definitions, FieldValidation, Format, decode, parse};
use api::{defaults, object, validation};
use k8s_openapi::api::core::v1::{Pod, PodStatus, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::pod::PodUid;
use crate::pod::env::references;

/// On a mirror: the uid of the pod that it stands for.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// Where a pod comes from.
const SOURCE: &str = "kubernetes.io/config.source";
/// What a pod was made from.
const HASH: &str = "kubernetes.io/config.hash";
/// When the agent saw it.
const SEEN: &str = "kubernetes.io/config.seen";

/// Why a file is no static pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// It is neither YAML nor JSON.
    #[error("it can't be read as YAML or JSON: {0}")]
    Syntax(String),
    /// It is something else.
    #[error("it holds a {0}, and only pods (apiVersion: v1, kind: Pod) run from files")]
    NotAPod(String),
    /// It has fields that pods haven't got, or of other types.
    #[error("{0}")]
    Decode(String),
    /// What its fields say isn't allowed.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
}

/// The pod of a manifest, as this node runs it. `seen`: when, in RFC 3339.
pub fn read(text: &[u8], file: &Path, node: &str, seen: &str) -> Result<Pod, BadManifest> {
    let parsed = parse(text, Format::Yaml).map_err(|error| BadManifest::Syntax(error.to_string()))?;
    let kind = (parsed.value["apiVersion"].as_str(), parsed.value["kind"].as_str());
    if kind != (Some("v1"), Some("Pod")) {
        let (version, kind) = (kind.0.unwrap_or("no apiVersion"), kind.1.unwrap_or("no kind"));
        return Err(BadManifest::NotAPod(format!("{version}/{kind}")));
    }
    let schema = Definitions::builtin().of_kind("", "v1", "Pod").expect("pods are among the built-in kinds");
    let decoded = decode(schema, parsed, FieldValidation::Strict);
    let mut pod = decoded.map_err(|error| BadManifest::Decode(error.to_string()))?.object;
    let uid = uid(node, file, &pod);
    complete(&mut pod, &uid, node, seen);
    let errors = validation::validate_create("", "Pod", &pod);
    if !errors.is_empty() {
        return Err(BadManifest::Invalid(errors.iter().map(ToString::to_string).collect()));
    }
    let pod: Pod = serde_json::from_value(pod).map_err(|error| BadManifest::Decode(error.to_string()))?;
    match api_reference(&pod) {
        Some(kind) => {
            Err(BadManifest::Invalid(vec![format!("spec: Forbidden: static pods may not reference {kind}")]))
        }
        None => Ok(pod),
    }
}

/// The same for the same content in the same file on the same node: 128 bits in hexadecimal, as upstream's.
fn uid(node: &str, file: &Path, pod: &Value) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("host:{node}\nfile:{}\n{pod}", file.display()));
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn complete(pod: &mut Value, uid: &str, node: &str, seen: &str) {
    let name = format!("{}-{}", object::name(pod), node.to_lowercase());
    let meta = &mut pod["metadata"];
    meta["name"] = name.into();
    meta["uid"] = uid.into();
    if meta["namespace"].as_str().unwrap_or_default().is_empty() {
        meta["namespace"] = "default".into();
    }
    for (key, value) in [(HASH, uid), (SOURCE, "file"), (SEEN, seen)] {
        meta["annotations"][key] = value.into();
    }
    pod["spec"]["nodeName"] = node.into();
    let everything = json!({"operator": "Exists", "effect": "NoExecute"});
    match pod["spec"]["tolerations"].as_array_mut() {
        Some(all) => all.push(everything),
        None => pod["spec"]["tolerations"] = json!([everything]),
    }
    pod["status"] = json!({"phase": "Pending"});
    defaults::apply("", "Pod", pod);
}

/// A kind of object that the pod needs the API server for.
fn api_reference(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    if let Some(reference) = references(pod).first() {
        return Some(reference.resource());
    }
    if spec.resource_claims.iter().flatten().next().is_some() {
        return Some("resourceclaims");
    }
    spec.volumes.iter().flatten().find_map(volume_reference)
}

fn volume_reference(volume: &Volume) -> Option<&'static str> {
    let mut sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    if sources.any(|source| source.service_account_token.is_some()) {
        return Some("serviceaccounts");
    }
    let claims = volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
    claims.then_some("persistentvolumeclaims")
}

/// It runs from a file of this node.
pub fn is_static(pod: &Pod) -> bool {
    let source = pod.metadata.annotations.as_ref().and_then(|all| all.get(SOURCE));
    source.is_some_and(|source| source != "api") && mirrored(pod).is_none()
}

/// Of a mirror: the pod that it stands for.
pub fn mirrored(pod: &Pod) -> Option<PodUid> {
    pod.metadata.annotations.as_ref()?.get(MIRROR).cloned().map(PodUid)
}

/// What stands for the pod in the API; it goes with its node.
pub fn mirror(pod: &Pod, node: &str, node_uid: &str) -> Pod {
    let mut mirror = pod.clone();
    let uid = mirror.metadata.uid.take().unwrap_or_default();
    mirror.metadata.resource_version = None;
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.to_owned(), uid);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: node_uid.to_owned(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    mirror.status = Some(PodStatus::default());
    mirror
}

/// What is to be done so that the API shows the pods that run from files.
#[derive(Debug, PartialEq)]
pub enum MirrorStep {
    /// Nothing stands for this pod.
    Create(Box<Pod>),
    /// This one stands for nobody, or for one that was, or somebody has asked for its end.
    Delete(Box<Pod>),
    /// Another pod has the name.
    Blocked(String),
}

/// The steps from the pods that are seen in the API to those that are wanted.
pub fn mirror_steps<'p>(wanted: &[Pod], seen: impl Iterator<Item = &'p Pod> + Clone) -> Vec<MirrorStep> {
    let stands = |mirror: &Pod, of: &PodUid| {
        mirror.metadata.deletion_timestamp.is_none()
            && wanted.iter().any(|pod| pod.metadata.uid.as_ref() == Some(&of.0) && same_name(pod, mirror))
    };
    let stale = seen.clone().filter(|pod| mirrored(pod).is_some_and(|of| !stands(pod, &of)));
    let mut steps: Vec<MirrorStep> = stale.map(|pod| MirrorStep::Delete(Box::new(pod.clone()))).collect();
    for pod in wanted {
        match seen.clone().find(|other| same_name(pod, other)) {
            None => steps.push(MirrorStep::Create(Box::new(pod.clone()))),
            Some(other) if mirrored(other).is_none() => {
                steps.push(MirrorStep::Blocked(pod.metadata.name.clone().unwrap_or_default()));
            }
            Some(_) => {}
        }
    }
    steps
}

fn same_name(one: &Pod, other: &Pod) -> bool {
    (&one.metadata.namespace, &one.metadata.name) == (&other.metadata.namespace, &other.metadata.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\nspec:\n  containers:\n  \
                       - {name: main, image: plain, command: [sleep, '1000']}\n";

    fn of(text: &str) -> Result<Pod, BadManifest> {
        read(text.as_bytes(), Path::new("/etc/static/web.yaml"), "n1", "2026-01-01T00:00:00Z")
    }

    fn refused(text: &str) -> String {
        of(text).expect_err("it is refused").to_string()
    }

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let pod = of(WEB).expect("a pod");
        let meta = &pod.metadata;
        assert_eq!((meta.name.as_deref(), meta.namespace.as_deref()), (Some("web-n1"), Some("default")));
        let annotations = meta.annotations.clone().expect("annotations");
        assert_eq!(annotations["kubernetes.io/config.source"], "file");
        assert_eq!(Some(&annotations["kubernetes.io/config.hash"]), meta.uid.as_ref());
        let spec = pod.spec.as_ref().expect("a spec");
        assert_eq!(spec.node_name.as_deref(), Some("n1"));
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"), "defaults are filled in");
        assert_eq!(spec.tolerations.as_ref().map(Vec::len), Some(1));
        assert!(is_static(&pod) && mirrored(&pod).is_none());
        assert_eq!(of(WEB).expect("a pod").metadata.uid, meta.uid, "the same after a restart");
        let other = of(&WEB.replace("1000", "2000")).expect("a pod");
        assert_ne!(other.metadata.uid, meta.uid, "other content is another pod");
    }

    #[test]
    fn a_bad_manifest_is_told_by_its_field() {
        assert!(refused("{").starts_with("it can't be read as YAML or JSON"));
        let kind = refused("apiVersion: apps/v1\nkind: Deployment\n");
        assert_eq!(
            kind,
            "it holds a apps/v1/Deployment, and only pods (apiVersion: v1, kind: Pod) run from files"
        );
        let unknown = refused(&WEB.replace("labels", "lables"));
        assert_eq!(unknown, "strict decoding error: unknown field \"metadata.lables\"");
        let invalid = refused(&WEB.replace("name: main", "name: Main"));
        assert!(invalid.starts_with("spec.containers[0].name: Invalid value: \"Main\""), "{invalid}");
        let account = refused(&WEB.replace("spec:\n", "spec:\n  serviceAccountName: a\n"));
        assert_eq!(account, "spec: Forbidden: static pods may not reference serviceaccounts");
        let volume = "spec:\n  volumes: [{name: v, configMap: {name: c}}]\n";
        let map = refused(&WEB.replace("spec:\n", volume));
        assert_eq!(map, "spec: Forbidden: static pods may not reference configmaps");
        let volume = "spec:\n  volumes: [{name: v, projected: {sources: [{clusterTrustBundle: {name: c, path: p}}]}}]\n";
        let bundle = refused(&WEB.replace("spec:\n", volume));
        assert_eq!(bundle, "spec: Forbidden: static pods may not reference clustertrustbundles");
    }

    #[test]
    fn one_mirror_stands_for_each_pod() {
        let pod = of(WEB).expect("a pod");
        let wanted = [pod.clone()];
        let none: [Pod; 0] = [];
        assert_eq!(mirror_steps(&wanted, none.iter()), [MirrorStep::Create(Box::new(pod.clone()))]);
        let mut mirror = mirror(&pod, "n1", "node-uid");
        mirror.metadata.uid = Some("m".to_owned());
        assert_eq!(mirrored(&mirror).map(|uid| uid.0), pod.metadata.uid);
        assert!(!is_static(&mirror));
        assert_eq!(mirror_steps(&wanted, [mirror.clone()].iter()), []);
        // The file is gone, or says something else.
        let delete = || MirrorStep::Delete(Box::new(mirror.clone()));
        assert_eq!(mirror_steps(&[], [mirror.clone()].iter()), [delete()]);
        let other = of(&WEB.replace("1000", "2000")).expect("a pod");
        assert_eq!(mirror_steps(&[other], [mirror.clone()].iter()), [delete()], "first the old one goes");
        // Somebody deletes it.
        let mut dying = mirror.clone();
        dying.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(mirror_steps(&wanted, [dying.clone()].iter()), [MirrorStep::Delete(Box::new(dying))]);
        let stranger = Pod {
            metadata: kube::core::ObjectMeta { annotations: None, ..mirror.metadata.clone() },
            ..mirror
        };
        assert_eq!(mirror_steps(&wanted, [stranger].iter()), [MirrorStep::Blocked("web-n1".to_owned())]);
    }
}
