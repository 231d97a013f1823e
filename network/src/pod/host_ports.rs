//! hostPort: ports of the machine that lead to a pod's, in a table of the node's own.
//!
//! Who may have which port is the scheduler's to say. The table is written with each pod that has such ports, and
//! stays when the agent ends, as the pods do.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};

use crate::service::plan::Protocol;
use crate::table::Table;

/// A port of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The protocol.
    pub protocol: Protocol,
    /// On this address of the machine; `None` stands for all.
    pub ip: Option<Ipv4Addr>,
    /// The machine's port.
    pub port: u16,
    /// The pod's port.
    pub target: u16,
}

impl HostPort {
    /// The ports that a pod asks for. A pod in the machine's network has them already.
    pub fn of(pod: &Pod) -> Vec<Self> {
        let Some(spec) = pod.spec.as_ref().filter(|spec| spec.host_network != Some(true)) else {
            return Vec::new();
        };
        let lasting = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
        let sidecars = spec.init_containers.iter().flatten().filter(lasting);
        let containers = spec.containers.iter().chain(sidecars);
        containers.flat_map(|container| container.ports.iter().flatten()).filter_map(Self::read).collect()
    }

    fn read(port: &ContainerPort) -> Option<Self> {
        let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
        Some(Self {
            protocol: Protocol::of(port.protocol.as_deref())?,
            ip: port
                .host_ip
                .as_ref()
                .and_then(|ip| ip.parse().ok())
                .filter(|ip: &Ipv4Addr| !ip.is_unspecified()),
            port: number(port.host_port?)?,
            target: number(port.container_port)?,
        })
    }
}

/// As it is noted beside the pod's address.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = self.ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        write!(f, "{} {ip} {} {}", self.protocol.keyword(), self.port, self.target)
    }
}

/// The text isn't a noted port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAPort;

impl FromStr for HostPort {
    type Err = NotAPort;

    fn from_str(text: &str) -> Result<Self, NotAPort> {
        let words: Vec<&str> = text.split(' ').collect();
        let [protocol, ip, port, target] = words.as_slice() else { return Err(NotAPort) };
        let ip: Ipv4Addr = ip.parse().map_err(|_| NotAPort)?;
        Ok(Self {
            protocol: Protocol::of(Some(&protocol.to_uppercase())).ok_or(NotAPort)?,
            ip: Some(ip).filter(|ip| !ip.is_unspecified()),
            port: port.parse().map_err(|_| NotAPort)?,
            target: target.parse().map_err(|_| NotAPort)?,
        })
    }
}

/// The frame of the table of this name. The machine itself reaches the ports by its loopback, too, in its bridge's
/// name; so does a pod that is led to itself.
pub fn frame(name: &str) -> String {
    let local = "fib daddr type local";
    format!(
        "add table ip {name}\n\
         add map ip {name} anywhere {{ type inet_proto . inet_service : ipv4_addr . inet_service ; }}\n\
         add map ip {name} somewhere {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service ; }}\n\
         add set ip {name} selves {{ type ipv4_addr . ipv4_addr ; }}\n\
         add chain ip {name} lead\n\
         add rule ip {name} lead {local} dnat ip addr . port to ip daddr . meta l4proto . th dport map @somewhere\n\
         add rule ip {name} lead {local} dnat ip addr . port to meta l4proto . th dport map @anywhere\n\
         add chain ip {name} prerouting {{ type nat hook prerouting priority dstnat ; policy accept ; }}\n\
         add rule ip {name} prerouting meta l4proto {{ tcp, udp, sctp }} jump lead\n\
         add chain ip {name} output {{ type nat hook output priority -100 ; policy accept ; }}\n\
         add rule ip {name} output meta l4proto {{ tcp, udp, sctp }} jump lead\n\
         add chain ip {name} postrouting {{ type nat hook postrouting priority srcnat ; policy accept ; }}\n\
         add rule ip {name} postrouting ct status dnat ip saddr 127.0.0.0/8 masquerade\n\
         add rule ip {name} postrouting ct status dnat ip saddr . ip daddr @selves masquerade\n"
    )
}

/// The table of the pods with these addresses and ports. Of two that ask for one port the first has it.
pub fn table<'a>(pods: impl IntoIterator<Item = (Ipv4Addr, &'a [HostPort])>) -> Table {
    let mut table = Table::default();
    let mut taken = BTreeMap::new();
    for (ip, ports) in pods {
        for port in ports {
            if *taken.entry((port.protocol, port.ip, port.port)).or_insert(ip) == ip {
                add(&mut table, ip, port);
            }
        }
    }
    table
}

fn add(table: &mut Table, ip: Ipv4Addr, port: &HostPort) {
    let target = format!("{ip} . {}", port.target);
    let key = format!("{} . {}", port.protocol.keyword(), port.port);
    match port.ip {
        Some(own) => table.set("somewhere", format!("{own} . {key}"), target),
        None => table.set("anywhere", key, target),
    }
    table.set("selves", format!("{ip} . {ip}"), String::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(text: &str) -> Vec<String> {
        let pod: Pod = serde_yaml::from_str(&format!("{{metadata: {{}}, spec: {text}}}")).expect("a pod");
        HostPort::of(&pod).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ports_are_read_from_the_containers_that_last() {
        let text = "{containers: [{name: a, ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 81}]}, \
             {name: b, ports: [{containerPort: 53, hostPort: 53, hostIP: 192.0.2.1, protocol: UDP}]}], \
             initContainers: [{name: c, ports: [{containerPort: 1, hostPort: 1}]}, \
             {name: d, restartPolicy: Always, ports: [{containerPort: 2, hostPort: 3, hostIP: 0.0.0.0}]}]}";
        let found = pod(text);
        assert_eq!(found, ["tcp 0.0.0.0 8080 80", "udp 192.0.2.1 53 53", "tcp 0.0.0.0 3 2"]);
        for line in &found {
            assert_eq!(line.parse::<HostPort>().map(|port| port.to_string()).as_ref(), Ok(line));
        }
        assert!(pod(&text.replace("{containers", "{hostNetwork: true, containers")).is_empty());
        for wrong in ["", "tcp 80", "xxx 0.0.0.0 1 1", "tcp 0.0.0.0 1 70000"] {
            assert_eq!(wrong.parse::<HostPort>(), Err(NotAPort), "{wrong}");
        }
    }

    #[test]
    fn the_first_of_two_has_the_port() {
        let port: HostPort = "tcp 0.0.0.0 8080 80".parse().expect("a port");
        let ports = [port];
        let pods = [1, 2].map(|n| (Ipv4Addr::new(10, 0, 0, n), &ports[..]));
        let table = table(pods);
        assert_eq!(table.elements["anywhere"]["tcp . 8080"], "10.0.0.1 . 80");
        assert_eq!(table.elements["anywhere"].len(), 1);
    }
}
