//! Rules for requests and limits.

use super::field::{Errors, Field};
use crate::name;
use crate::quantity::Quantity;
use crate::status::FieldError;

/// Requests and limits of a container or a whole pod.
pub(super) fn requirements(resources: &Field<'_>) -> Errors {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    let mut errors = Errors::new();
    for (name, amount) in limits.entries() {
        errors.extend(entry(&limits, name, &amount));
    }
    for (name, amount) in requests.entries() {
        errors.extend(entry(&requests, name, &amount));
        errors.extend(within_limit(&requests, name, &amount, &limits));
    }
    errors
}

fn entry(list: &Field<'_>, name: &str, amount: &Field<'_>) -> Errors {
    let mut errors = resource_name(list, name);
    match quantity(amount) {
        Some(quantity) if quantity.signum() < 0 => {
            errors.push(amount.invalid("must be greater than or equal to 0"));
        }
        // Only processor time and the like come in fractions; a third of a device doesn't exist.
        Some(quantity) if is_extended(name) && quantity.as_milli() % 1000 != 0 => {
            errors.push(amount.invalid("must be an integer"));
        }
        _ => {}
    }
    errors
}

fn resource_name(list: &Field<'_>, name: &str) -> Errors {
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    match name::qualified_name(name) {
        Err(why) => vec![FieldError::invalid(&list.path, name, why)],
        Ok(()) if standard || name.contains('/') => Errors::new(),
        Ok(()) => vec![FieldError::invalid(&list.path, name, "must be a standard resource for containers")],
    }
}

fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

fn within_limit(requests: &Field<'_>, name: &str, amount: &Field<'_>, limits: &Field<'_>) -> Errors {
    let limit = quantity(&limits.get(name));
    match (quantity(amount), limit) {
        (Some(request), Some(limit)) if request > limit => {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            vec![FieldError::invalid(&requests.path, request.to_string(), why)]
        }
        (Some(request), Some(limit)) if is_extended(name) && request != limit => {
            let why = format!("must be equal to {name} limit of {limit}");
            vec![FieldError::invalid(&requests.path, request.to_string(), why)]
        }
        (Some(_), None) if is_extended(name) => {
            vec![FieldError::required(&limits.path, "Limit must be set for non overcommitable resources")]
        }
        _ => Errors::new(),
    }
}

fn quantity(amount: &Field<'_>) -> Option<Quantity> {
    Quantity::parse(amount.value.as_str()?).ok()
}
