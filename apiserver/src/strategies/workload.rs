//! Deployment and ReplicaSet: generation counts changes of the spec, status begins empty.

use serde_json::{Value, json};

use super::set;
use crate::registry::strategy::{Strategy, Traits};

const WORKLOAD: Traits = Traits { has_generation: true, ..Traits::ORDINARY };

/// The strategy of deployments.
pub struct Deployment;

impl Strategy for Deployment {
    fn traits(&self) -> Traits {
        WORKLOAD
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }
}

/// The strategy of replica sets.
pub struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn traits(&self) -> Traits {
        WORKLOAD
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"replicas": 0}));
    }
}
