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

pub(super) fn stateful_set(set: &mut Value) {
    set.under("status", |status| {
        status.or_insert("replicas", 0);
        status.or_insert("availableReplicas", 0);
    });
    set.under("spec", |spec| {
        spec.or_insert("replicas", 1);
        spec.or_insert("revisionHistoryLimit", 10);
        spec.text("podManagementPolicy", "OrderedReady");
        spec.under("updateStrategy", |strategy| {
            strategy.text("type", "RollingUpdate");
            if text(strategy, "type") == "RollingUpdate" {
                strategy.under("rollingUpdate", |rolling| rolling.or_insert("partition", 0));
            }
        });
        spec.under("persistentVolumeClaimRetentionPolicy", |policy| {
            policy.text("whenDeleted", "Retain");
            policy.text("whenScaled", "Retain");
        });
        spec.under("template", pod_template);
        spec.each("volumeClaimTemplates", |claim| {
            claim.text("apiVersion", "v1");
            claim.text("kind", "PersistentVolumeClaim");
            super::storage::claim(claim);
        });
    });
}

pub(super) fn daemon_set(set: &mut Value) {
    set.under("status", |status| {
        for counter in
            ["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"]
        {
            status.or_insert(counter, 0);
        }
    });
    set.under("spec", |spec| {
        spec.or_insert("revisionHistoryLimit", 10);
        spec.under("updateStrategy", |strategy| {
            strategy.text("type", "RollingUpdate");
            if text(strategy, "type") == "RollingUpdate" {
                strategy.under("rollingUpdate", |rolling| {
                    rolling.or_insert("maxUnavailable", 1);
                    rolling.or_insert("maxSurge", 0);
                });
            }
        });
        spec.under("template", pod_template);
    });
}

/// Its selector and labels are those of its template, if it has none.
pub(super) fn replication_controller(controller: &mut Value) {
    controller.under("status", |status| status.or_insert("replicas", 0));
    let labels = controller.pointer("/spec/template/metadata/labels").cloned();
    controller.under("spec", |spec| {
        spec.or_insert("replicas", 1);
        spec.within("template", pod_template);
        if let Some(labels) = &labels {
            spec.or_insert("selector", labels.clone());
        }
    });
    if let Some(labels) = labels {
        controller.within("metadata", |metadata| metadata.or_insert("labels", labels));
    }
}
