//! Remembered UDP flows that lead where no endpoint is any more.
//!
//! The kernel remembers a flow for as long as packets come, and leads all of them to where the first one went. A
//! UDP client that goes on asking from one port would ask a pod that is gone for ever; TCP's connections end with
//! their pod. What is to be forgotten is decided by [`UdpRoutes`]; [`forget`] tells the kernel, by netlink's
//! `ctnetlink`, whose messages are written and read here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

use crate::service::plan::{External, Protocol, Route};

/// From `linux/netfilter/nfnetlink.h` and `nfnetlink_conntrack.h`.
const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const NESTED: u16 = 0x8000;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IPV4: u8 = 2;
const UDP: u8 = 17;
/// A netlink message's header, and the one of netfilter behind it.
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;

/// A remembered flow: what its client sent, and who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client.
    pub from: SocketAddrV4,
    /// Where it sent to.
    pub to: SocketAddrV4,
    /// Who answers.
    pub by: SocketAddrV4,
}

/// Where UDP that comes to Services may lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpRoutes {
    addresses: BTreeMap<SocketAddrV4, BTreeSet<SocketAddrV4>>,
    node_ports: BTreeMap<u16, BTreeSet<SocketAddrV4>>,
}

impl UdpRoutes {
    /// Of these routes.
    pub fn of<'a>(routes: impl IntoIterator<Item = &'a Route>) -> Self {
        let mut all = Self::default();
        for route in routes.into_iter().filter(|route| route.protocol == Protocol::Udp) {
            let outside: BTreeSet<_> = match &route.external {
                External::Local(pods) => pods.iter().copied().collect(),
                External::AsInternal => route.internal.iter().copied().collect(),
            };
            let own = SocketAddrV4::new(route.cluster_ip, route.port);
            all.addresses.insert(own, route.internal.iter().copied().collect());
            for ip in &route.external_ips {
                all.addresses.insert(SocketAddrV4::new(*ip, route.port), outside.clone());
            }
            all.node_ports.extend(route.node_port.map(|port| (port, outside)));
        }
        all
    }

    /// Whether the flow came to one of the Services and is led where that one has no endpoint.
    pub fn is_stale(&self, flow: &Flow) -> bool {
        let at = self.addresses.get(&flow.to);
        // Another address with the same port may be anybody's: only what was translated came to the node's port.
        let at = at.or_else(|| self.node_ports.get(&flow.to.port()).filter(|_| flow.by.ip() != flow.to.ip()));
        at.is_some_and(|endpoints| !endpoints.contains(&flow.by))
    }

    /// Whether an endpoint that `old` led to is gone, so that there may be flows to forget.
    pub fn lost_any(&self, old: &Self) -> bool {
        fn lost<K: Ord>(
            old: &BTreeMap<K, BTreeSet<SocketAddrV4>>,
            new: &BTreeMap<K, BTreeSet<SocketAddrV4>>,
        ) -> bool {
            old.iter().any(|(key, pods)| new.get(key).is_some_and(|now| !pods.is_subset(now)))
        }
        lost(&old.addresses, &self.addresses) || lost(&old.node_ports, &self.node_ports)
    }
}

/// Makes the kernel forget the stale flows; returns how many. It blocks for as long as the kernel takes.
///
/// # Errors
/// The kernel refuses to tell or to forget.
pub fn forget(routes: &UdpRoutes) -> io::Result<usize> {
    let socket = open()?;
    let stale: Vec<Flow> = flows(&socket)?.into_iter().filter(|flow| routes.is_stale(flow)).collect();
    for flow in &stale {
        say(&socket, &deletion(flow))?;
        // One that has ended by itself meanwhile is as good.
        match answers(&socket, |_, _| ()) {
            Err(error) if error.raw_os_error() != Some(nix::libc::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(stale.len())
}

fn open() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

fn say(socket: &OwnedFd, message: &[u8]) -> io::Result<()> {
    send(socket.as_raw_fd(), message, MsgFlags::empty())?;
    Ok(())
}

fn flows(socket: &OwnedFd) -> io::Result<Vec<Flow>> {
    say(socket, &message(CT_GET, REQUEST | DUMP, &[]))?;
    let mut found = Vec::new();
    answers(socket, |_, payload| found.extend(read_flow(payload)))?;
    Ok(found)
}

/// Reads messages until the last one.
fn answers(socket: &OwnedFd, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((kind, payload, after)) = next_message(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return outcome(payload),
                _ => each(kind, payload),
            }
            rest = after;
        }
    }
}

fn outcome(payload: &[u8]) -> io::Result<()> {
    match payload.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Kind and payload of the first message, and what follows it.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let payload = bytes.get(HEADER..length)?;
    Some((kind, payload, bytes.get(aligned(length)..).unwrap_or_default()))
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADERS + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]); // sequence and port: one question at a time
    bytes.extend([IPV4, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

fn deletion(flow: &Flow) -> Vec<u8> {
    let ips = [attribute(1, &flow.from.ip().octets()), attribute(2, &flow.to.ip().octets())].concat();
    let ports = [
        attribute(1, &[UDP]),
        attribute(2, &flow.from.port().to_be_bytes()),
        attribute(3, &flow.to.port().to_be_bytes()),
    ];
    let tuple = [attribute(TUPLE_IP | NESTED, &ips), attribute(TUPLE_PROTO | NESTED, &ports.concat())];
    message(CT_DELETE, REQUEST | ACK, &attribute(TUPLE_ORIG | NESTED, &tuple.concat()))
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(aligned(bytes.len()), 0);
    bytes
}

/// The value of an attribute among others.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?) & !NESTED;
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(aligned(length)..)?;
    }
}

