//! From Services and EndpointSlices to routes: which address and port leads to which pods.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// The label by which a slice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// How long a client stays with its pod when the Service doesn't say (upstream's default, three hours).
const DEFAULT_AFFINITY: Duration = Duration::from_secs(10_800);

/// A transport protocol that Services know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// As nftables spells it.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// What the API calls so; TCP if it says nothing.
    pub fn of(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `namespace/name` and the port's name: what the rules are named after.
    pub id: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The port of the Service's addresses.
    pub port: u16,
    /// The cluster's address of the Service.
    pub cluster_ip: Ipv4Addr,
    /// Addresses outside of the cluster under which the Service is reached.
    pub external_ips: Vec<Ipv4Addr>,
    /// The port on every node.
    pub node_port: Option<u16>,
    /// How long a client stays with its pod.
    pub affinity: Option<Duration>,
    /// Where connections from within the cluster go.
    pub internal: Vec<SocketAddrV4>,
    /// Where connections from outside go.
    pub external: External,
}

/// Where connections from outside of the cluster go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum External {
    /// To the same pods, in the node's name, so that the answers come back through it.
    AsInternal,
    /// To this node's own pods only, in the client's name (`externalTrafficPolicy: Local`).
    Local(Vec<SocketAddrV4>),
}

/// The routes of all Services, as this node sees them.
pub fn routes<'a>(
    node: &str,
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> Vec<Route> {
    let by_service = by_service(slices);
    let mut routes: Vec<Route> = services
        .into_iter()
        .flat_map(|service| {
            let slices = key(service).and_then(|key| by_service.get(&key));
            of_service(node, service, slices.map(Vec::as_slice).unwrap_or_default())
        })
        .collect();
    routes.sort_by(|a, b| a.id.cmp(&b.id));
    routes
}

/// The slices of each Service, by its namespace and name.
pub(super) fn by_service<'a>(
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for slice in slices {
        if let Some(key) = service_of(slice) {
            found.entry(key).or_default().push(slice);
        }
    }
    found
}

/// The Service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<(&str, &str)> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some((slice.metadata.namespace.as_deref()?, name))
}

/// Its namespace and name.
pub(super) fn key(service: &Service) -> Option<(&str, &str)> {
    Some((service.metadata.namespace.as_deref()?, service.metadata.name.as_deref()?))
}

fn of_service(node: &str, service: &Service, slices: &[&EndpointSlice]) -> Vec<Route> {
    let Some(spec) = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName"))
    else {
        return Vec::new();
    };
    let Some(cluster_ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()) else {
        return Vec::new(); // headless: its names lead to its pods
    };
    let Some((namespace, name)) = key(service) else { return Vec::new() };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let route = |port: &ServicePort| {
        let id = format!("{namespace}/{name}/{}", port.name.as_deref().unwrap_or_default());
        Some(Route {
            id,
            protocol: Protocol::of(port.protocol.as_deref())?,
            port: u16::try_from(port.port).ok()?,
            cluster_ip,
            external_ips: external_ips(service),
            node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0),
            affinity: affinity(spec),
            internal: internal(node, spec, port, slices),
            external: external(node, spec, port, slices),
        })
    };
    ports.iter().filter_map(route).collect()
}

fn affinity(spec: &ServiceSpec) -> Option<Duration> {
    (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        let seconds = config.and_then(|client| client.timeout_seconds).and_then(|s| u64::try_from(s).ok());
        seconds.map_or(DEFAULT_AFFINITY, Duration::from_secs)
    })
}

fn external_ips(service: &Service) -> Vec<Ipv4Addr> {
    let listed = service.spec.iter().flat_map(|spec| spec.external_ips.iter().flatten()).cloned();
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.into_iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    listed.chain(ingress.filter_map(|ingress| ingress.ip.clone())).filter_map(|ip| ip.parse().ok()).collect()
}

fn internal(
    node: &str,
    spec: &ServiceSpec,
    port: &ServicePort,
    slices: &[&EndpointSlice],
) -> Vec<SocketAddrV4> {
    let local = spec.internal_traffic_policy.as_deref() == Some("Local");
    choose(slices, port, |endpoint| !local || is_on(endpoint, node))
}

fn external(node: &str, spec: &ServiceSpec, port: &ServicePort, slices: &[&EndpointSlice]) -> External {
    match spec.external_traffic_policy.as_deref() {
        Some("Local") => External::Local(choose(slices, port, |endpoint| is_on(endpoint, node))),
        _ => External::AsInternal,
    }
}

/// The endpoint is on this node.
pub(super) fn is_on(endpoint: &Endpoint, node: &str) -> bool {
    endpoint.node_name.as_deref() == Some(node)
}

/// The ready ones; if there are none, those that end but still serve, as upstream has it since 1.26.
fn choose(
    slices: &[&EndpointSlice],
    port: &ServicePort,
    wanted: impl Fn(&Endpoint) -> bool,
) -> Vec<SocketAddrV4> {
    let of = |condition: fn(&Endpoint) -> bool| -> Vec<SocketAddrV4> {
        let mut found: Vec<_> = slices
            .iter()
            .flat_map(|slice| addresses(slice, port, |endpoint| condition(endpoint) && wanted(endpoint)))
            .collect();
        found.sort();
        found.dedup();
        found
    };
    let ready = of(is_ready);
    if ready.is_empty() { of(is_serving) } else { ready }
}

/// Ready unless it says otherwise, as the API defines it.
pub fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn is_serving(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|conditions| conditions.serving).unwrap_or(false)
}

fn addresses(
    slice: &EndpointSlice,
    port: &ServicePort,
    wanted: impl Fn(&Endpoint) -> bool,
) -> Vec<SocketAddrV4> {
    let number = slice.ports.iter().flatten().find_map(|candidate| {
        let same = candidate.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
            && Protocol::of(candidate.protocol.as_deref()) == Protocol::of(port.protocol.as_deref());
        candidate.port.filter(|_| same).and_then(|number| u16::try_from(number).ok())
    });
    let Some(number) = number else { return Vec::new() };
    let endpoints = slice.endpoints.iter().flatten().filter(|endpoint| wanted(endpoint));
    // The first address is the one to use; the API keeps the others for history.
    let ips = endpoints.filter_map(|endpoint| endpoint.addresses.first()?.parse().ok());
    ips.map(|ip| SocketAddrV4::new(ip, number)).collect()
}
