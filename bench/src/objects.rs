//! The objects that measurements create.

use serde_json::{Value, json};

/// The namespace everything is created in.
pub const NAMESPACE: &str = "default";

/// Path of a collection of the core group in our namespace.
pub fn core(plural: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/{plural}")
}

/// A pod that sleeps. It ends at once when told to, so that nothing waits for its grace period.
fn sleeper() -> Value {
    json!({
        "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "sleep", "image": "busybox", "command": ["sleep", "3600"],
            "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
        }],
    })
}

/// A pod of its own.
pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": sleeper()})
}

/// A Deployment of sleeping pods labelled `app=NAME`.
pub fn deployment(name: &str, replicas: usize) -> Value {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": sleeper()},
        },
    })
}

/// A ConfigMap of about `bytes` bytes.
pub fn config_map(name: &str, bytes: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"text": "x".repeat(bytes)},
    })
}

/// Whether a pod runs and isn't about to end.
pub fn is_running(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
}
