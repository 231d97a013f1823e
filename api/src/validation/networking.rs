//! Rules for ingresses, network policies and endpoint slices.

use super::field::{Errors, Field, label_selector, port_or_name};
use crate::name;
use crate::status::FieldError;

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;

/// The spec of an Ingress.
pub(super) fn ingress(spec: &Field<'_>) -> Errors {
    let (rules, default) = (spec.get("rules"), spec.get("defaultBackend"));
    let mut errors = Errors::new();
    if rules.is_empty() && !default.exists() {
        errors.push(spec.invalid("either `defaultBackend` or `rules` must be specified"));
    }
    if default.exists() {
        errors.extend(backend(&default));
    }
    for rule in rules.items() {
        errors.extend(host(&rule.get("host")));
        if rule.get("http").exists() {
            errors.extend(rule.at("http.paths").present());
        }
        for path in rule.at("http.paths").items() {
            errors.extend(http_path(&path));
        }
    }
    for tls in spec.get("tls").items() {
        for name in tls.get("hosts").items() {
            errors.extend(host(&name));
        }
    }
    errors.extend(spec.get("ingressClassName").checked(name::dns1123_subdomain));
    errors
}

fn host(host: &Field<'_>) -> Errors {
    let text = host.text();
    if text.is_empty() {
        return Errors::new();
    }
    if text.parse::<std::net::IpAddr>().is_ok() {
        return vec![host.invalid("must be a DNS name, not an IP address")];
    }
    match text.strip_prefix("*.") {
        Some(rest) => name::dns1123_subdomain(rest).err().map(|why| host.invalid(why)).into_iter().collect(),
        None => host.checked(name::dns1123_subdomain),
    }
}

fn http_path(path: &Field<'_>) -> Errors {
    let (kind, text) = (path.get("pathType"), path.get("path"));
    let mut errors = match kind.exists() {
        true => kind.one_of(&["Exact", "ImplementationSpecific", "Prefix"]),
        false => vec![kind.required("pathType must be specified")],
    };
    let strict = matches!(kind.text(), "Exact" | "Prefix");
    if !text.text().starts_with('/') && (strict || !text.is_empty()) {
        errors.push(text.invalid("must be an absolute path"));
    } else if strict && ["//", "/./", "/../", "%2f", "%2F"].iter().any(|bad| text.text().contains(bad)) {
        errors.push(text.invalid("must not contain '//', '/./', '/../' or an escaped '/'"));
    }
    errors.extend(backend(&path.get("backend")));
    errors
}

fn backend(backend: &Field<'_>) -> Errors {
    let (service, resource) = (backend.get("service"), backend.get("resource"));
    match (service.exists(), resource.exists()) {
        (true, true) => return vec![backend.invalid("cannot set both resource and service backends")],
        (false, false) => return vec![backend.required("resource or service backend is required")],
        (false, true) => return resource.get("kind").present(),
        (true, false) => {}
    }
    let mut errors = service.get("name").named(name::dns1035_label);
    let (number, port) = (service.at("port.number"), service.at("port.name"));
    match (number.is_empty(), port.is_empty()) {
        (false, false) => errors.push(service.invalid("cannot set both port name & port number")),
        (true, true) => errors.push(service.required("port name or number is required")),
        (false, true) => errors.extend(number.between(1, 65535)),
        (true, false) => errors.extend(port.checked(name::port_name)),
    }
    errors
}

/// The spec of a NetworkPolicy.
pub(super) fn policy(spec: &Field<'_>) -> Errors {
    let mut errors = label_selector(&spec.get("podSelector"));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(direction).items() {
            errors.extend(rule.get("ports").items().flat_map(|port| policy_port(&port)));
            errors.extend(rule.get(peers).items().flat_map(|peer| policy_peer(&peer)));
        }
    }
    let types = spec.get("policyTypes");
    errors.extend(types.items().flat_map(|kind| kind.one_of(&["Egress", "Ingress"])));
    if types.items().count() > 2 {
        errors.push(types.invalid("may not specify more than two policyTypes"));
    }
    errors
}

fn policy_port(port: &Field<'_>) -> Errors {
    let (number, end) = (port.get("port"), port.get("endPort"));
    let mut errors = port.get("protocol").one_of(&["SCTP", "TCP", "UDP"]);
    if number.exists() {
        errors.extend(port_or_name(&number));
    }
    match (end.int(), number.int()) {
        (None, _) => {}
        (Some(end_port), Some(start)) if end_port < start => {
            errors.push(end.invalid("must be greater than or equal to `port`"));
        }
        (Some(_), Some(_)) => errors.extend(end.between(1, 65535)),
        (Some(_), None) if number.exists() => {
            errors.push(end.invalid("may not be specified when `port` is non-numeric"));
        }
        (Some(_), None) => errors.push(end.invalid("may not be specified when `port` is not specified")),
    }
    errors
}

