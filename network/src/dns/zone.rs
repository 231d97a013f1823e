//! What the cluster's names mean: Kubernetes' DNS specification 1.1.0, with CoreDNS 1.12's choices where
//! it leaves some (names of pods without a hostname, answers about namespaces).

use std::net::Ipv4Addr;
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::service::plan::is_ready;

/// For how many seconds an answer may be kept (CoreDNS' default for this zone is 5).
pub const TTL: u32 = 5;
/// An ExternalName may lead to another one; more than so many steps are a circle.
const CNAME_STEPS: usize = 8;

/// What names are answered from.
pub trait View: Send + Sync {
    /// A Service.
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    /// The slices of a Service.
    fn slices(&self, namespace: &str, name: &str) -> Vec<Arc<EndpointSlice>>;
    /// The Service with this cluster address.
    fn service_at(&self, ip: Ipv4Addr) -> Option<Arc<Service>>;
    /// The slices with a pod of this address.
    fn slices_at(&self, ip: Ipv4Addr) -> Vec<Arc<EndpointSlice>>;
    /// If the namespace has any Service.
    fn has_namespace(&self, namespace: &str) -> bool;
}

/// What is known about a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// These records; none if the name exists without any of the kind that was asked for.
    Found {
        /// Answers.
        answers: Vec<Record>,
        /// What the client would ask for next.
        additionals: Vec<Record>,
    },
    /// An alias of a name that isn't the cluster's: ask for that one.
    Alias(Vec<Record>, Name),
    /// The name doesn't exist.
    NoName,
    /// The name isn't the cluster's.
    NotOurs,
}

impl Reply {
    fn records(answers: Vec<Record>) -> Self {
        Self::Found { answers, additionals: Vec::new() }
    }

    fn nothing() -> Self {
        Self::records(Vec::new())
    }
}

/// The names of one cluster.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Such as `cluster.local.`.
    pub origin: Name,
}

/// A name below the zone, its labels from right to left in lower case.
struct Labels(Vec<String>);

