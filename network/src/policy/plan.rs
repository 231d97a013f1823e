//! From NetworkPolicies to rules by address, as `networking.k8s.io/v1` documents them.
//!
//! A pod that a policy of a direction selects is isolated in that direction, and may then only do what some
//! rule of some such policy allows. A connection needs both: its source's leave and its destination's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use api::selector::LabelSelector;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::PolicyPod;
use crate::service::plan::Protocol;

/// What the pods of this machine may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// Pods that may only be reached by what their rules allow.
    pub ingress: BTreeMap<Ipv4Addr, Rules>,
    /// Pods that may only reach what their rules allow.
    pub egress: BTreeMap<Ipv4Addr, Rules>,
    /// The addresses of the pods that rules speak of, by what they were selected with.
    pub selected: BTreeMap<String, BTreeSet<Ipv4Addr>>,
}

/// What is allowed: whatever one of them says.
pub type Rules = BTreeSet<Rule>;

/// Something that is allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// With whom.
    pub peer: Peer,
    /// On which ports of the destination; `None` stands for all traffic.
    pub ports: Option<BTreeSet<Ports>>,
}

/// The other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Whoever.
    Anyone,
    /// One of these of [`Isolation::selected`].
    Selected(String),
    /// An address of a block, and of none of the exceptions.
    Block(Block, Vec<Block>),
}

/// Addresses that begin with the same bits; unlike a [`Range`](crate::pod::addresses::Range) one that may be a
/// single address, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    first: u32,
    prefix: u8,
}

impl Block {
    /// Reads an IPv4 block; the others have nothing to say here.
    pub fn parse(text: &str) -> Option<Self> {
        let (ip, prefix) = text.split_once('/')?;
        let ip: Ipv4Addr = ip.parse().ok()?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        Some(Self { first: u32::from(ip) & Self::mask(prefix), prefix })
    }

    fn mask(prefix: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
    }

    /// Whether an address is of the block.
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        u32::from(ip) & Self::mask(self.prefix) == self.first
    }
}

impl std::fmt::Display for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

/// Ports of one protocol, from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// The protocol.
    pub protocol: Protocol,
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

/// What policies are about.
pub struct Cluster<'a> {
    /// All policies.
    pub policies: Vec<&'a NetworkPolicy>,
    /// All pods that have addresses of their own.
    pub pods: Vec<&'a PolicyPod>,
    /// All namespaces.
    pub namespaces: Vec<&'a Namespace>,
}

/// What the pods for which `here` holds may do.
pub fn isolation(cluster: &Cluster<'_>, here: impl Fn(&PolicyPod) -> bool) -> Isolation {
    let mut plan = Planner { cluster, selected: BTreeMap::new() };
    let (mut ingress, mut egress) = (BTreeMap::new(), BTreeMap::new());
    for pod in cluster.pods.iter().filter(|pod| here(pod)) {
        for (direction, isolated) in [(Direction::Ingress, &mut ingress), (Direction::Egress, &mut egress)] {
            if let Some(rules) = plan.rules(pod, direction) {
                isolated.insert(pod.ip, rules);
            }
        }
    }
    Isolation { ingress, egress, selected: plan.selected }
}

struct Planner<'a> {
    cluster: &'a Cluster<'a>,
    selected: BTreeMap<String, BTreeSet<Ipv4Addr>>,
}

/// One rule of a policy, in either direction.
struct Written<'a> {
    namespace: &'a str,
    peers: &'a [NetworkPolicyPeer],
    ports: &'a [NetworkPolicyPort],
}

