//! LimitRanger: what containers get that don't say what they need, and bounds on what they may say.
//!
//! Messages are upstream's (`plugin/pkg/admission/limitranger`).

use std::collections::BTreeMap;

use api::pod::Amounts;
use api::quantity::Quantity;
use api::status::Status;
use k8s_openapi::api::core::v1::PodSpec;
use serde::Deserialize;
use serde_json::Value;

use super::lookup;
use crate::error::Outcome;
use crate::verbs::Call;

/// Tells who set what, for people.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Gives containers their default requests and limits.
pub async fn set_defaults(call: &Call<'_>, pod: &mut Value) -> Outcome<()> {
    for range in lookup::list(call, "", "limitranges", call.namespace()).await? {
        fill(pod, &range);
    }
    Ok(())
}

/// Refuses what is out of bounds.
///
/// # Errors
/// 403 with every bound of the first range that is broken.
pub async fn check(call: &Call<'_>, object: &Value) -> Outcome<()> {
    for range in lookup::list(call, "", "limitranges", call.namespace()).await? {
        let errors = match call.resource.kind.as_str() {
            "Pod" => pod_errors(object, &range),
            _ => claim_errors(object, &range),
        };
        let why = match errors.as_slice() {
            [] => continue,
            [only] => only.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        return Err(Status::forbidden(&call.resource.plural, "", api::object::name(object), &why).into());
    }
    Ok(())
}

/// The items of a range that are about `kind`.
fn items<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    range["spec"]["limits"].as_array().into_iter().flatten().filter(move |item| item["type"] == kind)
}

fn amounts(value: &Value) -> Amounts {
    let entries = value.as_object().into_iter().flatten();
    entries
        .filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(amount.as_str()?).ok()?)))
        .collect()
}

fn fill(pod: &mut Value, range: &Value) {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    for item in items(range, "Container") {
        limits.extend(item["default"].as_object().cloned().unwrap_or_default());
        requests.extend(item["defaultRequest"].as_object().cloned().unwrap_or_default());
    }
    let mut said = Vec::new();
    for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            for (part, what, defaults) in [("requests", "request", &requests), ("limits", "limit", &limits)] {
                let set = fill_part(container, part, defaults);
                if !set.is_empty() {
                    let name = container["name"].as_str().unwrap_or_default();
                    said.push(format!("{} {what} for {word} {name}", set.join(", ")));
                }
            }
        }
    }
    if !said.is_empty() {
        let text = format!("LimitRanger plugin set: {}", said.join("; "));
        api::object::set_annotation(pod, ANNOTATION, &text);
    }
}

/// Sets what isn't given; tells what.
fn fill_part(container: &mut Value, part: &str, defaults: &BTreeMap<String, Value>) -> Vec<String> {
    let absent = |name: &&String| container["resources"][part].get(name.as_str()).is_none();
    let missing: Vec<String> = defaults.keys().filter(absent).cloned().collect();
    for name in &missing {
        container["resources"][part][name] = defaults[name].clone();
    }
    missing
}

fn pod_errors(pod: &Value, range: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for item in items(range, "Container") {
        for list in ["containers", "initContainers"] {
            for container in pod["spec"][list].as_array().into_iter().flatten() {
                let resources = &container["resources"];
                let (requests, limits) = (amounts(&resources["requests"]), amounts(&resources["limits"]));
                errors.extend(bound_errors(item, &requests, &limits));
            }
        }
    }
    // A spec that is none has been refused already.
    if let Ok(spec) = PodSpec::deserialize(&pod["spec"]) {
        let (requests, limits) = (api::pod::requests(&spec), api::pod::limits(&spec));
        for item in items(range, "Pod") {
            errors.extend(bound_errors(item, &requests, &limits));
        }
    }
    errors
}

fn claim_errors(claim: &Value, range: &Value) -> Vec<String> {
    let requests = amounts(&claim["spec"]["resources"]["requests"]);
    let mut errors = Vec::new();
    for item in items(range, "PersistentVolumeClaim") {
        for (name, min) in amounts(&item["min"]) {
            errors.extend(least("PersistentVolumeClaim", &name, min, requests.get(&name), None));
        }
        for (name, max) in amounts(&item["max"]) {
            let usage = format!("maximum {name} usage per PersistentVolumeClaim is {max}");
            match requests.get(&name) {
                None => errors.push(format!("{usage}.  No request is specified")),
                Some(request) if *request > max => errors.push(format!("{usage}, but request is {request}")),
                Some(_) => {}
            }
        }
    }
    errors
}

