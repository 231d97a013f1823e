//! Why a Service has no endpoints: its selector, its pods, their readiness, their ports.

use std::collections::BTreeMap;

use serde_json::Value;

use super::answer::Answer;
use super::view::{View, is_true, text};

/// Pods with other labels that are told, those that come nearest.
const NEAREST: usize = 3;

/// Why the Service is as it is.
pub fn why(service: &Value, view: &View) -> Answer {
    let mut answer = Answer::about(service, "");
    if text(service, "/spec/type") == "ExternalName" {
        let name = text(service, "/spec/externalName");
        answer.verdict = format!("is an alias for {name}: it has no endpoints of its own");
        return answer;
    }
    let ready = endpoints(service, view, true);
    let selector = api::object::text_map(service["spec"].get("selector"));
    answer.verdict = match ready {
        0 if selector.is_empty() => {
            "has no selector: its EndpointSlices are made by hand, and none has a ready address".to_owned()
        }
        0 => format!("has no ready endpoints: {}", missing(&mut answer, service, &selector, view)),
        count => format!("has {}", crate::text::count(count, "ready endpoint")),
    };
    answer
}

/// How many endpoints its slices have.
fn endpoints(service: &Value, view: &View, ready: bool) -> usize {
    let name = api::object::name(service);
    let slices = view.of("EndpointSlice", api::object::namespace(service));
    let slices = slices.filter(|slice| api::object::label(slice, "kubernetes.io/service-name") == Some(name));
    let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    endpoints.filter(|endpoint| !ready || endpoint["conditions"]["ready"] != false).count()
}

fn missing(answer: &mut Answer, service: &Value, selector: &BTreeMap<String, String>, view: &View) -> String {
    let pods: Vec<&Value> = view.of("Pod", api::object::namespace(service)).collect();
    let matches = |pod: &&&Value| differences(selector, pod).is_empty();
    let selected: Vec<&Value> = pods.iter().filter(matches).copied().collect();
    if selected.is_empty() {
        answer.table("Pods that come nearest", &["POD", "LABELS THAT DIFFER"], nearest(selector, &pods));
        let pairs: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        return format!("no pod has the labels {}", pairs.join(","));
    }
    let rows: Vec<Vec<String>> = selected
        .iter()
        .map(|pod| vec![api::object::name(pod).to_owned(), unusable(service, pod, view)])
        .collect();
    let first = format!("pod {} {}", rows[0][0], rows[0][1]);
    answer.table("Pods that it selects", &["POD", "WHY NOT"], rows);
    format!("{first}{}", more(selected.len()))
}

fn more(pods: usize) -> String {
    if pods > 1 { format!(", and {} more", pods - 1) } else { String::new() }
}

fn differences(selector: &BTreeMap<String, String>, pod: &Value) -> Vec<String> {
    let labels = api::object::labels(pod);
    let differs = selector.iter().filter(|(key, value)| labels.get(*key) != Some(*value));
    differs
        .map(|(key, value)| match labels.get(key) {
            Some(has) => format!("{key} is {has}, not {value}"),
            None => format!("{key} is missing"),
        })
        .collect()
}

fn nearest(selector: &BTreeMap<String, String>, pods: &[&Value]) -> Vec<Vec<String>> {
    let mut ranked: Vec<(usize, String, String)> = pods
        .iter()
        .map(|pod| (differences(selector, pod), api::object::name(pod).to_owned()))
        .map(|(differences, name)| (differences.len(), name, differences.join(", ")))
        .collect();
    ranked.sort();
    ranked.into_iter().take(NEAREST).map(|(_, name, differences)| vec![name, differences]).collect()
}

fn unusable(service: &Value, pod: &Value, view: &View) -> String {
    if api::object::is_deleting(pod) {
        return "is being deleted".to_owned();
    }
    if text(pod, "/status/podIP").is_empty() {
        return "has no address yet".to_owned();
    }
    if !is_true(pod, "Ready") {
        return "isn't ready".to_owned();
    }
    let lacks = lacking_port(service, pod).map(|port| format!("has no container port named {port}"));
    lacks.unwrap_or_else(|| match endpoints(service, view, false) {
        0 => "is ready: the endpointslice controller has not noticed yet".to_owned(),
        _ => "is ready, but its endpoint isn't yet".to_owned(),
    })
}

fn lacking_port<'a>(service: &'a Value, pod: &Value) -> Option<&'a str> {
    let has = |wanted: &&str| {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
        ports.any(|port| text(port, "/name") == *wanted)
    };
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    ports.filter_map(|port| port["targetPort"].as_str()).find(|name| !has(name))
}
