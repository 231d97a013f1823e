//! Defaults of the kinds that keep pods running.

use serde_json::Value;

use super::fields::{Defaults, text};
use super::pods::pod_template;

pub(super) fn deployment(deployment: &mut Value) {
    deployment.map("status");
    deployment.under("spec", |spec| {
        spec.or_insert("replicas", 1);
        spec.or_insert("revisionHistoryLimit", 10);
        spec.or_insert("progressDeadlineSeconds", 600);
        spec.under("strategy", strategy);
        spec.under("template", pod_template);
    });
}

fn strategy(strategy: &mut Value) {
    strategy.text("type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        strategy.under("rollingUpdate", |rolling| {
            rolling.or_insert("maxUnavailable", "25%");
            rolling.or_insert("maxSurge", "25%");
        });
    }
}

pub(super) fn replica_set(set: &mut Value) {
    set.under("status", |status| status.or_insert("replicas", 0));
    set.under("spec", |spec| {
        spec.or_insert("replicas", 1);
        spec.within("template", pod_template);
    });
}
