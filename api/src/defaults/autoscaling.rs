//! Defaults of horizontal pod autoscalers (autoscaling/v2).

use serde_json::{Value, json};

use super::fields::Defaults;

/// The longest look back at recommendations before scaling down, in seconds.
const SCALE_DOWN_WINDOW: i64 = 300;

/// Version 1 knows only the CPU, and shares group and kind.
const VERSION: &str = "autoscaling/v2";

pub(super) fn autoscaler(autoscaler: &mut Value) {
    autoscaler.under("spec", |spec| spec.or_insert("minReplicas", 1));
    if autoscaler["apiVersion"] != VERSION {
        return;
    }
    autoscaler.under("status", |status| {
        status.or_insert("currentReplicas", 0);
        status.or_insert("desiredReplicas", 0);
        status.or_insert("currentMetrics", Value::Null);
    });
    autoscaler.under("spec", |spec| {
        spec.or_insert(
            "metrics",
            json!([{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}]),
        );
        spec.within("behavior", behavior);
    });
}

fn behavior(behavior: &mut Value) {
    behavior.under("scaleUp", |rules| {
        rules.or_insert("stabilizationWindowSeconds", 0);
        rules.text("selectPolicy", "Max");
        let (pods, percent) = (json!({"type": "Pods", "value": 4, "periodSeconds": 15}), percent());
        rules.or_insert("policies", json!([pods, percent]));
    });
    behavior.under("scaleDown", |rules| {
        rules.or_insert("stabilizationWindowSeconds", SCALE_DOWN_WINDOW);
        rules.text("selectPolicy", "Max");
        rules.or_insert("policies", json!([percent()]));
    });
}

fn percent() -> Value {
    json!({"type": "Percent", "value": 100, "periodSeconds": 15})
}
