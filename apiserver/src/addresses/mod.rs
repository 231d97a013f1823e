//! Addresses and node ports of Services.
//!
//! What a Service gets is written in the transaction that writes the Service: an IPAddress object for its
//! cluster IP (as upstream records it), a key of our own for each node port. Both are written on the
//! condition that nobody has them, so two API servers never give one thing out twice, and go in the
//! transaction in which the Service goes or stops needing them.
//!
//! Where the search begins is a hash of the Service's name: concurrent creations don't meet, and the same
//! manifests get the same addresses in every new cluster.

mod claims;
mod fields;

use std::net::IpAddr;

use api::cidr::Cidr;
use api::object;
use api::status::{FieldError, Status};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use store::kv::Revision;

use crate::admission::Admitted;
use crate::error::Outcome;
use crate::storage::key::{self, Key};
use crate::storage::object::encode;
use crate::storage::{Also, decode};
use crate::verbs::Call;

use claims::Claims;

/// Addresses at the beginning of a range that are only given to who asks for them, at most (upstream's band
/// for static addresses).
const STATIC_BAND: u64 = 256;
/// Addresses or ports that are tried before a range counts as full: whole node port ranges, and enough of a
/// large address range.
const MOST_TRIES: u64 = 65_536;

/// Whether a call writes a Service's specification.
fn concerns(call: &Call<'_>) -> bool {
    call.resource.group.is_empty() && call.resource.kind == "Service" && call.info.subresource.is_none()
}

/// Gives a new Service, or the new state of one (`old` is null if it is new), what it needs.
///
/// # Errors
/// 422 if it asks for what it can't have, in upstream's words; 500 if a range is full.
pub async fn assign(call: &Call<'_>, new: &mut Value, old: &Value, admitted: &mut Admitted) -> Outcome<()> {
    if !concerns(call) || !new["spec"].is_object() {
        return Ok(());
    }
    fields::carry_over(new, old);
    fields::check_families(new).map_err(|error| invalid(new, error))?;
    let held = Claims::of(old);
    if Claims::wants_address(new) {
        set_address(call, new, &held).await?;
    }
    set_node_ports(call, new, &held).await?;
    let wanted = Claims::of(new);
    for address in wanted.addresses.iter().filter(|address| !held.addresses.contains(address)) {
        admitted.also.push(claim_address(call, new, *address)?);
    }
    for port in wanted.ports.difference(&held.ports) {
        let holder = format!("{}/{}", object::namespace(new), object::name(new));
        let value = Some(Bytes::from(holder));
        admitted.also.push(Also { key: key::node_port(*port), expected: Revision(0), value });
    }
    admitted.also.extend(give_back(call, &held, &wanted).await?);
    Ok(())
}

/// What goes with a Service.
pub async fn release(call: &Call<'_>, old: &Value) -> Outcome<Vec<Also>> {
    if call.resource.group.is_empty() && call.resource.kind == "Service" {
        return give_back(call, &Claims::of(old), &Claims::default()).await;
    }
    Ok(Vec::new())
}

/// The deletions of what is held and no longer wanted, as far as it is recorded.
async fn give_back(call: &Call<'_>, held: &Claims, wanted: &Claims) -> Outcome<Vec<Also>> {
    let addresses = held.addresses.iter().filter(|address| !wanted.addresses.contains(address));
    let keys = addresses.filter_map(|address| address_key(call, *address));
    let keys = keys.chain(held.ports.difference(&wanted.ports).map(|port| key::node_port(*port)));
    let mut also = Vec::new();
    for key in keys {
        if let Some(record) = call.storage().read(&key).await? {
            also.push(Also { key, expected: record.revision, value: None });
        }
    }
    Ok(also)
}

async fn set_address(call: &Call<'_>, service: &mut Value, held: &Claims) -> Outcome<()> {
    let ranges = ranges(call).await?;
    let given = service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    match given.parse::<IpAddr>() {
        Ok(address) if held.addresses.contains(&address) => Ok(()),
        Ok(address) => {
            let refuse = |why: String| {
                let list = service["spec"]["clusterIPs"].clone();
                invalid(
                    service,
                    FieldError::invalid(
                        "spec.clusterIPs",
                        list,
                        format!("failed to allocate IP {address}: {why}"),
                    ),
                )
            };
            if !ranges.iter().any(|range| range.contains(address)) {
                let texts: Vec<String> = ranges.iter().map(Cidr::to_string).collect();
                let why = format!(
                    "the provided network does not match the current range: the range of valid IPs is {}",
                    texts.join(", ")
                );
                return Err(refuse(why).into());
            }
            match is_taken(call, address_key(call, address)).await? {
                true => Err(refuse("provided IP is already allocated".to_owned()).into()),
                false => Ok(()),
            }
        }
        // No text is an address to be found; any other text is refused by validation.
        Err(_) if given.is_empty() => {
            let address = free_address(call, service, &ranges).await?.to_string();
            service["spec"]["clusterIP"] = json!(address);
            service["spec"]["clusterIPs"] = json!([address]);
            Ok(())
        }
        Err(_) => Ok(()),
    }
}