/// A flow of the family; `None` unless it is UDP.
fn read_flow(payload: &[u8]) -> Option<Flow> {
    let attributes = payload.get(4..)?;
    let (from, to) = ends(find(attributes, TUPLE_ORIG)?)?;
    let (by, _) = ends(find(attributes, TUPLE_REPLY)?)?;
    Some(Flow { from, to, by })
}

fn ends(tuple: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let (ips, ports) = (find(tuple, TUPLE_IP)?, find(tuple, TUPLE_PROTO)?);
    if find(ports, 1)? != [UDP] {
        return None;
    }
    let end = |ip: u16, port: u16| {
        let ip = Ipv4Addr::from(*find(ips, ip)?.first_chunk::<4>()?);
        Some(SocketAddrV4::new(ip, u16::from_be_bytes(*find(ports, port)?.first_chunk()?)))
    };
    Some((end(1, 2)?, end(2, 3)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddrV4 {
        text.parse().expect("an address")
    }

    fn flow(to: &str, by: &str) -> Flow {
        Flow { from: address("10.0.0.9:4000"), to: address(to), by: address(by) }
    }

    fn routes(pods: &[&str]) -> UdpRoutes {
        let internal = pods.iter().map(|pod| address(pod)).collect();
        UdpRoutes::of([&Route {
            id: "shop/dns/".to_owned(),
            protocol: Protocol::Udp,
            port: 53,
            cluster_ip: Ipv4Addr::new(10, 96, 0, 7),
            external_ips: vec![Ipv4Addr::new(192, 0, 2, 7)],
            node_port: Some(30_053),
            affinity: None,
            internal,
            external: External::AsInternal,
        }])
    }

    #[test]
    fn flows_to_endpoints_that_are_gone_are_stale() {
        let routes = routes(&["10.0.0.1:53"]);
        for to in ["10.96.0.7:53", "192.0.2.7:53", "10.9.9.9:30053"] {
            assert!(!routes.is_stale(&flow(to, "10.0.0.1:53")), "{to}");
            assert!(routes.is_stale(&flow(to, "10.0.0.2:53")), "{to}");
        }
        assert!(!routes.is_stale(&flow("10.96.0.8:53", "10.0.0.2:53")), "no Service of ours");
        assert!(!routes.is_stale(&flow("8.8.8.8:30053", "8.8.8.8:30053")), "not translated");
    }

    #[test]
    fn only_a_loss_is_worth_a_look() {
        let (one, two) = (routes(&["10.0.0.1:53"]), routes(&["10.0.0.1:53", "10.0.0.2:53"]));
        assert!(one.lost_any(&two));
        assert!(!two.lost_any(&one) && !one.lost_any(&one) && !one.lost_any(&UdpRoutes::default()));
    }

    #[test]
    fn what_is_written_is_read() {
        let told = flow("10.96.0.7:53", "10.96.0.7:53");
        let bytes = deletion(&told);
        let (kind, payload, rest) = next_message(&bytes).expect("a message");
        assert_eq!((kind, rest), (CT_DELETE, &[][..]));
        let tuple = find(&payload[4..], TUPLE_ORIG).expect("a tuple");
        assert_eq!(ends(tuple), Some((told.from, told.to)));
        for length in 0..bytes.len() {
            let _ = next_message(&bytes[..length]).map(|(_, payload, _)| read_flow(payload));
            let _ = find(&bytes[..length], TUPLE_REPLY);
        }
    }
}