fn policy_peer(peer: &Field<'_>) -> Errors {
    let (pods, namespaces, block) =
        (peer.get("podSelector"), peer.get("namespaceSelector"), peer.get("ipBlock"));
    let selects = pods.exists() || namespaces.exists();
    let mut errors = label_selector(&pods);
    errors.extend(label_selector(&namespaces));
    match (selects, block.exists()) {
        (true, true) => errors.push(peer.forbidden("may not specify both ipBlock and another peer")),
        (false, false) => errors.push(peer.required("must specify a peer")),
        (false, true) => errors.extend(ip_block(&block)),
        (true, false) => {}
    }
    errors
}

fn ip_block(block: &Field<'_>) -> Errors {
    let cidr = block.get("cidr");
    let Some((network, bits)) = parse_cidr(cidr.text()) else {
        return match cidr.is_empty() {
            true => vec![cidr.required("")],
            false => vec![cidr.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")],
        };
    };
    let inside = |text: &str| {
        parse_cidr(text).is_some_and(|(address, longer)| longer > bits && same_bits(network, address, bits))
    };
    let outside = |except: &Field<'_>| !inside(except.text());
    let excepts = block.get("except");
    excepts
        .items()
        .filter(outside)
        .map(|except| except.invalid("must be a strict subset of `cidr`"))
        .collect()
}

/// An address as 128 bits (IPv4 in front) and the length of the prefix.
fn parse_cidr(text: &str) -> Option<((u128, bool), u32)> {
    let (address, bits) = text.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    match address.parse().ok()? {
        std::net::IpAddr::V4(v4) if bits <= 32 => Some(((u128::from(v4.to_bits()) << 96, false), bits)),
        std::net::IpAddr::V6(v6) if bits <= 128 => Some(((v6.to_bits(), true), bits)),
        _ => None,
    }
}

fn same_bits((a, a_six): (u128, bool), (b, b_six): (u128, bool), bits: u32) -> bool {
    a_six == b_six && (bits == 0 || (a ^ b) >> (128 - bits) == 0)
}

/// An EndpointSlice.
pub(super) fn endpoint_slice(root: &Field<'_>) -> Errors {
    let kind = root.get("addressType");
    let mut errors = kind.present();
    errors.extend(kind.one_of(&["FQDN", "IPv4", "IPv6"]));
    let endpoints = root.get("endpoints");
    if endpoints.items().count() > MAX_ENDPOINTS {
        errors.push(FieldError::too_many(&endpoints.path, endpoints.items().count(), MAX_ENDPOINTS));
    }
    for endpoint in endpoints.items() {
        errors.extend(endpoint_addresses(&endpoint.get("addresses"), kind.text()));
        errors.extend(endpoint.get("hostname").checked(name::dns1123_label));
    }
    let mut names = std::collections::BTreeSet::new();
    for port in root.get("ports").items() {
        errors.extend(port.get("name").checked(name::dns1123_label));
        if !names.insert(port.get("name").text()) {
            errors.push(port.get("name").duplicate());
        }
        errors.extend(port.get("protocol").one_of(&["SCTP", "TCP", "UDP"]));
        errors.extend(port.get("port").between(1, 65535));
    }
    errors
}

fn endpoint_addresses(addresses: &Field<'_>, kind: &str) -> Errors {
    let count = addresses.items().count();
    if count == 0 {
        return vec![addresses.required("must contain at least 1 address")];
    }
    if count > MAX_ADDRESSES {
        return vec![FieldError::too_many(&addresses.path, count, MAX_ADDRESSES)];
    }
    let fits = |text: &str| match kind {
        "IPv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "IPv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        _ => name::dns1123_subdomain(text).is_ok(),
    };
    let wrong = addresses.items().filter(|address| !fits(address.text()));
    wrong.map(|address| address.invalid(format!("must be a valid {kind} address"))).collect()
}

/// A budget, claim or slice that belongs to another kind of address is another slice.
pub(super) fn endpoint_slice_update(new: &Field<'_>, old: &Field<'_>) -> Errors {
    super::field::same(&new.get("addressType"), &old.get("addressType"))
}