/// The ranges that addresses may come from: those of the ServiceCIDRs that aren't on their way out.
async fn ranges(call: &Call<'_>) -> Outcome<Vec<Cidr>> {
    let Some(resource) = call.server.registry.find("networking.k8s.io", "v1", "servicecidrs") else {
        return Ok(vec![call.server.config.service_range]);
    };
    let all = Key::Resource(&resource);
    call.storage().catch_up(&all.to_bytes()).await?;
    let snapshot = call.storage().cache.snapshot(&all.to_bytes(), &all.range());
    let mut ranges = Vec::new();
    for stored in snapshot.objects {
        let cidr = decode(&stored)?;
        let texts = cidr["spec"]["cidrs"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if !object::is_deleting(&cidr) {
            ranges.extend(texts.filter_map(Cidr::parse).filter(|range| !range.is_ipv6()));
        }
    }
    // The cluster's own comes first, whatever the others are called.
    let own = call.server.config.service_range;
    ranges.sort_by_key(|range| *range != own);
    Ok(if ranges.is_empty() { vec![own] } else { ranges })
}

async fn free_address(call: &Call<'_>, service: &Value, ranges: &[Cidr]) -> Outcome<IpAddr> {
    if let Some(resource) = call.server.registry.find("networking.k8s.io", "v1", "ipaddresses") {
        call.storage().catch_up(&Key::Resource(&resource).to_bytes()).await?;
    }
    for range in ranges {
        for number in candidates(range.size(), start_of(service, "address")) {
            let address = range.nth(number);
            if !is_taken_here(call, address_key(call, address).as_ref()) {
                return Ok(address);
            }
        }
    }
    let why = "failed to allocate a serviceIP: range is full; delete Services or add a ServiceCIDR";
    Err(Status::internal(why).into())
}

/// Numbers of addresses in a range in the order in which they are tried: neither the first nor the last, and
/// those for static use last.
fn candidates(size: u64, start: u64) -> impl Iterator<Item = u64> {
    let band = (size / 16).clamp(16, STATIC_BAND).min(size / 2);
    let (low, high) = (band.max(1), size.saturating_sub(1).max(1));
    let width = high.saturating_sub(low);
    let upper = (0..width.min(MOST_TRIES)).map(move |step| low + (start % width.max(1) + step) % width);
    upper.chain(1..low.min(high))
}

async fn set_node_ports(call: &Call<'_>, service: &mut Value, held: &Claims) -> Outcome<()> {
    let wants = Claims::wants_node_ports(service);
    let mut errors = Vec::new();
    let mut given: Vec<(String, u16)> = Vec::new();
    let count = service["spec"]["ports"].as_array().map_or(0, Vec::len);
    for index in 0..count {
        let path = format!("spec.ports[{index}].nodePort");
        let port = &service["spec"]["ports"][index];
        let number = port["nodePort"].as_u64().unwrap_or(0);
        let same = format!("{}", port["port"]);
        let mine = given.iter().find(|(port, _)| *port == same).map(|(_, number)| *number);
        match (number, mine) {
            (0, _) if !wants => continue,
            // The same port under another protocol gets the same node port.
            (0, Some(mine)) => service["spec"]["ports"][index]["nodePort"] = json!(mine),
            (0, None) => {
                let free = free_node_port(call, service, index, &given).await?;
                service["spec"]["ports"][index]["nodePort"] = json!(free);
                given.push((same, free));
            }
            (number, _) => match claimable(call, number, held, &given).await? {
                Ok(number) => given.push((same, number)),
                Err(why) => errors.push(FieldError::invalid(path, number, why)),
            },
        }
    }
    set_health_check_port(call, service, held, &given).await?;
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid("Service", "", object::name(service), errors).into()),
    }
}

/// A load balancer that keeps to local endpoints asks nodes whether they have any.
async fn set_health_check_port(
    call: &Call<'_>,
    service: &mut Value,
    held: &Claims,
    given: &[(String, u16)],
) -> Outcome<()> {
    if !Claims::wants_health_check(service) {
        return Ok(());
    }
    match service["spec"]["healthCheckNodePort"].as_u64().unwrap_or(0) {
        0 => {
            let free = free_node_port(call, service, usize::MAX, given).await?;
            service["spec"]["healthCheckNodePort"] = json!(free);
        }
        number => {
            if let Err(why) = claimable(call, number, held, given).await? {
                return Err(
                    invalid(service, FieldError::invalid("spec.healthCheckNodePort", number, why)).into()
                );
            }
        }
    }
    Ok(())
}

