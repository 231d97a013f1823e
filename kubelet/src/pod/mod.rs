//! A pod's life as values: what happens to it, what follows, and what is reported.
//!
//! Always holds: nothing in this module awaits, reads a clock, or talks to the API server or a runtime.
//! Time comes in as an argument; what must be done goes out as [`effect::Effect`].

pub mod admission;
pub mod backoff;
pub mod conditions;
pub mod container;
pub mod downward;
pub mod effect;
pub mod env;
pub mod expand;
pub mod group;
pub mod handler;
pub mod health;
pub mod hostname;
pub mod isolation;
pub mod life;
pub mod phase;
pub mod probe;
pub mod pull_secrets;
pub mod resize;
pub mod restore;
pub mod roles;
pub mod sandbox;
pub mod service_links;
pub mod start_outcome;
pub mod starting;
pub mod static_pod;
pub mod status;
pub mod sysctls;
pub mod time;
pub mod verdict;
pub mod volumes;
pub mod winding_down;

use std::fmt;

use serde::{Deserialize, Serialize};

/// `metadata.uid` of a pod: two pods of one name never share it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodUid(pub String);

/// A container's name within its pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerName(pub String);

/// The runtime's identifier of one run of a container, without the runtime's scheme.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId(pub String);

/// How upstream writes a pod in messages and log paths needs all three.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: PodUid,
}

impl PodRef {
    /// The pod's identity; missing parts are empty, which the API server never admits.
    pub fn of(pod: &k8s_openapi::api::core::v1::Pod) -> Self {
        let meta = &pod.metadata;
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: PodUid(meta.uid.clone().unwrap_or_default()),
        }
    }
}

/// `name_namespace(uid)`, as in upstream's messages.
impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}({})", self.name, self.namespace, self.uid)
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
