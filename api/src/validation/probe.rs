//! Rules for probes and lifecycle hooks.

use super::field::{Errors, Field, port_or_name};

const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];

/// The probes and hooks of a container.
pub(super) fn probes(container: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let field = container.get(name);
        if field.exists() {
            errors.extend(probe(&field, name != "readinessProbe"));
        }
    }
    for name in ["postStart", "preStop"] {
        let hook = container.get("lifecycle").get(name);
        if hook.exists() {
            errors.extend(handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"]));
        }
    }
    errors
}

/// Only readiness may ask for several successes: one is enough to live.
fn probe(probe: &Field<'_>, one_success: bool) -> Errors {
    let mut errors = handler(probe, &HANDLERS);
    for number in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        errors.extend(probe.get(number).nonnegative());
    }
    let successes = probe.get("successThreshold");
    if one_success && successes.int().is_some_and(|number| number != 1) {
        errors.push(successes.invalid("must be 1"));
    }
    let grace = probe.get("terminationGracePeriodSeconds");
    if grace.exists() {
        errors.extend(grace.positive());
    }
    errors
}

fn handler(parent: &Field<'_>, kinds: &[&str]) -> Errors {
    let given: Vec<&str> = kinds.iter().copied().filter(|kind| parent.get(kind).exists()).collect();
    let mut errors = Errors::new();
    if given.is_empty() {
        errors.push(parent.required("must specify a handler type"));
    }
    for kind in given.iter().skip(1) {
        errors.push(parent.get(kind).forbidden("may not specify more than 1 handler type"));
    }
    if let Some(kind) = given.first() {
        errors.extend(action(&parent.get(kind), kind));
    }
    errors
}

fn action(action: &Field<'_>, kind: &str) -> Errors {
    match kind {
        "exec" => action.get("command").present(),
        "httpGet" => http_get(action),
        "tcpSocket" => port_or_name(&action.get("port")),
        "grpc" => action.get("port").between(1, 65535),
        _ => action.get("seconds").nonnegative(),
    }
}

fn http_get(action: &Field<'_>) -> Errors {
    let mut errors = action.get("path").present();
    errors.extend(port_or_name(&action.get("port")));
    errors.extend(action.get("scheme").one_of(&["HTTP", "HTTPS"]));
    for header in action.get("httpHeaders").items() {
        let name = header.get("name");
        if name.text().is_empty()
            || !name.text().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            let rule = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', \
                        regex used for validation is '[-A-Za-z0-9]+')";
            errors.push(name.invalid(rule));
        }
    }
    errors
}
