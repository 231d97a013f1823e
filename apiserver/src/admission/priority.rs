//! Priority: the number behind a pod's class. Only the two system classes exist until classes are objects.

use api::status::Status;
use serde_json::{Value, json};

/// Sets `spec.priority` from the class.
///
/// # Errors
/// 403 if there is no such class.
pub fn resolve(pod: &mut Value) -> Result<(), Status> {
    let class = pod["spec"]["priorityClassName"].as_str().unwrap_or_default();
    let value = match class {
        "" => 0,
        "system-cluster-critical" => 2_000_000_000,
        "system-node-critical" => 2_000_001_000,
        _ => {
            let why = format!("no PriorityClass with name {class} was found");
            return Err(Status::forbidden("pods", "", api::object::name(pod), &why));
        }
    };
    pod["spec"]["priority"] = json!(value);
    if pod["spec"]["preemptionPolicy"].is_null() {
        pod["spec"]["preemptionPolicy"] = json!("PreemptLowerPriority");
    }
    Ok(())
}
