//! What policies know of a pod.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};

use crate::service::plan::Protocol;

/// A pod with an address of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPod {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The address of its machine.
    pub machine: Option<IpAddr>,
    /// Its ports that have names.
    pub ports: Vec<(String, Protocol, u16)>,
}

impl PolicyPod {
    /// `None` for a pod that policies don't concern: in the machine's network, without an address, or ended,
    /// when another pod may have its address.
    pub fn of(pod: &Pod) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if spec.host_network == Some(true) || ended {
            return None;
        }
        Some(Self {
            namespace: pod.metadata.namespace.clone()?,
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            ip: status.pod_ip.as_ref()?.parse().ok()?,
            machine: status.host_ip.as_ref().and_then(|ip| ip.parse().ok()),
            ports: named_ports(spec),
        })
    }

    /// The numbers behind a port's name.
    pub fn named(&self, name: &str, protocol: Protocol) -> impl Iterator<Item = u16> {
        let same = move |port: &&(String, Protocol, u16)| port.0 == name && port.1 == protocol;
        self.ports.iter().filter(same).map(|port| port.2)
    }
}

fn named_ports(spec: &PodSpec) -> Vec<(String, Protocol, u16)> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = u16::try_from(port.container_port).ok()?;
            Some((port.name.clone()?, Protocol::of(port.protocol.as_deref())?, number))
        })
        .collect()
}

/// What is kept of a pod between two looks at it: a cluster has many.
pub fn kept(pod: &Pod) -> Pod {
    let spec = pod.spec.as_ref().map(|spec| PodSpec {
        host_network: spec.host_network,
        containers: spec.containers.iter().map(only_ports).collect(),
        init_containers: spec.init_containers.as_ref().map(|all| all.iter().map(only_ports).collect()),
        ..PodSpec::default()
    });
    let status = pod.status.as_ref().map(|status| PodStatus {
        phase: status.phase.clone(),
        pod_ip: status.pod_ip.clone(),
        host_ip: status.host_ip.clone(),
        ..PodStatus::default()
    });
    Pod { metadata: pod.metadata.clone(), spec, status }
}

fn only_ports(container: &Container) -> Container {
    Container { name: container.name.clone(), ports: container.ports.clone(), ..Container::default() }
}
