//! Rules for disruption budgets, autoscalers and priority classes.

use super::field::{Errors, Field, label_selector};
use super::workload::int_or_percent;
use crate::status::FieldError;

/// Priorities above this are for the system (upstream: one billion).
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// The spec of a PodDisruptionBudget.
pub(super) fn disruption_budget(spec: &Field<'_>) -> Errors {
    let (available, unavailable) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    let mut errors = Errors::new();
    if available.exists() && unavailable.exists() {
        errors.push(spec.invalid("minAvailable and maxUnavailable cannot be both set"));
    }
    for amount in [&available, &unavailable] {
        errors.extend(int_or_percent(amount));
        let percent = amount.text().strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok());
        if percent.is_some_and(|percent| percent > 100) {
            errors.push(amount.invalid("must not be greater than 100%"));
        }
    }
    errors.extend(spec.get("unhealthyPodEvictionPolicy").one_of(&["AlwaysAllow", "IfHealthyBudget"]));
    errors.extend(label_selector(&spec.get("selector")));
    errors
}

/// The spec of a HorizontalPodAutoscaler (autoscaling/v2).
pub(super) fn autoscaler(spec: &Field<'_>) -> Errors {
    let (least, most) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    let mut errors = least.positive();
    match most.int() {
        Some(number) if number >= 1 => {}
        _ => errors.push(most.invalid("must be greater than 0")),
    }
    if most.int() < least.int() {
        errors.push(most.invalid("must be greater than or equal to `minReplicas`"));
    }
    let target = spec.get("scaleTargetRef");
    for name in ["kind", "name"] {
        errors.extend(target.get(name).named(crate::name::path_segment));
    }
    for metric in spec.get("metrics").items() {
        errors.extend(metric_source(&metric));
    }
    errors
}

/// A metric has a type and just the source of that type.
fn metric_source(metric: &Field<'_>) -> Errors {
    const SOURCES: [(&str, &str); 5] = [
        ("ContainerResource", "containerResource"),
        ("External", "external"),
        ("Object", "object"),
        ("Pods", "pods"),
        ("Resource", "resource"),
    ];
    let kind = metric.get("type");
    let names: Vec<&str> = SOURCES.iter().map(|(name, _)| *name).collect();
    let mut errors = kind.present();
    errors.extend(kind.one_of(&names));
    for (name, field) in SOURCES {
        let source = metric.get(field);
        match (name == kind.text(), source.exists()) {
            (true, false) => {
                errors.push(source.required("must populate information for the given metric source"))
            }
            (false, true) => errors.push(source.forbidden("must populate the given metric source only")),
            (true, true) => errors.extend(metric_target(&source.get("target"))),
            (false, false) => {}
        }
    }
    errors
}

fn metric_target(target: &Field<'_>) -> Errors {
    let mut errors = target.get("type").present();
    errors.extend(target.get("type").one_of(&["AverageValue", "Utilization", "Value"]));
    let utilization = target.get("averageUtilization");
    if utilization.int().is_some_and(|percent| percent < 1) {
        errors.push(utilization.invalid("must be greater than 0"));
    }
    errors
}

/// A PriorityClass.
pub(super) fn priority_class(root: &Field<'_>) -> Errors {
    let (name, value) = (root.at("metadata.name"), root.get("value"));
    let mut errors = root.get("preemptionPolicy").one_of(&["Never", "PreemptLowerPriority"]);
    if name.text().starts_with("system-") {
        if !SYSTEM_CLASSES.iter().any(|(known, number)| *known == name.text() && value.int() == Some(*number))
        {
            let why = "priority class names with 'system-' prefix are reserved for system use only. error: ";
            errors
                .push(name.forbidden(&format!("{why}{} is not a known system priority class", name.text())));
        }
    } else if value.int().is_some_and(|number| number > HIGHEST_USER_PRIORITY) {
        errors.push(FieldError::forbidden(
            "value",
            format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"),
        ));
    }
    errors
}

/// A priority means the same for ever.
pub(super) fn priority_class_update(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for (field, why) in [
        ("value", "may not be changed in an update."),
        ("preemptionPolicy", "may not be changed in an update."),
    ] {
        if new.get(field).value != old.get(field).value {
            errors.push(new.get(field).forbidden(why));
        }
    }
    errors
}
