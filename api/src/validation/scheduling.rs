//! Rules for what a pod says about nodes: selectors, affinity, tolerations, spreading.

use super::field::{Errors, Field, label_selector, labels};
use crate::name;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Everything in a pod spec that the scheduler reads.
pub(super) fn scheduling(spec: &Field<'_>) -> Errors {
    let mut errors = labels(&spec.get("nodeSelector"));
    errors.extend(spec.get("tolerations").items().flat_map(|each| toleration(&each)));
    errors.extend(node_affinity(&spec.at("affinity.nodeAffinity")));
    for kind in ["affinity.podAffinity", "affinity.podAntiAffinity"] {
        errors.extend(pod_affinity(&spec.at(kind)));
    }
    errors.extend(spreading(&spec.get("topologySpreadConstraints")));
    errors.extend(gates(&spec.get("schedulingGates")));
    errors
}

fn toleration(toleration: &Field<'_>) -> Errors {
    let [key, operator, value, effect, seconds] =
        ["key", "operator", "value", "effect", "tolerationSeconds"].map(|name| toleration.get(name));
    let mut errors = key.checked(name::qualified_name);
    if key.is_empty() && operator.text() != "Exists" {
        let why =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(operator.invalid(why));
    }
    if seconds.exists() && effect.text() != "NoExecute" {
        errors.push(effect.invalid("effect must be 'NoExecute' when `tolerationSeconds` is set"));
    }
    match operator.text() {
        "" | "Equal" => errors.extend(value.checked(name::label_value)),
        "Exists" if !value.is_empty() => {
            errors
                .push(toleration.get("operator").invalid("value must be empty when `operator` is 'Exists'"));
        }
        "Exists" => {}
        "Gt" | "Lt" if value.text().parse::<i64>().is_ok() => {}
        "Gt" | "Lt" => errors.push(value.invalid("value must be an integer when `operator` is 'Gt' or 'Lt'")),
        _ => errors.extend(operator.one_of(&["Equal", "Exists"])),
    }
    errors.extend(effect.one_of(&EFFECTS));
    errors
}

fn node_affinity(affinity: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    let required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution");
    if required.exists() {
        let terms = required.get("nodeSelectorTerms");
        if terms.is_empty() {
            errors.push(terms.required("must have at least one node selector term"));
        }
        errors.extend(terms.items().flat_map(|term| node_term(&term)));
    }
    for preferred in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        errors.extend(preferred.get("weight").between(1, 100));
        errors.extend(node_term(&preferred.get("preference")));
    }
    errors
}

fn node_term(term: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for expression in term.get("matchExpressions").items() {
        let (operator, values) = (expression.get("operator"), expression.get("values"));
        let count = values.items().count();
        match operator.text() {
            "In" | "NotIn" if count == 0 => {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if count > 0 => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(values.forbidden(why));
            }
            "Gt" | "Lt" if count != 1 => {
                errors
                    .push(values.required("must be specified single value when `operator` is 'Lt' or 'Gt'"));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
        errors.extend(expression.get("key").named(name::qualified_name));
    }
    errors
}

fn pod_affinity(affinity: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
        errors.extend(pod_term(&term));
    }
    for preferred in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        errors.extend(preferred.get("weight").between(1, 100));
        errors.extend(pod_term(&preferred.get("podAffinityTerm")));
    }
    errors
}

fn pod_term(term: &Field<'_>) -> Errors {
    let mut errors = label_selector(&term.get("labelSelector"));
    errors.extend(label_selector(&term.get("namespaceSelector")));
    let key = term.get("topologyKey");
    if key.is_empty() {
        errors.push(key.required("can not be empty"));
    }
    errors.extend(key.checked(name::qualified_name));
    errors
}

fn spreading(constraints: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    let mut seen = Vec::new();
    for constraint in constraints.items() {
        errors.extend(constraint.get("maxSkew").positive());
        let (key, action) = (constraint.get("topologyKey"), constraint.get("whenUnsatisfiable"));
        if key.is_empty() {
            errors.push(key.required("can not be empty"));
        }
        errors.extend(key.checked(name::qualified_name));
        errors.extend(action.one_of(&["DoNotSchedule", "ScheduleAnyway"]));
        errors.extend(constraint.get("minDomains").positive());
        errors.extend(label_selector(&constraint.get("labelSelector")));
        let pair = format!("{{{}, {}}}", key.text(), action.text());
        if seen.contains(&pair) {
            errors.push(crate::status::FieldError::duplicate(
                format!("{}.{{topologyKey, whenUnsatisfiable}}", constraint.path),
                pair.as_str(),
            ));
        }
        seen.push(pair);
    }
    errors
}

fn gates(gates: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    let mut seen = Vec::new();
    for gate in gates.items() {
        let name = gate.get("name");
        errors.extend(name.named(name::qualified_name));
        if seen.contains(&name.text()) {
            errors.push(name.duplicate());
        }
        seen.push(name.text());
    }
    errors
}
