//! Random clusters, and an independent slow answer to "may this packet pass", asked of the objects themselves.
//!
//! [`permitted`] follows the words of the API's documentation policy by policy and knows nothing of sets and
//! chains; [`passes`] walks what was compiled. Both must agree about every pair of pods and every port.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::plan::{Cluster, Isolation, Peer, Rules, isolation};
use super::pod::PolicyPod;
use crate::service::plan::Protocol;

/// A packet that opens a connection.
#[derive(Clone, Copy, Debug)]
struct Packet {
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: Protocol,
    port: u16,
}

fn passes(isolation: &Isolation, packet: &Packet) -> bool {
    let one = |isolated: &BTreeMap<Ipv4Addr, Rules>, own: Ipv4Addr, other: Ipv4Addr| {
        let Some(rules) = isolated.get(&own) else { return true };
        rules.iter().any(|rule| {
            let peer = match &rule.peer {
                Peer::Anyone => true,
                Peer::Selected(id) => isolation.selected[id].contains(&other),
                Peer::Block(block, except) => {
                    block.contains(other) && !except.iter().any(|beside| beside.contains(other))
                }
            };
            let ports = rule.ports.as_ref();
            peer && ports.is_none_or(|ports| {
                ports.iter().any(|ports| {
                    ports.protocol == packet.protocol && (ports.first..=ports.last).contains(&packet.port)
                })
            })
        })
    };
    packet.from == packet.to
        || one(&isolation.egress, packet.from, packet.to) && one(&isolation.ingress, packet.to, packet.from)
}

/// The answer of the documentation.
fn permitted(cluster: &Cluster<'_>, packet: &Packet) -> bool {
    packet.from == packet.to || side(cluster, packet, "Egress") && side(cluster, packet, "Ingress")
}

fn side(cluster: &Cluster<'_>, packet: &Packet, direction: &str) -> bool {
    let (own, other) =
        if direction == "Egress" { (packet.from, packet.to) } else { (packet.to, packet.from) };
    let Some(pod) = cluster.pods.iter().find(|pod| pod.ip == own) else { return true };
    let mut isolated = false;
    for policy in &cluster.policies {
        let spec = policy.spec.as_ref().expect("written");
        let own_namespace = policy.metadata.namespace.as_ref().expect("written");
        let types = spec.policy_types.as_ref().expect("written");
        let is_about = own_namespace == &pod.namespace
            && matches(spec.pod_selector.as_ref(), &pod.labels)
            && types.iter().any(|written| written == direction);
        if !is_about {
            continue;
        }
        isolated = true;
        let rules: Vec<(Vec<NetworkPolicyPeer>, Vec<NetworkPolicyPort>)> = match direction {
            "Egress" => {
                let all = spec.egress.iter().flatten();
                all.map(|r| (r.to.clone().unwrap_or_default(), r.ports.clone().unwrap_or_default())).collect()
            }
            _ => {
                let all = spec.ingress.iter().flatten();
                all.map(|r| (r.from.clone().unwrap_or_default(), r.ports.clone().unwrap_or_default()))
                    .collect()
            }
        };
        for (peers, ports) in rules {
            let peer =
                peers.is_empty() || peers.iter().any(|peer| is_peer(cluster, peer, own_namespace, other));
            let port = ports.is_empty() || ports.iter().any(|port| is_port(cluster, port, packet));
            if peer && port {
                return true;
            }
        }
    }
    !isolated
}

fn is_peer(cluster: &Cluster<'_>, peer: &NetworkPolicyPeer, own_namespace: &str, ip: Ipv4Addr) -> bool {
    if let Some(block) = &peer.ip_block {
        let except = block.except.iter().flatten();
        return in_block(&block.cidr, ip) && except.into_iter().all(|beside| !in_block(beside, ip));
    }
    let Some(pod) = cluster.pods.iter().find(|pod| pod.ip == ip) else { return false };
    let namespace = match &peer.namespace_selector {
        None => pod.namespace == own_namespace,
        Some(selector) => cluster.namespaces.iter().any(|namespace| {
            namespace.metadata.name.as_ref() == Some(&pod.namespace)
                && matches(Some(selector), namespace.metadata.labels.as_ref().expect("written"))
        }),
    };
    namespace && matches(peer.pod_selector.as_ref(), &pod.labels)
}

