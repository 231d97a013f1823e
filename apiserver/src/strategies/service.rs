//! Service: born without an address; an update may create it.

use serde_json::{Value, json};

use super::set;
use crate::registry::strategy::{Strategy, Traits};

/// The strategy of services.
pub struct Service;

impl Strategy for Service {
    fn traits(&self) -> Traits {
        Traits { creates_on_update: true, delete_returns_object: true, ..Traits::ORDINARY }
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"loadBalancer": {}}));
    }
}