impl Planner<'_> {
    /// What the pod may do; `None` if no policy of the direction selects it.
    fn rules(&mut self, pod: &PolicyPod, direction: Direction) -> Option<Rules> {
        let cluster = self.cluster;
        let selecting = cluster.policies.iter().filter(|policy| selects(policy, pod, direction));
        let mut found: Option<Rules> = None;
        for policy in selecting {
            let rules = found.get_or_insert_default();
            for written in written(policy, direction) {
                self.allow(&written, pod, direction, rules);
            }
        }
        found
    }

    fn allow(&mut self, written: &Written<'_>, pod: &PolicyPod, direction: Direction, rules: &mut Rules) {
        let named: Vec<(&str, Protocol)> = written.ports.iter().filter_map(name_of).collect();
        let mut ports: BTreeSet<Ports> = written.ports.iter().filter_map(numbers).collect();
        if direction == Direction::Ingress {
            for (name, protocol) in &named {
                ports.extend(pod.named(name, *protocol).map(|port| Ports::one(*protocol, port)));
            }
        }
        for peer in self.peers(written) {
            if direction == Direction::Egress {
                self.allow_named(&peer, &named, rules);
            }
            if written.ports.is_empty() {
                rules.insert(Rule { peer, ports: None });
            } else if !ports.is_empty() {
                rules.insert(Rule { peer, ports: Some(ports.clone()) });
            }
        }
    }

    /// What a name means is the destination's to say: pods that give it different numbers are told apart.
    fn allow_named(&mut self, peer: &Peer, named: &[(&str, Protocol)], rules: &mut Rules) {
        for (name, protocol) in named {
            let mut by_number: BTreeMap<u16, BTreeSet<Ipv4Addr>> = BTreeMap::new();
            for pod in self.cluster.pods.iter().filter(|pod| self.is_peer(peer, pod.ip)) {
                for number in pod.named(name, *protocol) {
                    by_number.entry(number).or_default().insert(pod.ip);
                }
            }
            for (number, pods) in by_number {
                let id = format!("{peer:?} {name} {protocol:?} {number}");
                self.selected.insert(id.clone(), pods);
                let ports = Some(BTreeSet::from([Ports::one(*protocol, number)]));
                rules.insert(Rule { peer: Peer::Selected(id), ports });
            }
        }
    }

    fn is_peer(&self, peer: &Peer, ip: Ipv4Addr) -> bool {
        match peer {
            Peer::Anyone => true,
            Peer::Selected(id) => self.selected.get(id).is_some_and(|pods| pods.contains(&ip)),
            Peer::Block(block, except) => {
                block.contains(ip) && !except.iter().any(|other| other.contains(ip))
            }
        }
    }

    fn peers(&mut self, written: &Written<'_>) -> Vec<Peer> {
        if written.peers.is_empty() {
            return vec![Peer::Anyone];
        }
        written.peers.iter().filter_map(|peer| self.peer(peer, written.namespace)).collect()
    }

    fn peer(&mut self, peer: &NetworkPolicyPeer, namespace: &str) -> Option<Peer> {
        if let Some(block) = &peer.ip_block {
            return of_block(block);
        }
        let pods = selector(peer.pod_selector.as_ref())?;
        let id = match &peer.namespace_selector {
            Some(namespaces) => format!("{:?} {pods:?}", selector(Some(namespaces))?),
            None => format!("{namespace} {pods:?}"),
        };
        if !self.selected.contains_key(&id) {
            let namespaces = self.namespaces(peer.namespace_selector.as_ref(), namespace);
            let found = self.cluster.pods.iter();
            let found =
                found.filter(|pod| namespaces.contains(pod.namespace.as_str()) && pods.matches(&pod.labels));
            let found = found.map(|pod| pod.ip).collect();
            self.selected.insert(id.clone(), found);
        }
        Some(Peer::Selected(id))
    }

    fn namespaces<'n>(&'n self, selecting: Option<&meta::LabelSelector>, own: &'n str) -> BTreeSet<&'n str> {
        let Some(selecting) = selecting else { return BTreeSet::from([own]) };
        let Some(selecting) = selector(Some(selecting)) else { return BTreeSet::new() };
        let none = BTreeMap::new();
        let matches =
            |namespace: &&&Namespace| selecting.matches(namespace.metadata.labels.as_ref().unwrap_or(&none));
        let found = self.cluster.namespaces.iter().filter(matches);
        found.filter_map(|namespace| namespace.metadata.name.as_deref()).collect()
    }
}

impl Ports {
    fn one(protocol: Protocol, port: u16) -> Self {
        Self { protocol, first: port, last: port }
    }
}

/// A selector that isn't there selects everything; one that the API server would refuse, nothing.
fn selector(written: Option<&meta::LabelSelector>) -> Option<LabelSelector> {
    written.map_or_else(|| Some(LabelSelector::everything()), |s| LabelSelector::from_object(s).ok())
}

fn selects(policy: &NetworkPolicy, pod: &PolicyPod, direction: Direction) -> bool {
    let Some(spec) = &policy.spec else { return false };
    policy.metadata.namespace.as_deref() == Some(&pod.namespace)
        && isolates(spec, direction)
        && selector(spec.pod_selector.as_ref()).is_some_and(|pods| pods.matches(&pod.labels))
}

/// Without types a policy is about ingress, and about egress if it has rules for it.
fn isolates(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    let name = match direction {
        Direction::Ingress => "Ingress",
        Direction::Egress => "Egress",
    };
    match spec.policy_types.as_deref() {
        None | Some([]) => direction == Direction::Ingress || spec.egress.iter().flatten().next().is_some(),
        Some(types) => types.iter().any(|written| written == name),
    }
}

fn written(policy: &NetworkPolicy, direction: Direction) -> Vec<Written<'_>> {
    let Some(spec) = &policy.spec else { return Vec::new() };
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    let rule = |peers, ports| Written { namespace, peers, ports };
    match direction {
        Direction::Ingress => {
            let rules = spec.ingress.iter().flatten();
            rules
                .map(|r| rule(r.from.as_deref().unwrap_or_default(), r.ports.as_deref().unwrap_or_default()))
                .collect()
        }
        Direction::Egress => {
            let rules = spec.egress.iter().flatten();
            rules
                .map(|r| rule(r.to.as_deref().unwrap_or_default(), r.ports.as_deref().unwrap_or_default()))
                .collect()
        }
    }
}

fn of_block(block: &IPBlock) -> Option<Peer> {
    let except = block.except.iter().flatten().filter_map(|text| Block::parse(text)).collect();
    Some(Peer::Block(Block::parse(&block.cidr)?, except))
}

fn name_of(port: &NetworkPolicyPort) -> Option<(&str, Protocol)> {
    match &port.port {
        Some(IntOrString::String(name)) => Some((name, Protocol::of(port.protocol.as_deref())?)),
        _ => None,
    }
}

fn numbers(port: &NetworkPolicyPort) -> Option<Ports> {
    let protocol = Protocol::of(port.protocol.as_deref())?;
    match port.port {
        None => Some(Ports { protocol, first: 0, last: u16::MAX }),
        Some(IntOrString::Int(first)) => {
            let last = port.end_port.unwrap_or(first);
            Some(Ports { protocol, first: u16::try_from(first).ok()?, last: u16::try_from(last).ok()? })
        }
        Some(IntOrString::String(_)) => None,
    }
}
