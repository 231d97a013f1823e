//! What is special about the built-in kinds, one file each where it is more than a few lines.

mod custom;
mod namespace;
mod node;
mod pod;
mod service;
mod workload;

use serde_json::{Value, json};

pub use self::custom::{CLEANUP, Custom, CustomResourceDefinition};
pub use self::namespace::Namespace;
pub use self::node::Node;
pub use self::pod::Pod;
pub use self::service::Service;
pub use self::workload::{Fresh, Job};
use crate::registry::strategy::{Strategy, Traits};

/// A kind without hooks.
pub struct Ordinary(pub Traits);

impl Strategy for Ordinary {
    fn traits(&self) -> Traits {
        self.0
    }
}

/// Event: ends by itself; a recorder that lost track of one may write it anew.
pub struct Event;

impl Strategy for Event {
    fn traits(&self) -> Traits {
        Traits { expires: true, creates_on_update: true, ..Traits::ORDINARY }
    }
}

/// CertificateSigningRequest: what was asked for stays as it was.
pub struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn traits(&self) -> Traits {
        Traits::ORDINARY
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", Value::Object(Default::default()));
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        set(object, "spec", old["spec"].clone());
    }
}

/// APIService: what is served here is available; whether what is served elsewhere is has to be asked there.
pub struct ApiService;

impl Strategy for ApiService {
    fn traits(&self) -> Traits {
        Traits::ORDINARY
    }

    fn prepare_create(&self, object: &mut Value) {
        let status = match object["spec"]["service"].is_null() {
            true => local(),
            false => json!({}),
        };
        set(object, "status", status);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        // What was asked of somebody else says nothing of us.
        let came_home = object["spec"]["service"].is_null() && !old["spec"]["service"].is_null();
        set(object, "status", if came_home { local() } else { old["status"].clone() });
    }
}

fn local() -> Value {
    let condition = json!({
        "type": "Available", "status": "True", "reason": "Local",
        "message": "Local APIServices are always available",
        "lastTransitionTime": api::time::rfc3339(jiff::Timestamp::now()),
    });
    json!({"conditions": [condition]})
}

/// Sets a top-level field of an object.
fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(field.to_owned(), value);
    }
}