impl Zone {
    /// The answer to one question.
    pub fn answer(&self, view: &dyn View, name: &Name, kind: RecordType) -> Reply {
        if let Some(ip) = reversed(name) {
            return self.pointer(view, name, ip, kind);
        }
        if !self.origin.zone_of(name) {
            return Reply::NotOurs;
        }
        let labels = self.labels(name);
        let labels: Vec<&str> = labels.0.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [] => self.apex(kind),
            ["dns-version"] if kind == RecordType::TXT => {
                Reply::records(vec![record(name, RData::TXT(TXT::new(vec!["1.1.0".to_owned()])))])
            }
            ["dns-version" | "svc" | "pod"] => Reply::nothing(),
            ["svc", namespace] if view.has_namespace(namespace) => Reply::nothing(),
            ["svc", namespace, service] => self.service(view, name, namespace, service, kind),
            ["svc", namespace, service, host] => self.host(view, name, (namespace, service), host, kind),
            ["svc", namespace, service, protocol, port] => {
                self.ports(view, name, (namespace, service), protocol, port, kind)
            }
            ["pod", _, dashed] => dashed_address(dashed).map_or(Reply::NoName, |ip| address(name, ip, kind)),
            _ => Reply::NoName,
        }
    }

    /// The record that tells how long a "no" may be kept.
    pub fn authority(&self) -> Record {
        let server = self.below("ns.dns");
        let soa = SOA::new(server, self.below("hostmaster"), 1, 7200, 1800, 86_400, TTL);
        record(&self.origin, RData::SOA(soa))
    }

    fn apex(&self, kind: RecordType) -> Reply {
        match kind {
            RecordType::SOA => Reply::records(vec![self.authority()]),
            RecordType::NS => Reply::records(vec![record(&self.origin, RData::NS(NS(self.below("ns.dns"))))]),
            _ => Reply::nothing(),
        }
    }

    fn service(
        &self,
        view: &dyn View,
        name: &Name,
        namespace: &str,
        service: &str,
        kind: RecordType,
    ) -> Reply {
        let Some(found) = view.service(namespace, service) else { return Reply::NoName };
        if let Some(target) = external_name(&found) {
            return self.alias(view, name, target, kind);
        }
        if let Some(ip) = cluster_ip(&found) {
            return address(name, ip, kind);
        }
        let ips: Vec<Ipv4Addr> = ready(&view.slices(namespace, service)).map(|(_, ip)| ip).collect();
        addresses(name, ips, kind)
    }

    /// Leads to another name, which is answered, too, as resolvers of programs expect it.
    fn alias(&self, view: &dyn View, name: &Name, target: &str, kind: RecordType) -> Reply {
        let Ok(target) = Name::from_utf8(format!("{}.", target.trim_end_matches('.'))) else {
            return Reply::NoName;
        };
        let mut chain = vec![record(name, RData::CNAME(CNAME(target.clone())))];
        if kind == RecordType::CNAME {
            return Reply::records(chain);
        }
        let mut next = target;
        for _ in 0..CNAME_STEPS {
            let Some(further) = self.external(view, &next) else { break };
            chain.push(record(&next, RData::CNAME(CNAME(further.clone()))));
            next = further;
        }
        match self.direct(view, &next, kind) {
            Reply::Found { answers, .. } => Reply::records(chain.into_iter().chain(answers).collect()),
            Reply::NotOurs => Reply::Alias(chain, next),
            Reply::NoName | Reply::Alias(..) => Reply::records(chain),
        }
    }

    /// Where this name leads if it is an ExternalName of ours.
    fn external(&self, view: &dyn View, name: &Name) -> Option<Name> {
        if !self.origin.zone_of(name) {
            return None;
        }
        let labels = self.labels(name).0;
        let [svc, namespace, service] = labels.as_slice() else { return None };
        let found = view.service(namespace, service).filter(|_| svc == "svc")?;
        Name::from_utf8(format!("{}.", external_name(&found)?.trim_end_matches('.'))).ok()
    }

    /// The answer for a name that isn't an alias; an alias that is left is a circle.
    fn direct(&self, view: &dyn View, name: &Name, kind: RecordType) -> Reply {
        match self.external(view, name) {
            Some(_) => Reply::NoName,
            None => self.answer(view, name, kind),
        }
    }

    /// One pod of a headless Service.
    fn host(
        &self,
        view: &dyn View,
        name: &Name,
        (namespace, service): (&str, &str),
        host: &str,
        kind: RecordType,
    ) -> Reply {
        let slices = headless_slices(view, namespace, service);
        let ips: Vec<Ipv4Addr> = ready(&slices)
            .filter(|(endpoint, ip)| host_name(endpoint, *ip) == host)
            .map(|(_, ip)| ip)
            .collect();
        if ips.is_empty() { Reply::NoName } else { addresses(name, ips, kind) }
    }

    /// `_port._protocol.service`: where the port is.
    fn ports(
        &self,
        view: &dyn View,
        name: &Name,
        (namespace, service): (&str, &str),
        protocol: &str,
        port: &str,
        kind: RecordType,
    ) -> Reply {
        let (Some(protocol), Some(port)) = (protocol.strip_prefix('_'), port.strip_prefix('_')) else {
            return Reply::NoName;
        };
        let Some(found) = view.service(namespace, service) else { return Reply::NoName };
        let target = self.below(&format!("{service}.{namespace}.svc"));
        let places = match cluster_ip(&found) {
            Some(ip) => {
                service_port(&found, protocol, port).map(|number| (number, target, ip)).into_iter().collect()
            }
            None => pod_ports(&headless_slices(view, namespace, service), protocol, port, &target),
        };
        match (places.is_empty(), kind) {
            (true, _) => Reply::NoName,
            (false, RecordType::SRV) => srv(name, &places),
            (false, _) => Reply::nothing(),
        }
    }

    fn pointer(&self, view: &dyn View, name: &Name, ip: Ipv4Addr, kind: RecordType) -> Reply {
        let targets = self.names_of(view, ip);
        match (targets.is_empty(), kind) {
            (true, _) => Reply::NotOurs,
            (false, RecordType::PTR) => Reply::records(
                targets.into_iter().map(|target| record(name, RData::PTR(PTR(target)))).collect(),
            ),
            (false, _) => Reply::nothing(),
        }
    }

    fn names_of(&self, view: &dyn View, ip: Ipv4Addr) -> Vec<Name> {
        if let Some(service) = view.service_at(ip) {
            let (namespace, name) = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref());
            return vec![self.below(&format!(
                "{}.{}.svc",
                name.unwrap_or_default(),
                namespace.unwrap_or_default()
            ))];
        }
        let named = |slice: &Arc<EndpointSlice>| {
            let (namespace, service) = crate::service::plan::service_of(slice)?;
            view.service(namespace, service).filter(|service| cluster_ip(service).is_none())?;
            let here = std::slice::from_ref(slice);
            let (endpoint, _) = ready(here).find(|(_, address)| *address == ip)?;
            Some(self.below(&format!("{}.{service}.{namespace}.svc", host_name(endpoint, ip))))
        };
        view.slices_at(ip).iter().filter_map(named).collect()
    }

    fn below(&self, labels: &str) -> Name {
        // Labels come from names that the API server has validated.
        Name::from_utf8(labels).and_then(|name| name.append_domain(&self.origin)).unwrap_or_default()
    }

    fn labels(&self, name: &Name) -> Labels {
        let own = usize::from(name.num_labels()) - usize::from(self.origin.num_labels());
        let labels = name.iter().take(own).map(|label| String::from_utf8_lossy(label).to_lowercase());
        Labels(labels.collect::<Vec<_>>().into_iter().rev().collect())
    }
}

fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    spec.external_name.as_deref().filter(|_| spec.type_.as_deref() == Some("ExternalName"))
}

fn cluster_ip(service: &Service) -> Option<Ipv4Addr> {
    service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()
}

fn headless_slices(view: &dyn View, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
    let headless = view.service(namespace, service).is_some_and(|service| cluster_ip(&service).is_none());
    if headless { view.slices(namespace, service) } else { Vec::new() }
}

fn ready(slices: &[Arc<EndpointSlice>]) -> impl Iterator<Item = (&Endpoint, Ipv4Addr)> {
    let endpoints = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .filter(|endpoint| is_ready(endpoint));
    endpoints.filter_map(|endpoint| Some((endpoint, endpoint.addresses.first()?.parse().ok()?)))
}

/// Its hostname, or its address with dashes, as CoreDNS names pods that have none.
fn host_name(endpoint: &Endpoint, ip: Ipv4Addr) -> String {
    endpoint
        .hostname
        .clone()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| ip.to_string().replace('.', "-"))
}

fn dashed_address(text: &str) -> Option<Ipv4Addr> {
    text.replace('-', ".").parse().ok()
}

fn service_port(service: &Service, protocol: &str, port: &str) -> Option<u16> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let found = ports.iter().find(|candidate| {
        is_port(candidate.name.as_deref(), candidate.protocol.as_deref(), protocol, port)
    })?;
    u16::try_from(found.port).ok()
}

fn is_port(name: Option<&str>, protocol: Option<&str>, wanted_protocol: &str, wanted: &str) -> bool {
    name == Some(wanted) && protocol.unwrap_or("TCP").eq_ignore_ascii_case(wanted_protocol)
}

fn pod_ports(
    slices: &[Arc<EndpointSlice>],
    protocol: &str,
    port: &str,
    service: &Name,
) -> Vec<(u16, Name, Ipv4Addr)> {
    let mut places = Vec::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten();
        let numbers = ports
            .filter(|candidate| {
                is_port(candidate.name.as_deref(), candidate.protocol.as_deref(), protocol, port)
            })
            .filter_map(|candidate| u16::try_from(candidate.port?).ok());
        for number in numbers {
            places.extend(ready(std::slice::from_ref(slice)).filter_map(|(endpoint, ip)| {
                let host = Name::from_utf8(host_name(endpoint, ip)).ok()?;
                Some((number, host.append_domain(service).ok()?, ip))
            }));
        }
    }
    places
}

fn srv(name: &Name, places: &[(u16, Name, Ipv4Addr)]) -> Reply {
    let answer = |(port, target, _): &(u16, Name, Ipv4Addr)| {
        record(name, RData::SRV(SRV::new(0, 100, *port, target.clone())))
    };
    let additional = |(_, target, ip): &(u16, Name, Ipv4Addr)| record(target, RData::A(A(*ip)));
    Reply::Found {
        answers: places.iter().map(answer).collect(),
        additionals: places.iter().map(additional).collect(),
    }
}

fn address(name: &Name, ip: Ipv4Addr, kind: RecordType) -> Reply {
    addresses(name, vec![ip], kind)
}

fn addresses(name: &Name, ips: Vec<Ipv4Addr>, kind: RecordType) -> Reply {
    match kind {
        RecordType::A | RecordType::ANY => {
            Reply::records(ips.into_iter().map(|ip| record(name, RData::A(A(ip)))).collect())
        }
        _ => Reply::nothing(),
    }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

/// The address that a name of `in-addr.arpa` asks about.
fn reversed(name: &Name) -> Option<Ipv4Addr> {
    let text = name.to_ascii().to_lowercase();
    let digits = text.strip_suffix(".in-addr.arpa.")?;
    digits.split('.').rev().collect::<Vec<_>>().join(".").parse().ok()
}