/// By text: the blocks of these tests end at dots, or are everything, or one address.
fn in_block(cidr: &str, ip: Ipv4Addr) -> bool {
    let (start, prefix) = cidr.split_once('/').expect("a block");
    let octets = prefix.parse::<usize>().expect("a prefix") / 8;
    let ip = ip.to_string();
    start.split('.').zip(ip.split('.')).take(octets).all(|(a, b)| a == b)
}

fn is_port(cluster: &Cluster<'_>, port: &NetworkPolicyPort, packet: &Packet) -> bool {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    let number = i32::from(packet.port);
    protocol == packet.protocol
        && match &port.port {
            None => true,
            Some(IntOrString::Int(first)) => (*first..=port.end_port.unwrap_or(*first)).contains(&number),
            Some(IntOrString::String(name)) => {
                let destination = cluster.pods.iter().find(|pod| pod.ip == packet.to);
                destination.is_some_and(|pod| pod.ports.contains(&(name.clone(), protocol, packet.port)))
            }
        }
}

fn matches(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector else { return true };
    selector.match_labels.iter().flatten().all(|(name, value)| labels.get(name) == Some(value))
        && selector.match_expressions.iter().flatten().all(|expression| match expression.operator.as_str() {
            "Exists" => labels.contains_key(&expression.key),
            "NotIn" => {
                !expression.values.iter().flatten().any(|value| labels.get(&expression.key) == Some(value))
            }
            other => panic!("not written: {other}"),
        })
}

fn any_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[ab]", "[xy]", 0..3)
}

fn any_selector() -> impl Strategy<Value = LabelSelector> {
    let texts = [
        "{}",
        "{matchLabels: {a: x}}",
        "{matchLabels: {a: x, b: y}}",
        "{matchExpressions: [{key: a, operator: Exists}]}",
        "{matchExpressions: [{key: b, operator: NotIn, values: [x]}]}",
    ];
    proptest::sample::select(texts.to_vec()).prop_map(|text| serde_yaml::from_str(text).expect("a selector"))
}

fn any_peer() -> impl Strategy<Value = NetworkPolicyPeer> {
    let blocks = [
        "{cidr: 0.0.0.0/0}",
        "{cidr: 10.0.0.0/8, except: [10.0.1.0/24]}",
        "{cidr: 10.0.0.3/32}",
        "{cidr: 10.0.0.0/8, except: [10.0.0.0/16, 10.0.1.0/24]}",
    ];
    let block = proptest::sample::select(blocks.to_vec()).prop_map(|text| NetworkPolicyPeer {
        ip_block: Some(serde_yaml::from_str(text).expect("a block")),
        ..NetworkPolicyPeer::default()
    });
    let selected = (any_selector(), proptest::option::of(any_selector()), any::<bool>());
    let selected = selected.prop_map(|(pods, namespaces, both)| NetworkPolicyPeer {
        pod_selector: (both || namespaces.is_none()).then_some(pods),
        namespace_selector: namespaces,
        ..NetworkPolicyPeer::default()
    });
    prop_oneof![block, selected]
}

fn any_port() -> impl Strategy<Value = NetworkPolicyPort> {
    let texts = [
        "{port: 80}",
        "{port: 80, endPort: 90}",
        "{port: 85, endPort: 8080}",
        "{protocol: UDP}",
        "{port: web}",
        "{port: web, protocol: UDP}",
        "{protocol: UDP, port: 53}",
        "{}",
    ];
    proptest::sample::select(texts.to_vec()).prop_map(|text| serde_yaml::from_str(text).expect("a port"))
}

