//! Deployments and ReplicaSets.

use serde_json::Value;

use super::Related;
use super::pod::template;
use super::sheet::{Sheet, items, plain, time};
use crate::verb::logs::label_selector;

const CONDITIONS: [(&str, &str); 3] = [("Type", "type"), ("Status", "status"), ("Reason", "reason")];

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// A Deployment with its ReplicaSets.
pub fn deployment(sheet: &mut Sheet, object: &Value, related: &Related) {
    let (spec, status) = (&object["spec"], &object["status"]);
    sheet.line("Name", api::object::name(object));
    sheet.line("Namespace", api::object::namespace(object));
    sheet.line("CreationTimestamp", time(&object["metadata"]["creationTimestamp"]));
    sheet.labels(object);
    sheet.line("Selector", label_selector(&spec["selector"]).unwrap_or_default());
    sheet.line("Replicas", replicas(spec, status));
    sheet.line_if("StrategyType", &spec["strategy"]["type"]);
    sheet.line("MinReadySeconds", number(&spec["minReadySeconds"]).to_string());
    let rolling = &spec["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let (unavailable, surge) = (plain(&rolling["maxUnavailable"]), plain(&rolling["maxSurge"]));
        sheet.line("RollingUpdateStrategy", format!("{unavailable} max unavailable, {surge} max surge"));
    }
    template(sheet, &spec["template"]);
    sheet.conditions(&status["conditions"], &CONDITIONS);
    replica_sets(sheet, object, related);
}

fn replicas(spec: &Value, status: &Value) -> String {
    format!(
        "{} desired | {} updated | {} total | {} available | {} unavailable",
        spec["replicas"].as_i64().unwrap_or(1),
        number(&status["updatedReplicas"]),
        number(&status["replicas"]),
        number(&status["availableReplicas"]),
        number(&status["unavailableReplicas"])
    )
}

/// The newest ReplicaSet belongs to the current template; the others are of before.
fn replica_sets(sheet: &mut Sheet, deployment: &Value, related: &Related) {
    const REVISION: &str = "deployment.kubernetes.io/revision";
    let current = api::object::annotation(deployment, REVISION);
    let (new, old): (Vec<&Value>, Vec<&Value>) =
        related.children.iter().partition(|set| api::object::annotation(set, REVISION) == current);
    let alive = |sets: Vec<&Value>, all: bool| {
        let shown = sets.into_iter().filter(|set| all || number(&set["spec"]["replicas"]) > 0);
        let text = |set: &Value| {
            let (ready, wanted) = (number(&set["status"]["replicas"]), number(&set["spec"]["replicas"]));
            format!("{} ({ready}/{wanted} replicas created)", api::object::name(set))
        };
        shown.map(text).collect::<Vec<_>>().join(", ")
    };
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    sheet.line("OldReplicaSets", or_none(alive(old, false)));
    sheet.line("NewReplicaSet", or_none(alive(new, true)));
}

/// A ReplicaSet.
pub fn replica_set(sheet: &mut Sheet, object: &Value) {
    let (spec, status) = (&object["spec"], &object["status"]);
    sheet.line("Name", api::object::name(object));
    sheet.line("Namespace", api::object::namespace(object));
    sheet.line("Selector", label_selector(&spec["selector"]).unwrap_or_default());
    sheet.labels(object);
    if let Some(owner) = api::object::controller_of(object) {
        sheet.line("Controlled By", format!("{}/{}", owner.kind, owner.name));
    }
    let (current, wanted) = (number(&status["replicas"]), spec["replicas"].as_i64().unwrap_or(1));
    sheet.line("Replicas", format!("{current} current / {wanted} desired"));
    sheet.line("Ready Replicas", number(&status["readyReplicas"]).to_string());
    template(sheet, &spec["template"]);
    if !items(&status["conditions"]).is_empty() {
        sheet.conditions(&status["conditions"], &CONDITIONS);
    }
}
