//! What objects use of a namespace's quota, and whether a quota allows it.
//!
//! Upstream's `pkg/quota/v1/evaluator` and `resourcequota` admission, as functions over values: the API
//! server charges with them, the quota controller counts with them. Messages are upstream's.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::k8s::api::core::v1::PodSpec;
use crate::pod::{self, QosClass};
use crate::quantity::{Format, Quantity};

pub use crate::pod::Amounts;

/// Kinds whose count has a name of its own besides `count/…`.
const PLAIN_COUNTS: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];
/// Amounts that every container must state if a quota limits them.
const STATED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// Whether a change of an object of this kind can change what it uses.
pub fn counts_updates(group: &str, plural: &str) -> bool {
    group.is_empty() && matches!(plural, "services" | "persistentvolumeclaims")
}

/// What an object uses, by the names that quotas have for it.
pub fn usage(group: &str, plural: &str, object: &Value) -> Amounts {
    let mut usage = Amounts::from([(count_name(group, plural), one())]);
    match (group, plural) {
        ("", "pods") => usage.extend(pod_usage(object)),
        ("", "services") => usage.extend(service_usage(object)),
        ("", "persistentvolumeclaims") => usage.extend(claim_usage(object)),
        ("", plural) if PLAIN_COUNTS.contains(&plural) => {
            usage.insert(plural.to_owned(), one());
        }
        _ => {}
    }
    usage
}

/// `count/pods`, `count/deployments.apps`.
pub fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

fn one() -> Quantity {
    units(1)
}

fn units(number: usize) -> Quantity {
    Quantity::from_units(i64::try_from(number).unwrap_or(i64::MAX), Format::Decimal)
}

/// A pod that has ended uses nothing but its place in the count.
fn pod_usage(object: &Value) -> Amounts {
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let Ok(spec) = PodSpec::deserialize(&object["spec"]) else { return Amounts::new() };
    if ended {
        return Amounts::new();
    }
    let mut usage = Amounts::from([("pods".to_owned(), one())]);
    usage.extend(compute_usage(&pod::requests(&spec), &pod::limits(&spec)));
    usage
}

/// Requests and limits by the names that quotas have for them.
fn compute_usage(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = Amounts::new();
    for (name, amount) in requests {
        let plain =
            matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if plain {
            usage.insert(name.clone(), *amount);
        }
        if plain || name.contains('/') {
            usage.insert(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), *amount);
        }
    }
    usage
}

fn service_usage(service: &Value) -> Amounts {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let balancer = spec["type"] == "LoadBalancer";
    let node_ports = match spec["type"].as_str() {
        Some("NodePort") => ports.len(),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] != false => ports.len(),
        Some("LoadBalancer") => {
            ports.iter().filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0).count()
        }
        _ => 0,
    };
    Amounts::from([
        ("services".to_owned(), one()),
        ("services.nodeports".to_owned(), units(node_ports)),
        ("services.loadbalancers".to_owned(), units(usize::from(balancer))),
    ])
}

fn claim_usage(claim: &Value) -> Amounts {
    let storage = claim["spec"]["resources"]["requests"]["storage"].as_str();
    let storage = storage.and_then(|text| Quantity::parse(text).ok()).unwrap_or_default();
    let mut usage = Amounts::from([
        ("persistentvolumeclaims".to_owned(), one()),
        ("requests.storage".to_owned(), storage),
    ]);
    if let Some(class) = claim["spec"]["storageClassName"].as_str().filter(|class| !class.is_empty()) {
        let of_class = format!("{class}.storageclass.storage.k8s.io");
        usage.insert(format!("{of_class}/persistentvolumeclaims"), one());
        usage.insert(format!("{of_class}/requests.storage"), storage);
    }
    usage
}

/// `new - old`, by name.
pub fn difference(new: &Amounts, old: &Amounts) -> Amounts {
    let names: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    let amount = |of: &Amounts, name: &String| of.get(name).copied().unwrap_or_default();
    names.into_iter().map(|name| (name.clone(), amount(new, name).sub(&amount(old, name)))).collect()
}

/// `sum + more`, by name.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let total = sum.entry(name.clone()).or_default();
        *total = total.add(amount);
    }
}

/// Whether a quota with this spec counts an object: it limits something that the object uses, and the object
/// is in all of its scopes.
pub fn selects(spec: &Value, group: &str, plural: &str, object: &Value) -> bool {
    let hard = spec["hard"].as_object();
    let limits_it =
        usage(group, plural, object).keys().any(|name| hard.is_some_and(|hard| hard.contains_key(name)));
    limits_it && in_scopes(spec, group, plural, object)
}

fn in_scopes(spec: &Value, group: &str, plural: &str, object: &Value) -> bool {
    let plain =
        spec["scopes"].as_array().into_iter().flatten().map(|scope| (scope.clone(), "Exists", Vec::new()));
    let selected = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    let selected = selected.map(|expression| {
        let values = expression["values"].as_array().cloned().unwrap_or_default();
        (expression["scopeName"].clone(), expression["operator"].as_str().unwrap_or_default(), values)
    });
    plain.chain(selected).all(|(scope, operator, values)| {
        scope.as_str().is_some_and(|scope| in_scope(scope, operator, &values, group, plural, object))
    })
}