/// A node port that a Service names; `Err` with the reason if it can't have it.
async fn claimable(
    call: &Call<'_>,
    number: u64,
    held: &Claims,
    given: &[(String, u16)],
) -> Outcome<Result<u16, String>> {
    let range = &call.server.config.node_ports;
    let Some(port) = u16::try_from(number).ok().filter(|port| range.contains(port)) else {
        return Ok(Err(format!(
            "provided port is not in the valid range. The range of valid ports is {}-{}",
            range.start(),
            range.end()
        )));
    };
    let mine = held.ports.contains(&port) || given.iter().any(|(_, other)| *other == port);
    match !mine && is_taken(call, Some(key::node_port(port))).await? {
        true => Ok(Err("provided port is already allocated".to_owned())),
        false => Ok(Ok(port)),
    }
}

async fn free_node_port(
    call: &Call<'_>,
    service: &Value,
    index: usize,
    given: &[(String, u16)],
) -> Outcome<u16> {
    let range = &call.server.config.node_ports;
    let (low, width) = (u64::from(*range.start()), range.len() as u64);
    let start = start_of(service, &index.to_string());
    for step in 0..width.min(MOST_TRIES) {
        let port = u16::try_from(low + (start + step) % width).unwrap_or(*range.end());
        let mine = given.iter().any(|(_, other)| *other == port);
        if !mine && !is_taken(call, Some(key::node_port(port))).await? {
            return Ok(port);
        }
    }
    Err(Status::internal("failed to allocate a nodePort: range is full").into())
}

/// Where the search for `what` begins.
fn start_of(service: &Value, what: &str) -> u64 {
    let text = format!("{}/{}/{what}", object::namespace(service), object::name(service));
    let digest = Sha256::digest(text);
    digest.iter().take(7).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn address_key(call: &Call<'_>, address: IpAddr) -> Option<Bytes> {
    let resource = call.server.registry.find("networking.k8s.io", "v1", "ipaddresses")?;
    Some(Key::Object(&resource, "", &address.to_string()).to_bytes())
}

/// As far as this server knows; the transaction asks again.
fn is_taken_here(call: &Call<'_>, key: Option<&Bytes>) -> bool {
    key.is_some_and(|key| is_pending(call, key) || call.storage().cache.get(key).is_some())
}

/// As the store knows: what was given back a moment ago is free.
async fn is_taken(call: &Call<'_>, key: Option<Bytes>) -> Outcome<bool> {
    match key {
        Some(key) if is_pending(call, &key) => Ok(true),
        Some(key) => Ok(call.storage().read(&key).await?.is_some()),
        None => Ok(false),
    }
}

/// An earlier step of the same transaction takes it.
fn is_pending(call: &Call<'_>, key: &Bytes) -> bool {
    call.batch.is_some_and(|batch| batch.also(key).is_some())
}

/// The record that an address is this Service's.
fn claim_address(call: &Call<'_>, service: &Value, address: IpAddr) -> Outcome<Also> {
    let key = address_key(call, address).ok_or_else(|| Status::internal("IPAddress isn't served"))?;
    let record = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "uid": uuid::Uuid::new_v4().to_string(),
            "generation": 1,
            "creationTimestamp": api::time::rfc3339(Timestamp::now()),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": if address.is_ipv6() { "IPv6" } else { "IPv4" },
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {
            "group": "",
            "resource": "services",
            "namespace": object::namespace(service),
            "name": object::name(service),
        }},
    });
    Ok(Also { key, expected: Revision(0), value: Some(encode(&record)) })
}

fn invalid(service: &Value, error: FieldError) -> Status {
    Status::invalid("Service", "", object::name(service), vec![error])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_but_the_ends_is_tried_once() {
        for size in [4, 16, 256, 4096] {
            let mut tried: Vec<u64> = candidates(size, 12_345).collect();
            let first = tried[0];
            assert!(first >= (size / 16).clamp(16, STATIC_BAND).min(size / 2), "static ones come last");
            tried.sort_unstable();
            assert_eq!(tried, (1..size - 1).collect::<Vec<_>>(), "{size}");
        }
        assert_eq!(candidates(1, 7).count(), 0);
        assert_eq!(candidates(2, 7).count(), 0);
    }
}
