//! Rules of the kinds by which a cluster is run, as far as they take more than a line of `rules.rs`.

use std::net::IpAddr;

use super::field::{Errors, Field, same};
use super::{admission, certificates, rules};
use crate::name;
use crate::quantity::Quantity;
use crate::status::FieldError;

/// What holds for an object of a kind that has no file of its own.
pub(super) fn object(kind: &str, root: &Field<'_>) -> Errors {
    let mut errors = rules::check(kind, root);
    match kind {
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            errors.extend(admission::webhooks(root));
        }
        "MutatingAdmissionPolicy" | "ValidatingAdmissionPolicy" => {
            errors.extend(admission::policy(kind, &root.get("spec")));
        }
        "MutatingAdmissionPolicyBinding" | "ValidatingAdmissionPolicyBinding" => {
            errors.extend(admission::binding(&root.get("spec")));
        }
        "ClusterTrustBundle" => errors.extend(certificates::trust_bundle(root)),
        "APIService" => errors.extend(api_service(root)),
        "PriorityLevelConfiguration" => errors.extend(priority_level(root)),
        "LimitRange" => errors.extend(limit_range(&root.at("spec.limits"))),
        "ResourceQuota" => errors.extend(quota(&root.get("spec"))),
        "IPAddress" => errors.extend(ip_address(&root.at("metadata.name"))),
        "ServiceCIDR" => errors.extend(service_cidr(&root.at("spec.cidrs"))),
        _ => {}
    }
    errors
}

/// What may not change in an object of such a kind.
pub(super) fn update(kind: &str, root: &Field<'_>, old: &Field<'_>) -> Errors {
    let mut errors = rules::check_update(kind, root, old);
    match kind {
        "ResourceQuota" => errors.extend(same(&root.at("spec.scopes"), &old.at("spec.scopes"))),
        "ServiceCIDR" => errors.extend(same(&root.at("spec.cidrs"), &old.at("spec.cidrs"))),
        _ => {}
    }
    errors
}

/// Named by what it serves; who serves it elsewhere is vouched for, or explicitly not.
fn api_service(root: &Field<'_>) -> Errors {
    let (spec, name) = (root.get("spec"), root.at("metadata.name"));
    let expected = format!("{}.{}", spec.get("version").text(), spec.get("group").text());
    let mut errors = Errors::new();
    if name.text() != expected {
        errors.push(name.invalid(format!(
            "must be `spec.version+\".\"+spec.group`: \"{}.{}\"",
            spec.get("version").text(),
            spec.get("group").text()
        )));
    }
    let (insecure, bundle) = (spec.get("insecureSkipTLSVerify"), spec.get("caBundle"));
    if !spec.get("service").exists() {
        for (field, given) in [(&insecure, insecure.flag()), (&bundle, !bundle.is_empty())] {
            if given {
                errors.push(field.invalid("must be unset for local APIServices"));
            }
        }
    } else if insecure.flag() && !bundle.is_empty() {
        errors.push(insecure.invalid("may not be true if caBundle is present"));
    } else if !insecure.flag() && bundle.is_empty() {
        errors.push(bundle.required("must be set if insecureSkipTLSVerify is false"));
    }
    errors
}

/// Just the part that belongs to the type; the one exempt level is the one of the system.
fn priority_level(root: &Field<'_>) -> Errors {
    let spec = root.get("spec");
    let mut errors = Errors::new();
    let exempt_name = root.at("metadata.name").text() == "exempt";
    if exempt_name != (spec.get("type").text() == "Exempt") {
        let why = if exempt_name {
            "must be 'Exempt' if `name` is 'exempt'"
        } else {
            "must not be 'Exempt' unless `name` is 'exempt'"
        };
        errors.push(spec.get("type").invalid(why));
    }
    for (kind, part) in [("Limited", "limited"), ("Exempt", "exempt")] {
        let part = spec.get(part);
        match (spec.get("type").text() == kind, part.exists()) {
            (true, false) if kind == "Limited" => {
                errors.push(part.required("must not be empty when type is Limited"));
            }
            (false, true) => errors.push(part.forbidden(&format!("must be nil if the type is not {kind}"))),
            _ => {}
        }
    }
    let response = spec.at("limited.limitResponse");
    let queuing = response.get("queuing");
    match (response.get("type").text(), queuing.exists()) {
        ("Queue", false) => {
            errors.push(queuing.required("must not be empty if limited.limitResponse.type is Queue"))
        }
        ("Reject", true) => {
            errors.push(queuing.forbidden("must be nil if limited.limitResponse.type is not Queue"))
        }
        _ => {}
    }
    let (hand, queues) = (queuing.get("handSize"), queuing.get("queues"));
    if hand.int() > queues.int() {
        let why = format!("should not be greater than queues ({})", queues.int().unwrap_or_default());
        errors.push(hand.invalid(why));
    }
    errors
}

const BOUNDS: [&str; 5] = ["min", "default", "defaultRequest", "max", "maxLimitRequestRatio"];