fn any_policy() -> impl Strategy<Value = NetworkPolicy> {
    let rule = || (proptest::collection::vec(any_peer(), 0..3), proptest::collection::vec(any_port(), 0..3));
    let rules = || proptest::collection::vec(rule(), 0..3);
    let types = proptest::sample::select(vec![vec!["Ingress"], vec!["Egress"], vec!["Ingress", "Egress"]]);
    ("[pq]", any_selector(), types, rules(), rules()).prop_map(|(namespace, pods, types, ingress, egress)| {
        let ingress = ingress.into_iter().map(|(from, ports)| serde_json::json!({"from": from, "ports": ports}));
        let egress = egress.into_iter().map(|(to, ports)| serde_json::json!({"to": to, "ports": ports}));
        let rules = serde_json::json!({
            "ingress": ingress.collect::<Vec<_>>(), "egress": egress.collect::<Vec<_>>(), "policyTypes": types,
        });
        let spec: NetworkPolicySpec = serde_json::from_value(rules).expect("a policy");
        let mut policy = NetworkPolicy::default();
        policy.metadata.namespace = Some(namespace);
        policy.spec = Some(NetworkPolicySpec { pod_selector: Some(pods), ..spec });
        policy
    })
}

fn any_pods() -> impl Strategy<Value = Vec<PolicyPod>> {
    let port = proptest::sample::select(vec![
        ("web", Protocol::Tcp, 80),
        ("web", Protocol::Tcp, 8080),
        ("web", Protocol::Udp, 53),
    ]);
    let pod = ("[pqr]", any_labels(), proptest::collection::vec(port, 0..2), 0..2u8);
    proptest::collection::vec(pod, 1..6).prop_map(|pods| {
        let pods = pods.into_iter().enumerate();
        pods.map(|(n, (namespace, labels, ports, half))| PolicyPod {
            namespace,
            labels,
            ip: Ipv4Addr::new(10, 0, half, u8::try_from(n).expect("few")),
            machine: None,
            ports: ports
                .into_iter()
                .map(|(name, protocol, port)| (name.to_owned(), protocol, port))
                .collect(),
        })
        .collect()
    })
}

fn namespaces(labels: Vec<BTreeMap<String, String>>) -> Vec<Namespace> {
    let named = ["p", "q", "r"].into_iter().zip(labels);
    named
        .map(|(name, labels)| {
            let mut namespace = Namespace::default();
            namespace.metadata.name = Some(name.to_owned());
            namespace.metadata.labels = Some(labels);
            namespace
        })
        .collect()
}

fn packets(pods: &[PolicyPod]) -> Vec<Packet> {
    let outside = [Ipv4Addr::new(192, 0, 2, 1)];
    let all: Vec<Ipv4Addr> = pods.iter().map(|pod| pod.ip).chain(outside).collect();
    let ports = [
        (Protocol::Tcp, 79),
        (Protocol::Tcp, 80),
        (Protocol::Tcp, 85),
        (Protocol::Tcp, 8080),
        (Protocol::Udp, 53),
        (Protocol::Udp, 80),
    ];
    let pairs = all.iter().flat_map(|from| all.iter().map(move |to| (*from, *to)));
    let of_pair = |(from, to)| ports.map(|(protocol, port)| Packet { from, to, protocol, port });
    pairs.flat_map(of_pair).collect()
}

proptest! {
    #[test]
    fn what_is_compiled_is_what_the_documentation_says(
        pods in any_pods(),
        policies in proptest::collection::vec(any_policy(), 0..4),
        labels in proptest::collection::vec(any_labels(), 3),
    ) {
        let namespaces = namespaces(labels);
        let cluster = Cluster {
            policies: policies.iter().collect(),
            pods: pods.iter().collect(),
            namespaces: namespaces.iter().collect(),
        };
        let compiled = isolation(&cluster, |_| true);
        for packet in packets(&pods) {
            prop_assert_eq!(passes(&compiled, &packet), permitted(&cluster, &packet), "{:?}", packet);
        }
    }
}

#[test]
fn the_answers_differ_enough_to_tell_anything() {
    // Both answers occur: a generator that only makes empty clusters would prove nothing.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = (any_pods(), proptest::collection::vec(any_policy(), 2..4));
    let mut counts = [0, 0];
    for _ in 0..50 {
        let (pods, policies) = strategy.new_tree(&mut runner).expect("a cluster").current();
        let namespaces = namespaces(vec![BTreeMap::new(); 3]);
        let cluster = Cluster {
            policies: policies.iter().collect(),
            pods: pods.iter().collect(),
            namespaces: namespaces.iter().collect(),
        };
        for packet in packets(&pods) {
            counts[usize::from(permitted(&cluster, &packet))] += 1;
        }
    }
    assert!(counts.iter().all(|count| *count > 500), "{counts:?}");
}
