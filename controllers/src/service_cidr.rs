//! ServiceCIDRs: a range of Services' addresses says that it is ready, and isn't gone while a Service has an address
//! that lies in no other range. Upstream's `pkg/controller/servicecidrs` gives the rules.
//!
//! What always holds: no address is left without a range. A range that is being deleted itself saves no other one
//! from waiting (upstream lets two equal ranges that are deleted together go at once).

use crate::{
    plan::{Plan, Target},
    protection,
};
use api::cidr::Cidr;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::networking::v1::{IPAddress, ServiceCIDR, ServiceCIDRStatus},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::ResourceExt;
use std::{net::IpAddr, sync::Arc};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// Label of IPAddresses: who gives them out, and takes them back.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// So long after its deletion began an API server may still take an address out of a range. Upstream: 10 s.
const GRACE: SignedDuration = SignedDuration::from_secs(10);
const READY: &str = "Kubernetes Service CIDR is ready";
const IN_USE: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

/// What a reconcile sees beside its object; only a range that is being deleted needs it.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// All ranges.
    pub ranges: Vec<Arc<ServiceCIDR>>,
    /// All addresses.
    pub addresses: Vec<Arc<IPAddress>>,
}

/// What to do for `range` now.
pub fn reconcile(range: &ServiceCIDR, view: &Snapshot, now: Timestamp) -> Plan {
    let Some(deleted) = &range.metadata.deletion_timestamp else {
        let mut plan = hold(range, || true);
        say(range, "True", "", READY, now, &mut plan);
        return plan;
    };
    let mut plan = Plan::nothing();
    let free_from = deleted.0 + GRACE;
    if leaves_orphans(range, view) {
        say(range, "False", "Terminating", IN_USE, now, &mut plan);
    } else if free_from > now {
        plan.look_again(free_from);
    } else {
        plan = hold(range, || false);
    }
    plan
}

fn hold(range: &ServiceCIDR, is_used: impl FnOnce() -> bool) -> Plan {
    let reasons = ["Services may get addresses of it", "no address depends on it"];
    protection::reconcile(range, FINALIZER, reasons, is_used)
}

fn say(range: &ServiceCIDR, status: &str, reason: &str, message: &str, now: Timestamp, plan: &mut Plan) {
    let old = range.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let known = conditions.iter().position(|condition| condition.type_ == "Ready");
    let since = known.map(|place| conditions.remove(place)).filter(|ready| ready.status == status);
    conditions.push(Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since.map_or(Time(now), |ready| ready.last_transition_time),
        observed_generation: None,
    });
    let new = ServiceCIDRStatus { conditions: Some(conditions) };
    plan.status(Target::of(range), &old, &new, "status");
}

/// True if some Service's address lies in this range and in no other one that stays.
fn leaves_orphans(range: &ServiceCIDR, view: &Snapshot) -> bool {
    let own = cidrs(range);
    let stays = |other: &&Arc<ServiceCIDR>| other.metadata.deletion_timestamp.is_none();
    let others: Vec<Cidr> = view.ranges.iter().filter(stays).flat_map(|other| cidrs(other)).collect();
    let held = view.addresses.iter().filter_map(|address| given_out(address));
    held.into_iter().any(|address| {
        let within = |cidrs: &[Cidr]| cidrs.iter().any(|cidr| gives(cidr, address));
        within(&own) && !within(&others)
    })
}

/// The ranges of a ServiceCIDR: one of each family at most.
fn cidrs(range: &ServiceCIDR) -> Vec<Cidr> {
    let texts = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    texts.filter_map(|text| Cidr::parse(text)).collect()
}

/// The address, if an API server gave it to a Service.
pub fn given_out(address: &IPAddress) -> Option<IpAddr> {
    let is_ours = address.labels().get(MANAGED_BY).is_some_and(|by| by == ALLOCATOR);
    address.metadata.name.as_deref().filter(|_| is_ours)?.parse().ok()
}

/// True if Services may get the address of this range: neither its first one nor, of IPv4, its last.
fn gives(cidr: &Cidr, address: IpAddr) -> bool {
    let is_last = !cidr.is_ipv6() && address == cidr.nth(u64::MAX);
    cidr.contains(address) && address != cidr.nth(0) && !is_last
}

/// True if an address or a range has to do with `range`, which is being deleted.
pub fn concerns(range: &ServiceCIDR, address: IpAddr) -> bool {
    range.metadata.deletion_timestamp.is_some() && cidrs(range).iter().any(|cidr| cidr.contains(address))
}

/// True if both have addresses in common.
pub fn overlap(one: &ServiceCIDR, other: &ServiceCIDR) -> bool {
    let others = cidrs(other);
    let meets = |a: &Cidr, b: &Cidr| a.contains(b.nth(0)) || b.contains(a.nth(0));
    cidrs(one).iter().any(|cidr| others.iter().any(|other| meets(cidr, other)))
}
