//! Events of the core group and of `events.k8s.io`: the same fields under other names.

use serde_json::Value;

/// Names in the core group, and in `events.k8s.io`.
const NAMES: [(&str, &str); 7] = [
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("involvedObject", "regarding"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
];

pub(super) fn to_events(event: &mut Value) {
    rename(event, NAMES);
}

pub(super) fn to_core(event: &mut Value) {
    rename(event, NAMES.map(|(core, events)| (events, core)));
}

fn rename(event: &mut Value, names: [(&str, &str); 7]) {
    let Some(fields) = event.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn there_and_back() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "involvedObject": {"name": "p"},
            "message": "m", "source": {"component": "c"}, "count": 2, "type": "Normal", "reportingComponent": "",
        });
        let events = crate::convert::to_version(core.clone(), "events.k8s.io/v1");
        assert_eq!(
            events,
            json!({
                "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"},
                "regarding": {"name": "p"}, "note": "m", "deprecatedSource": {"component": "c"},
                "deprecatedCount": 2, "type": "Normal", "reportingController": "",
            })
        );
        assert_eq!(crate::convert::to_version(events, "v1"), core);
    }
}