fn in_scope(
    scope: &str,
    operator: &str,
    values: &[Value],
    group: &str,
    plural: &str,
    object: &Value,
) -> bool {
    match (group, plural, scope) {
        ("", "pods", "PriorityClass") => {
            matches_text(object["spec"]["priorityClassName"].as_str().unwrap_or_default(), operator, values)
        }
        ("", "pods", _) => pod_in_scope(scope, object),
        ("", "persistentvolumeclaims", "VolumeAttributesClass") => matches_text(
            object["spec"]["volumeAttributesClassName"].as_str().unwrap_or_default(),
            operator,
            values,
        ),
        _ => false,
    }
}

fn pod_in_scope(scope: &str, pod: &Value) -> bool {
    let ends = pod["spec"]["activeDeadlineSeconds"].as_i64().is_some();
    let best_effort =
        || PodSpec::deserialize(&pod["spec"]).is_ok_and(|spec| pod::qos_class(&spec) == QosClass::BestEffort);
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

/// Some term of the pod's affinity looks into other namespaces.
fn crosses_namespaces(pod: &Value) -> bool {
    let affinity = &pod["spec"]["affinity"];
    let terms = ["podAffinity", "podAntiAffinity"].into_iter().flat_map(|kind| {
        let required = affinity[kind]["requiredDuringSchedulingIgnoredDuringExecution"].as_array();
        let preferred = affinity[kind]["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
        let preferred = preferred.into_iter().flatten().map(|weighted| &weighted["podAffinityTerm"]);
        required.into_iter().flatten().chain(preferred)
    });
    let mut terms = terms;
    terms.any(|term| {
        !term["namespaceSelector"].is_null()
            || term["namespaces"].as_array().is_some_and(|names| !names.is_empty())
    })
}

fn matches_text(text: &str, operator: &str, values: &[Value]) -> bool {
    let listed = values.iter().any(|value| value == text);
    match operator {
        "Exists" => !text.is_empty(),
        "DoesNotExist" => text.is_empty(),
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

/// Every container of a new pod must state what the quota limits.
///
/// # Errors
/// Which containers don't state what.
pub fn complete(quota: &Value, group: &str, plural: &str, object: &Value) -> Result<(), String> {
    if (group, plural) != ("", "pods") {
        return Ok(());
    }
    let limited = |name: &&str| quota["spec"]["hard"].get(*name).is_some();
    let required: Vec<&str> = STATED.into_iter().filter(limited).collect();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in ["containers", "initContainers"]
        .iter()
        .flat_map(|list| object["spec"][list].as_array().into_iter().flatten())
    {
        let amounts = |part: &str| amounts(&container["resources"][part]);
        let stated = compute_usage(&amounts("requests"), &amounts("limits"));
        for name in required.iter().filter(|name| !stated.contains_key(**name)) {
            missing.entry(name).or_default().insert(container["name"].as_str().unwrap_or_default());
        }
    }
    if missing.is_empty() || pod_level(object) {
        return Ok(());
    }
    let texts = missing.into_iter().map(|(name, containers)| {
        format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(","))
    });
    let texts: Vec<String> = texts.collect();
    Err(format!("failed quota: {}: must specify {}", crate::object::name(quota), texts.join("; ")))
}

/// Amounts that are given for the pod as a whole state everything.
fn pod_level(pod: &Value) -> bool {
    pod["spec"]["resources"].as_object().is_some_and(|resources| !resources.is_empty())
}

/// The amounts in a map of quantities; what is no quantity is left out.
pub fn amounts(map: &Value) -> Amounts {
    let entries = map.as_object().into_iter().flatten();
    entries
        .filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(amount.as_str()?).ok()?)))
        .collect()
}

/// A map of quantities.
pub fn to_value(amounts: &Amounts) -> Value {
    let entries = amounts.iter().map(|(name, amount)| (name.clone(), json!(amount.to_string())));
    Value::Object(entries.collect::<Map<_, _>>())
}

/// `status.used` of the quota with `delta` in it; `None` if the quota limits nothing that changes.
///
/// # Errors
/// What exceeds which limit.
pub fn charge(quota: &Value, delta: &Amounts) -> Result<Option<Value>, String> {
    let name = crate::object::name(quota);
    let (hard, used) = (amounts(&quota["status"]["hard"]), amounts(&quota["status"]["used"]));
    let wanted = amounts(&quota["spec"]["hard"]);
    let delta: Amounts = delta
        .iter()
        .filter(|(name, _)| wanted.contains_key(*name))
        .map(|(name, amount)| (name.clone(), *amount))
        .collect();
    if delta.values().all(Quantity::is_zero) {
        return Ok(None);
    }
    let unknown: Vec<&str> = delta
        .keys()
        .filter(|name| !hard.contains_key(*name) || !used.contains_key(*name))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        return Err(format!("status unknown for quota: {name}, resources: {}", unknown.join(",")));
    }
    let mut total = used.clone();
    add(&mut total, &delta);
    let exceeded = |resource: &String| delta[resource].signum() > 0 && total[resource] > hard[resource];
    let over: BTreeSet<&String> = delta.keys().filter(|resource| exceeded(resource)).collect();
    if !over.is_empty() {
        let shown = |amounts: &Amounts| {
            let chosen = amounts.iter().filter(|(name, _)| over.contains(name));
            chosen.map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
        };
        return Err(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            shown(&delta),
            shown(&used),
            shown(&hard)
        ));
    }
    Ok(Some(to_value(&total)))
}

#[cfg(test)]
mod tests;
