//! ClusterRole aggregation: a role with an aggregation rule holds the rules of those that its selectors match.
//! Authorization sums them up by itself; this makes the sum visible in the role. Upstream's
//! `pkg/controller/clusterroleaggregation` gives the order.

use crate::plan::{Part, Plan, Target, to_value};
use api::selector::LabelSelector;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::ResourceExt;
use serde_json::json;
use std::sync::Arc;

/// What to do for `role`, given all ClusterRoles.
pub fn reconcile(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Plan {
    let mut plan = Plan::nothing();
    let Some(rule) = &role.aggregation_rule else { return plan };
    if role.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let mut sorted: Vec<&Arc<ClusterRole>> =
        all.iter().filter(|other| other.name_any() != role.name_any()).collect();
    sorted.sort_by_key(|other| other.name_any());
    let mut rules: Vec<&PolicyRule> = Vec::new();
    let selectors = rule.cluster_role_selectors.iter().flatten();
    for selector in selectors.filter_map(|selector| LabelSelector::from_object(selector).ok()) {
        let matching = sorted.iter().filter(|other| selector.matches(other.labels()));
        for rule in matching.flat_map(|other| other.rules.iter().flatten()) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    if rules != role.rules.iter().flatten().collect::<Vec<_>>() {
        let patch = json!({"rules": to_value(&rules)});
        plan.patch(Target::of(role), Part::Whole, patch, "what its selectors match grants something else");
    }
    plan
}