/// Each type once; for each resource min ≤ defaultRequest ≤ default ≤ max, and ratios of at least one.
fn limit_range(limits: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    let mut seen: Vec<&str> = Vec::new();
    for item in limits.items() {
        let kind = item.get("type");
        errors.extend(kind.present());
        if seen.contains(&kind.text()) {
            errors.push(kind.duplicate());
        }
        seen.push(kind.text());
        if kind.text() == "Pod" {
            for part in ["default", "defaultRequest"] {
                if !item.get(part).is_empty() {
                    errors.push(item.get(part).forbidden("may not be specified when `type` is 'Pod'"));
                }
            }
        }
        if kind.text() == "PersistentVolumeClaim"
            && !item.at("min.storage").exists()
            && !item.at("max.storage").exists()
        {
            let why = "either minimum or maximum storage value is required, but neither was provided";
            errors.push(FieldError::required(&item.path, why));
        }
        errors.extend(bounds(&item));
    }
    errors
}

fn bounds(item: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    let mut names: Vec<&String> = BOUNDS
        .iter()
        .flat_map(|part| item.get(part).entries().map(|(name, _)| name).collect::<Vec<_>>())
        .collect();
    names.sort();
    names.dedup();
    for resource in names {
        let place = |part: &str| Field {
            path: format!("{}[{resource}]", item.get(part).path),
            value: item.get(part).get(resource).value,
        };
        let amount = |part: &str| amount(place(part).value);
        for (low, high) in [
            ("min", "max"),
            ("min", "default"),
            ("min", "defaultRequest"),
            ("defaultRequest", "max"),
            ("defaultRequest", "default"),
            ("default", "max"),
        ] {
            if let (Some(less), Some(more)) = (amount(low), amount(high))
                && less > more
            {
                let words = |part: &str| match part {
                    "defaultRequest" => "default request".to_owned(),
                    other => other.to_owned(),
                };
                let why = format!("{} value {less} is greater than {} value {more}", words(low), words(high));
                errors.push(FieldError::invalid(place(low).path, less.to_string(), why));
            }
        }
        let one = Quantity::from_units(1, crate::quantity::Format::Decimal);
        if let Some(ratio) = amount("maxLimitRequestRatio").filter(|ratio| *ratio < one) {
            let why = format!("ratio {ratio} is less than 1");
            errors.push(FieldError::invalid(place("maxLimitRequestRatio").path, ratio.to_string(), why));
        }
    }
    errors
}

fn amount(value: &serde_json::Value) -> Option<Quantity> {
    Quantity::parse(value.as_str()?).ok()
}

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// What a quota limits besides counts of objects (`count/…`) and what has a slash of its own.
const QUOTA_NAMES: [&str; 20] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];

fn quota(spec: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for (name, hard) in spec.get("hard").entries() {
        if let Err(why) = name::qualified_name(name) {
            errors.push(FieldError::invalid(&hard.path, name.as_str(), why));
        } else if !name.contains('/') && !name.contains("hugepages-") && !QUOTA_NAMES.contains(&name.as_str())
        {
            errors.push(FieldError::invalid(
                &hard.path,
                name.as_str(),
                "must be a standard resource for quota",
            ));
        }
        if amount(hard.value).is_some_and(|amount| amount.signum() < 0) {
            errors.push(hard.invalid("must be greater than or equal to 0"));
        }
    }
    let scopes: Vec<Field<'_>> = spec.get("scopes").items().collect();
    errors.extend(scopes.iter().flat_map(|scope| scope.one_of(&SCOPES)));
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|name| scopes.iter().any(|scope| scope.text() == *name)) {
            errors.push(spec.get("scopes").invalid("conflicting scopes"));
        }
    }
    for expression in spec.at("scopeSelector.matchExpressions").items() {
        errors.extend(scope_expression(&expression));
    }
    errors
}

fn scope_expression(expression: &Field<'_>) -> Errors {
    let (scope, operator, values) =
        (expression.get("scopeName"), expression.get("operator"), expression.get("values"));
    let mut errors = scope.one_of(&SCOPES);
    errors.extend(operator.one_of(&["DoesNotExist", "Exists", "In", "NotIn"]));
    let plain = !matches!(scope.text(), "PriorityClass" | "VolumeAttributesClass");
    match operator.text() {
        "In" | "NotIn" if plain => {
            let why = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(operator.invalid(why));
        }
        "In" | "NotIn" if values.is_empty() => {
            errors.push(values.required(
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.push(values.invalid(
                "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector",
            ));
        }
        _ => {}
    }
    errors
}

/// The name is the address, in its one canonical form.
fn ip_address(name: &Field<'_>) -> Errors {
    match name.text().parse::<IpAddr>() {
        Ok(address) if address.to_string() == name.text() => Errors::new(),
        Ok(_) => vec![name.invalid("must be a canonical format IP address")],
        Err(_) => vec![name.invalid("must be a valid IP address")],
    }
}

/// One range, or one of each family.
fn service_cidr(cidrs: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    let mut families = Vec::new();
    for cidr in cidrs.items() {
        match crate::cidr::Cidr::parse(cidr.text()) {
            Some(range) => families.push(range.is_ipv6()),
            None => {
                errors.push(cidr.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"))
            }
        }
    }
    if families.len() == 2 && families[0] == families[1] {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(cidrs.invalid(why));
    }
    errors
}
