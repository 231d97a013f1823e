//! The environment of a container.
//!
//! Upstream's order: `envFrom` first, then `env` in its order (each may refer to what stands before it),
//! and variables of Services only where nothing else has the name.

use std::collections::BTreeMap;

use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapKeySelector, Container, EnvFromSource, EnvVarSource, Pod, Secret, SecretKeySelector,
};

use crate::pod::downward::{self, NodeFacts};
use crate::pod::expand::expand;

/// Objects that a pod refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// By name, of the pod's namespace.
    ConfigMap(String),
    /// By name, of the pod's namespace.
    Secret(String),
    /// A ClusterTrustBundle by name.
    TrustBundle(String),
    /// All ClusterTrustBundles of a signer.
    TrustBundlesOf(String),
}

/// A reference and the namespace that it is looked up in; empty for what has none.
pub type ReferenceKey = (String, Reference);

impl Reference {
    /// The resource, by its plural name.
    pub fn resource(&self) -> &'static str {
        match self {
            Self::ConfigMap(_) => "configmaps",
            Self::Secret(_) => "secrets",
            Self::TrustBundle(_) | Self::TrustBundlesOf(_) => "clustertrustbundles",
        }
    }

    /// What it means in a pod of this namespace.
    pub fn key(&self, namespace: &str) -> ReferenceKey {
        let namespace = match self {
            Self::ConfigMap(_) | Self::Secret(_) => namespace,
            Self::TrustBundle(_) | Self::TrustBundlesOf(_) => "",
        };
        (namespace.to_owned(), self.clone())
    }
}

/// The objects a pod refers to, as far as they exist.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// By name, of the pod's namespace.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// By name, of the pod's namespace.
    pub secrets: BTreeMap<String, Secret>,
    /// By name.
    pub trust_bundles: BTreeMap<String, ClusterTrustBundle>,
    /// Variables that tell of Services.
    pub services: BTreeMap<String, String>,
}

/// What this pod refers to from its containers' environment and its volumes.
pub fn references(pod: &Pod) -> Vec<Reference> {
    let mut all: Vec<Reference> = crate::pod::roles::roles(pod)
        .flat_map(|(container, _)| container_references(&container))
        .chain(crate::pod::volumes::references(pod))
        .chain(crate::pod::pull_secrets::references(pod))
        .collect();
    all.sort();
    all.dedup();
    all
}

/// Whether the pod refers to one of these.
pub fn refers(pod: &Pod, these: impl Fn(&ReferenceKey) -> bool) -> bool {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    references(pod).iter().any(|reference| these(&reference.key(namespace)))
}

/// What one container refers to from its environment.
pub fn container_references(container: &Container) -> Vec<Reference> {
    let from = container.env_from.iter().flatten().flat_map(|from| {
        let map = from.config_map_ref.as_ref().map(|r| Reference::ConfigMap(r.name.clone()));
        let secret = from.secret_ref.as_ref().map(|r| Reference::Secret(r.name.clone()));
        map.into_iter().chain(secret)
    });
    let sources = container.env.iter().flatten().filter_map(|var| var.value_from.as_ref());
    let keys = sources.flat_map(|source| {
        let map = source.config_map_key_ref.as_ref().map(|r| Reference::ConfigMap(r.name.clone()));
        let secret = source.secret_key_ref.as_ref().map(|r| Reference::Secret(r.name.clone()));
        map.into_iter().chain(secret)
    });
    from.chain(keys).collect()
}

/// The container's environment. The error is what the container's `waiting.message` says.
pub fn environment(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    node: &NodeFacts,
) -> Result<BTreeMap<String, String>, String> {
    let mut env = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        env.extend(env_from(from, sources)?);
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (_, Some(source)) => value_from(pod, container, source, sources, node)?,
            (Some(text), None) => Some(expand(text, |name| lookup(name, &env, sources))),
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            env.insert(var.name.clone(), value);
        }
    }
    for (name, value) in &sources.services {
        env.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Ok(env)
}

fn lookup<'a>(name: &str, env: &'a BTreeMap<String, String>, sources: &'a Sources) -> Option<&'a str> {
    env.get(name).or_else(|| sources.services.get(name)).map(String::as_str)
}

fn env_from(from: &EnvFromSource, sources: &Sources) -> Result<BTreeMap<String, String>, String> {
    let prefix = from.prefix.as_deref().unwrap_or_default();
    let data = match (&from.config_map_ref, &from.secret_ref) {
        (Some(r), _) => match config_map(&r.name, r.optional, sources)? {
            Some(map) => map.data.clone().unwrap_or_default(),
            None => BTreeMap::new(),
        },
        (None, Some(r)) => match secret(&r.name, r.optional, sources)? {
            Some(secret) => texts(secret),
            None => BTreeMap::new(),
        },
        (None, None) => BTreeMap::new(),
    };
    Ok(data.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)).collect())
}

/// A process's environment is bytes without a meaning; a Secret that isn't UTF-8 is passed on as well as
/// text allows.
fn texts(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned())).collect()
}

fn config_map<'a>(
    name: &str,
    optional: Option<bool>,
    sources: &'a Sources,
) -> Result<Option<&'a ConfigMap>, String> {
    match sources.config_maps.get(name) {
        None if optional != Some(true) => Err(format!("configmap \"{name}\" not found")),
        found => Ok(found),
    }
}

fn secret<'a>(
    name: &str,
    optional: Option<bool>,
    sources: &'a Sources,
) -> Result<Option<&'a Secret>, String> {
    match sources.secrets.get(name) {
        None if optional != Some(true) => Err(format!("secret \"{name}\" not found")),
        found => Ok(found),
    }
}

/// `None`: the variable is optional and stays unset.
fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    sources: &Sources,
    node: &NodeFacts,
) -> Result<Option<String>, String> {
    match source {
        EnvVarSource { field_ref: Some(r), .. } => downward::field(pod, &r.field_path, node).map(Some),
        EnvVarSource { resource_field_ref: Some(r), .. } => {
            downward::resource(pod, container, r, node).map(Some)
        }
        EnvVarSource { config_map_key_ref: Some(r), .. } => config_map_key(pod, r, sources),
        EnvVarSource { secret_key_ref: Some(r), .. } => secret_key(pod, r, sources),
        _ => Err("this source of a variable is not supported by the native runtime".to_owned()),
    }
}

fn config_map_key(pod: &Pod, r: &ConfigMapKeySelector, sources: &Sources) -> Result<Option<String>, String> {
    let Some(map) = config_map(&r.name, r.optional, sources)? else { return Ok(None) };
    let value = map.data.as_ref().and_then(|data| data.get(&r.key)).cloned();
    required(value, r.optional, || missing_key(pod, &r.key, "ConfigMap", &r.name))
}

fn secret_key(pod: &Pod, r: &SecretKeySelector, sources: &Sources) -> Result<Option<String>, String> {
    let Some(secret) = secret(&r.name, r.optional, sources)? else { return Ok(None) };
    required(texts(secret).remove(&r.key), r.optional, || missing_key(pod, &r.key, "Secret", &r.name))
}

fn required(
    value: Option<String>,
    optional: Option<bool>,
    complaint: impl Fn() -> String,
) -> Result<Option<String>, String> {
    match value {
        None if optional != Some(true) => Err(complaint()),
        value => Ok(value),
    }
}

fn missing_key(pod: &Pod, key: &str, kind: &str, name: &str) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    format!("couldn't find key {key} in {kind} {namespace}/{name}")
}