fn bound_errors(item: &Value, requests: &Amounts, limits: &Amounts) -> Vec<String> {
    let kind = item["type"].as_str().unwrap_or_default();
    let mut errors = Vec::new();
    for (name, min) in amounts(&item["min"]) {
        errors.extend(least(kind, &name, min, requests.get(&name), limits.get(&name)));
    }
    for (name, max) in amounts(&item["max"]) {
        errors.extend(most(kind, &name, max, requests.get(&name), limits.get(&name)));
    }
    for (name, ratio) in amounts(&item["maxLimitRequestRatio"]) {
        errors.extend(within_ratio(kind, &name, ratio, requests.get(&name), limits.get(&name)));
    }
    errors
}

type Given<'a> = Option<&'a Quantity>;

fn least(kind: &str, name: &str, min: Quantity, request: Given<'_>, limit: Given<'_>) -> Option<String> {
    let usage = format!("minimum {name} usage per {kind} is {min}");
    match (request, limit) {
        (None, _) => Some(format!("{usage}.  No request is specified")),
        (Some(request), _) if *request < min => Some(format!("{usage}, but request is {request}")),
        (_, Some(limit)) if *limit < min => Some(format!("{usage}, but limit is {limit}")),
        _ => None,
    }
}

fn most(kind: &str, name: &str, max: Quantity, request: Given<'_>, limit: Given<'_>) -> Option<String> {
    let usage = format!("maximum {name} usage per {kind} is {max}");
    match (request, limit) {
        (_, None) => Some(format!("{usage}.  No limit is specified")),
        (_, Some(limit)) if *limit > max => Some(format!("{usage}, but limit is {limit}")),
        (Some(request), _) if *request > max => Some(format!("{usage}, but request is {request}")),
        _ => None,
    }
}

fn within_ratio(
    kind: &str,
    name: &str,
    most: Quantity,
    request: Given<'_>,
    limit: Given<'_>,
) -> Option<String> {
    let rule = format!("{name} max limit to request ratio per {kind} is {most}");
    let given = |amount: Given<'_>| amount.filter(|amount| !amount.is_zero()).copied();
    match (given(request), given(limit)) {
        (None, _) => Some(format!("{rule}, but no request is specified or request is 0")),
        (_, None) => Some(format!("{rule}, but no limit is specified or limit is 0")),
        (Some(request), Some(limit)) => {
            // limit / request > most, without dividing: exact where a float isn't.
            let exceeds = limit.as_milli() * 1000 > most.as_milli() * request.as_milli();
            let ratio = limit.as_milli() as f64 / request.as_milli() as f64;
            exceeds.then(|| format!("{rule}, but provided ratio is {ratio:.6}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn range(item: Value) -> Value {
        json!({"spec": {"limits": [item]}})
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
    }

    #[test]
    fn what_is_given_stays_and_the_rest_is_filled() {
        let range = range(
            json!({"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "500m"}}),
        );
        let mut given = pod(json!({"limits": {"cpu": "2"}}));
        fill(&mut given, &range);
        let resources = &given["spec"]["containers"][0]["resources"];
        assert_eq!(*resources, json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "500m"}}));
        assert_eq!(
            given["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; memory limit for container c"
        );
        let once = given.clone();
        fill(&mut given, &range);
        assert_eq!(given, once);
    }

    #[test]
    fn bounds() {
        let cases = [
            (
                json!({"min": {"cpu": "1"}}),
                json!({}),
                "minimum cpu usage per Container is 1.  No request is specified",
            ),
            (
                json!({"min": {"cpu": "1"}}),
                json!({"requests": {"cpu": "500m"}}),
                "minimum cpu usage per Container is 1, but request is 500m",
            ),
            (
                json!({"max": {"cpu": "1"}}),
                json!({"requests": {"cpu": "1"}}),
                "maximum cpu usage per Container is 1.  No limit is specified",
            ),
            (
                json!({"max": {"cpu": "1"}}),
                json!({"limits": {"cpu": "2"}}),
                "maximum cpu usage per Container is 1, but limit is 2",
            ),
            (json!({"max": {"cpu": "1"}}), json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}), ""),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}}),
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "0"}}),
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}}),
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "400m"}}),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000",
            ),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}}),
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}}),
                "",
            ),
        ];
        for (mut item, resources, expected) in cases {
            item["type"] = json!("Container");
            let errors = pod_errors(&pod(resources.clone()), &range(item.clone()));
            assert_eq!(errors.join(" / "), expected, "{item} {resources}");
        }
    }

    #[test]
    fn a_pod_counts_as_a_whole() {
        let pod = json!({"spec": {"containers": [
            {"name": "a", "image": "i", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}},
            {"name": "b", "image": "i", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}},
        ]}});
        let errors = pod_errors(&pod, &range(json!({"type": "Pod", "max": {"cpu": "1500m"}})));
        assert_eq!(errors, ["maximum cpu usage per Pod is 1500m, but limit is 2"]);
    }
}
