//! How NodeMetrics and PodMetrics look, for `kubectl explain` and strict clients.

use serde_json::{Value, json};

/// The schema of the kind, without what every kind has.
pub fn schema(kind: &str) -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let usage = json!({
        "type": "object",
        "description": "The processor time (cores) and memory (bytes, the working set) in use.",
        "additionalProperties": text("A quantity."),
    });
    let mut properties = json!({
        "timestamp": { "type": "string", "format": "date-time", "description": "The end of the time measured." },
        "window": text("The time that the usage was measured over, up to the timestamp."),
    });
    let measured = match kind {
        "NodeMetrics" => {
            properties["usage"] = usage;
            "usage"
        }
        _ => {
            let container = json!({
                "type": "object",
                "required": ["name", "usage"],
                "properties": { "name": text("The container's name."), "usage": usage },
            });
            properties["containers"] =
                json!({ "type": "array", "description": "Each container that runs.", "items": container });
            "containers"
        }
    };
    json!({ "type": "object", "required": ["timestamp", "window", measured], "properties": properties })
}
