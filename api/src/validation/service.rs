//! Rules for Services and Endpoints.

use std::net::IpAddr;

use super::field::{Errors, Field, labels, port_or_name};
use crate::name;
use crate::status::FieldError;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// One day.
const AFFINITY_MAX: i64 = 86_400;

/// The spec of a Service.
pub(super) fn service(spec: &Field<'_>) -> Errors {
    let kind = spec.get("type").text();
    let mut errors = spec.get("type").one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    errors.extend(spec.get("sessionAffinity").one_of(&["ClientIP", "None"]));
    errors.extend(spec.at("sessionAffinityConfig.clientIP.timeoutSeconds").between(1, AFFINITY_MAX));
    errors.extend(labels(&spec.get("selector")));
    errors.extend(ports(spec));
    errors.extend(cluster_ip(spec));
    if kind == "ExternalName" {
        errors.extend(external_name(&spec.get("externalName")));
    }
    errors.extend(spec.get("externalTrafficPolicy").one_of(&["Cluster", "Local"]));
    errors.extend(spec.get("internalTrafficPolicy").one_of(&["Cluster", "Local"]));
    errors.extend(spec.get("externalIPs").items().flat_map(|address| ip(&address)));
    errors
}

fn external_name(field: &Field<'_>) -> Errors {
    if field.is_empty() {
        return vec![field.required("")];
    }
    match name::dns1123_subdomain(field.text().trim_end_matches('.')) {
        Ok(()) => Errors::new(),
        Err(why) => vec![field.invalid(why)],
    }
}

fn cluster_ip(spec: &Field<'_>) -> Errors {
    let address = spec.get("clusterIP");
    match address.text() {
        "" => Errors::new(),
        _ if spec.get("type").text() == "ExternalName" => {
            vec![address.forbidden("may not be set when `type` is 'ExternalName'")]
        }
        "None" if matches!(spec.get("type").text(), "NodePort" | "LoadBalancer") => {
            let why = format!("may not be set to 'None' for {} services", spec.get("type").text());
            vec![address.invalid(why)]
        }
        "None" => Errors::new(),
        text if text.parse::<IpAddr>().is_ok() => Errors::new(),
        _ => vec![address.invalid("must be empty, 'None', or a valid IP address")],
    }
}

fn ports(spec: &Field<'_>) -> Errors {
    let list = spec.get("ports");
    let headless = spec.get("clusterIP").text() == "None";
    let kind = spec.get("type").text();
    let mut errors = Errors::new();
    if list.is_empty() && !headless && kind != "ExternalName" {
        errors.push(list.required(""));
    }
    let several = list.items().count() > 1;
    let (mut names, mut pairs, mut node_ports) = (Vec::new(), Vec::new(), Vec::new());
    for port in list.items() {
        errors.extend(self::port(&port, several, kind));
        let name = port.get("name");
        errors.extend(repeated(&mut names, name.text(), !name.is_empty(), || name.duplicate()));
        let pair = (port.get("protocol").text(), port.get("port").int());
        errors.extend(repeated(&mut pairs, pair, true, || port.duplicate()));
        let node_port = port.get("nodePort");
        let pair = (port.get("protocol").text(), node_port.int());
        errors.extend(repeated(&mut node_ports, pair, !node_port.is_empty(), || node_port.duplicate()));
    }
    errors
}

/// Remembers a value that counts, and reports it the second time.
fn repeated<T: PartialEq>(
    seen: &mut Vec<T>,
    value: T,
    counts: bool,
    error: impl Fn() -> FieldError,
) -> Option<FieldError> {
    if !counts {
        return None;
    }
    let again = seen.contains(&value);
    seen.push(value);
    again.then(error)
}

fn port(port: &Field<'_>, several: bool, kind: &str) -> Errors {
    let name = port.get("name");
    let mut errors = name.checked(name::dns1123_label);
    if several && name.is_empty() {
        errors.push(name.required(""));
    }
    errors.extend(port.get("port").between(1, 65535));
    errors.extend(port.get("protocol").one_of(&PROTOCOLS));
    errors.extend(port_or_name(&port.get("targetPort")));
    let node_port = port.get("nodePort");
    if !node_port.is_empty() && matches!(kind, "ClusterIP" | "ExternalName") {
        errors.push(node_port.forbidden(&format!("may not be used when `type` is '{kind}'")));
    }
    errors
}

fn ip(address: &Field<'_>) -> Errors {
    match address.text().parse::<IpAddr>() {
        Ok(_) => Errors::new(),
        Err(_) => vec![address.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")],
    }
}

/// The address of a service stays, except on the way to or from an external name.
pub(super) fn update(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let external = |spec: &Field<'_>| spec.get("type").text() == "ExternalName";
    let (address, before) = (new.get("clusterIP"), old.get("clusterIP"));
    match before.is_empty() || external(new) || external(old) || address.value == before.value {
        true => Errors::new(),
        false => {
            let list = new.get("clusterIPs");
            let first = FieldError::invalid(
                format!("{}[0]", list.path),
                list.value.clone(),
                "may not change once set",
            );
            vec![first, address.invalid("field is immutable")]
        }
    }
}

/// Addresses and ports of Endpoints.
pub(super) fn endpoints(root: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for subset in root.get("subsets").items() {
        let (ready, not_ready) = (subset.get("addresses"), subset.get("notReadyAddresses"));
        if ready.is_empty() && not_ready.is_empty() {
            errors.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
        }
        for address in ready.items().chain(not_ready.items()) {
            errors.extend(ip(&address.get("ip")));
        }
        for port in subset.get("ports").items() {
            errors.extend(port.get("port").between(1, 65535));
            errors.extend(port.get("protocol").one_of(&PROTOCOLS));
        }
    }
    errors
}
