//! Service: its name becomes a DNS label, so it has the stricter form.

use serde_json::{Value, json};

use super::set;
use crate::registry::strategy::{Strategy, Traits};

/// The strategy of services.
pub struct Service;

impl Strategy for Service {
    fn traits(&self) -> Traits {
        Traits {
            name_rule: api::name::dns1035_label,
            creates_on_update: true,
            delete_returns_object: true,
            ..Traits::ORDINARY
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"loadBalancer": {}}));
    }
}
