//! Defaults of the kinds by which a cluster is run: admission, flow control, limits, devices.

use serde_json::{Map, Value, json};

use super::fields::{Defaults, text};

pub(super) fn webhooks(configuration: &mut Value, mutating: bool) {
    configuration.each("webhooks", |hook| {
        hook.text("failurePolicy", "Fail");
        hook.text("matchPolicy", "Equivalent");
        hook.map("namespaceSelector");
        hook.map("objectSelector");
        hook.or_insert("timeoutSeconds", 10);
        if mutating {
            hook.text("reinvocationPolicy", "Never");
        }
        hook.each("rules", |rule| rule.text("scope", "*"));
        hook.within("clientConfig", |config| {
            config.within("service", |service| service.or_insert("port", 443))
        });
    });
}

pub(super) fn policy(policy: &mut Value) {
    policy.under("spec", |spec| {
        spec.text("failurePolicy", "Fail");
        spec.within("matchConstraints", match_resources);
    });
}

pub(super) fn policy_binding(binding: &mut Value) {
    binding.within("spec", |spec| spec.within("matchResources", match_resources));
}

fn match_resources(resources: &mut Value) {
    resources.text("matchPolicy", "Equivalent");
    resources.map("namespaceSelector");
    resources.map("objectSelector");
    for rules in ["resourceRules", "excludeResourceRules"] {
        resources.each(rules, |rule| rule.text("scope", "*"));
    }
}

pub(super) fn flow_schema(schema: &mut Value) {
    schema.under("spec", |spec| {
        if spec.get("matchingPrecedence").is_none_or(|number| *number == 0) {
            spec.set("matchingPrecedence", json!(1000));
        }
    });
}

pub(super) fn priority_level(level: &mut Value) {
    level.under("spec", |spec| {
        spec.within("exempt", |exempt| {
            exempt.or_insert("nominalConcurrencyShares", 0);
            exempt.or_insert("lendablePercent", 0);
        });
        spec.within("limited", |limited| {
            limited.or_insert("nominalConcurrencyShares", 30);
            limited.or_insert("lendablePercent", 0);
            limited.within("limitResponse", |response| response.within("queuing", queuing));
        });
    });
}

/// Zero means "as you like" here.
fn queuing(queuing: &mut Value) {
    for (field, number) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
        if queuing.get(field).is_none_or(|given| *given == 0) {
            queuing.set(field, json!(number));
        }
    }
}

/// What a container may have at most it gets if it doesn't say, and it asks for what it may have.
pub(super) fn limit_range(range: &mut Value) {
    range.within("spec", |spec| spec.each("limits", limit_item));
}

fn limit_item(item: &mut Value) {
    if text(item, "type") != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let amounts: Map<String, Value> =
            item.get(from).and_then(Value::as_object).cloned().unwrap_or_default();
        if amounts.is_empty() {
            continue;
        }
        item.under(to, |into| amounts.into_iter().for_each(|(name, amount)| into.or_insert(&name, amount)));
    }
}

pub(super) fn claim(claim: &mut Value) {
    claim.within("spec", claim_spec);
}

pub(super) fn claim_template(template: &mut Value) {
    template.within("spec", |spec| spec.within("spec", claim_spec));
}

fn claim_spec(spec: &mut Value) {
    spec.within("devices", |devices| {
        devices.each("requests", |request| {
            request.within("exactly", device_request);
            request.each("firstAvailable", device_request);
        });
    });
}

fn device_request(request: &mut Value) {
    request.text("allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        request.or_insert("count", 1);
    }
    request.each("tolerations", |toleration| toleration.text("operator", "Equal"));
}
