//! When what led to a change of endpoints happened: node agents and proxies measure by it how long a change takes to
//! reach them. Upstream's `staging/src/k8s.io/endpointslice/util/trigger_time_tracker.go` says which times count; it
//! remembers them, while here the endpoints that a write changes say whose times are new.

use crate::pod::{self, Pod};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Annotation of EndpointSlices and Endpoints.
pub const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The times of a Service and its pods.
#[derive(Debug, Clone, Default)]
pub struct Triggers {
    /// When the Service was made.
    service: Option<Timestamp>,
    /// When each pod became ready, or ceased to be; by its uid.
    pods: BTreeMap<String, Timestamp>,
}

impl Triggers {
    /// Of this Service and its namespace's pods.
    pub fn of(service: &Service, pods: &[Arc<Pod>]) -> Triggers {
        let turned = |pod: &Arc<Pod>| {
            let ready = pod::condition(pod.status.as_ref(), "Ready")?;
            Some((pod.uid()?, ready.last_transition_time.as_ref()?.0))
        };
        Triggers {
            service: service.metadata.creation_timestamp.as_ref().map(|time| time.0),
            pods: pods.iter().filter_map(turned).collect(),
        }
    }

    /// What the annotation says of the first endpoints of a Service; null if there is nothing to say.
    pub fn first(&self) -> Value {
        json!(self.service.map(|time| time.to_string()))
    }

    /// What it says when the endpoints of the pods with these uids change; null if there is nothing to say, as when a
    /// pod has gone.
    pub fn earliest<'a>(&self, uids: impl Iterator<Item = &'a str>) -> Value {
        json!(uids.filter_map(|uid| self.pods.get(uid)).min().map(Timestamp::to_string))
    }
}
