//! Whether who serves an API can be asked: the condition `Available`, with upstream's reasons and messages. No I/O.

use serde_json::{Value, json};

use super::Backend;
use crate::reach::services::Service;

/// A condition in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Available {
    /// Everything was right.
    pub fn passed() -> Self {
        Self { status: "True", reason: "Passed", message: "all checks passed".to_owned() }
    }

    /// It didn't answer as it must.
    pub fn failed(message: String) -> Self {
        Self::not("FailedDiscoveryCheck", message)
    }

    /// There is no such Service.
    pub fn no_service(backend: &Backend) -> Self {
        Self::not("ServiceNotFound", format!("{} is not present", described(backend)))
    }

    /// Whether there is such a Service can't be told.
    pub fn unknown(backend: &Backend, why: &str) -> Self {
        let message = format!("{} cannot be checked due to: {why}", described(backend));
        Self { status: "Unknown", reason: "ServiceAccessError", message }
    }

    fn not(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    /// Whether requests may be passed on.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    /// The status that an APIService gets; `None` if it says that already. `now` is a time as objects have it.
    pub fn put_into(&self, status: &Value, now: &str) -> Option<Value> {
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let before = conditions.iter().find(|condition| condition["type"] == "Available");
        let same = |field: &str, value: &str| before.is_some_and(|before| before[field] == value);
        if same("status", self.status) && same("reason", self.reason) && same("message", &self.message) {
            return None;
        }
        let since = before.filter(|_| same("status", self.status));
        let since = since.map_or_else(|| json!(now), |before| before["lastTransitionTime"].clone());
        let condition = json!({
            "type": "Available", "status": self.status, "reason": self.reason, "message": self.message,
            "lastTransitionTime": since,
        });
        let others = conditions.iter().filter(|condition| condition["type"] != "Available").cloned();
        let mut next = status.clone();
        next["conditions"] = others.chain([condition]).collect();
        Some(next)
    }
}

fn described(backend: &Backend) -> String {
    format!("service/{} in {:?}", backend.service, backend.namespace)
}

/// What is wrong with a Service before anybody is asked. Only one with an address of the cluster is looked into:
/// what the others lead to isn't ours to know.
pub fn obstacle(backend: &Backend, service: &Service) -> Option<Available> {
    let kind = service.object()["spec"]["type"].as_str().unwrap_or("ClusterIP");
    if kind != "ClusterIP" {
        return None;
    }
    let Ok(port) = service.port_name(backend.port) else {
        let message = format!("{} is not listening on port {}", described(backend), backend.port);
        return Some(Available::not("ServicePortError", message));
    };
    if service.has_no_slices() {
        let message = format!("cannot find endpointslices for {}", described(backend));
        return Some(Available::not("EndpointsNotFound", message));
    }
    service.ready(port).is_empty().then(|| {
        let why = format!("have no addresses with port name {port:?}");
        Available::not("MissingEndpoints", format!("endpointslices for {} {why}", described(backend)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_when_it_says_something_else() {
        let (first, second) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let status = Available::failed("a".to_owned()).put_into(&Value::Null, first).expect("a change");
        assert_eq!(Available::failed("a".to_owned()).put_into(&status, second), None);
        let told = Available::failed("b".to_owned()).put_into(&status, second).expect("another message");
        assert_eq!(told["conditions"][0]["lastTransitionTime"], first, "it failed all the time");
        let passed = Available::passed().put_into(&told, second).expect("it lives");
        assert_eq!(passed["conditions"][0]["lastTransitionTime"], second);
        assert_eq!(passed["conditions"].as_array().map(Vec::len), Some(1));
    }
}
