//! What `describe` says about an object: functions from the object, what belongs to it and the time, to text.
//!
//! Nothing here asks a server; [`Related`] says what the verb must fetch. Lines are written with tabs and
//! aligned at the end.

mod config;
mod node;
mod pod;
mod sheet;
mod workload;

use jiff::Timestamp;
use serde_json::Value;

pub use self::sheet::Sheet;

/// What belongs to an object and was fetched with it.
#[derive(Clone, Debug, Default)]
pub struct Related {
    /// Events about it, oldest first.
    pub events: Vec<Value>,
    /// ReplicaSets of a Deployment, pods of a Node.
    pub children: Vec<Value>,
    /// The Lease of a Node.
    pub lease: Option<Value>,
}

/// Everything about an object, as text.
pub fn describe(object: &Value, related: &Related, now: Timestamp) -> String {
    let mut sheet = Sheet::default();
    match (api::object::api_version(object), api::object::kind(object)) {
        ("v1", "Pod") => pod::describe(&mut sheet, object, now),
        ("v1", "Node") => node::describe(&mut sheet, object, related, now),
        ("v1", "ConfigMap") => config::config_map(&mut sheet, object),
        ("v1", "Secret") => config::secret(&mut sheet, object),
        ("v1", "Service") => config::service(&mut sheet, object),
        ("v1", "Namespace") => config::namespace(&mut sheet, object),
        ("apps/v1", "Deployment") => workload::deployment(&mut sheet, object, related),
        ("apps/v1", "ReplicaSet") => workload::replica_set(&mut sheet, object),
        _ => config::generic(&mut sheet, object),
    }
    events(&mut sheet, &related.events, now);
    sheet.finish()
}

fn events(sheet: &mut Sheet, events: &[Value], now: Timestamp) {
    if events.is_empty() {
        return sheet.line("Events", "<none>");
    }
    sheet.title("Events");
    sheet.row(&["Type", "Reason", "Age", "From", "Message"]);
    sheet.row(&["----", "------", "----", "----", "-------"]);
    for event in events {
        let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
        let from = [&event["source"]["component"], &event["reportingComponent"]].into_iter().map(text);
        let from = from.into_iter().find(|from| !from.is_empty()).unwrap_or_default();
        let age = crate::verb::events::seen(event, now);
        sheet.row(&[&text(&event["type"]), &text(&event["reason"]), &age, &from, &text(&event["message"])]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::golden;

    /// Each file of `testdata/describe/` is an object and what belongs to it.
    #[test]
    fn descriptions() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().expect("a time");
        let dir = std::fs::read_dir(golden::path("testdata/describe")).expect("the inputs are readable");
        let inputs = dir.map(|entry| entry.expect("an entry").path());
        for input in inputs.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")) {
            let name = input.file_stem().expect("a file has a name").to_string_lossy().into_owned();
            let (object, related) = read(&std::fs::read_to_string(&input).expect("readable"));
            golden::check_file(&format!("testdata/describe/{name}.txt"), &describe(&object, &related, now));
        }
    }

    fn read(text: &str) -> (Value, Related) {
        let mut documents = crate::manifest::parse("input", text).expect("a manifest").into_iter();
        let object = documents.next().expect("an object").object;
        let mut related = Related::default();
        for document in documents {
            match document.text_field("kind") {
                "Event" => related.events.push(document.object),
                "Lease" => related.lease = Some(document.object),
                _ => related.children.push(document.object),
            }
        }
        (object, related)
    }
}
