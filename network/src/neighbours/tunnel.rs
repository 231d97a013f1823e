//! Routes to other machines' pods, told to the kernel.
//!
//! The tunnel is one VXLAN link that learns nothing: whom it sends to is said for each machine. What a
//! machine's end of it is called on that link (its MAC) follows from the machine's address, so that nobody
//! has to tell it to the others.

use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::{Handle, LinkUnspec, LinkVxlan, RouteMessageBuilder};

use super::Way;
use crate::pod::addresses::Range;
use crate::pod::link::{LinkError, failed, index, unless_missing, unless_there, up};
use crate::pod::namespace::{BRIDGE, TUNNEL};

/// The port of VXLAN (RFC 7348), and the network that is ours on it.
const PORT: u16 = 4789;
const NETWORK: u32 = 1;
/// What the outer headers of a packet take: Ethernet, IPv4, UDP, VXLAN.
const OVERHEAD: u32 = 50;
/// Marks our routes, so that a later run finds those that nobody needs any more. Nobody else has the number in
/// `rt_protos`.
const MARK: RouteProtocol = RouteProtocol::Other(161);

/// This machine's end of the ways.
#[derive(Clone, Debug)]
pub struct End {
    /// The kernel.
    pub handle: Handle,
    /// The address of the pods' bridge, by which the machine itself speaks through the tunnel.
    pub gateway: Ipv4Addr,
}

impl End {
    /// Makes a way, in the place of any other to the same pods.
    pub async fn make(&self, range: Range, way: Way) -> Result<(), LinkError> {
        let route = match way {
            Way::Direct(machine) => self.route_to(range).gateway(machine),
            Way::Tunnel(machine) => {
                let tunnel = index(&self.handle, TUNNEL).await?;
                for neighbour in names(tunnel, range, machine) {
                    self.tell(neighbour).await?;
                }
                let route = self.route_to(range).gateway(range.network()).output_interface(tunnel);
                route.onlink().pref_source(self.gateway)
            }
        };
        let made = self.handle.route().add(route.build()).replace().execute().await;
        made.map_err(failed(format!("make the route to {range}")))
    }

    /// Takes a way away. None being there is fine.
    pub async fn remove(&self, range: Range) -> Result<(), LinkError> {
        let gone = self.handle.route().del(self.route_to(range).build()).execute().await;
        unless_missing(gone).map_err(failed(format!("remove the route to {range}")))
    }

    fn route_to(&self, range: Range) -> RouteMessageBuilder<Ipv4Addr> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new();
        route.destination_prefix(range.network(), range.prefix).protocol(MARK)
    }

    async fn tell(&self, neighbour: NeighbourMessage) -> Result<(), LinkError> {
        let mut request = self.handle.neighbours().add(0, IpAddr::V4(Ipv4Addr::UNSPECIFIED)).replace();
        *request.message_mut() = neighbour;
        request.execute().await.map_err(failed("name another machine on the tunnel"))
    }

    /// The ranges to which an earlier run made ways.
    pub async fn made(&self) -> Result<Vec<Range>, LinkError> {
        let all = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        let all: Vec<RouteMessage> = all.try_collect().await.map_err(failed("list routes"))?;
        let ours = all.iter().filter(|route| route.header.protocol == MARK);
        Ok(ours.filter_map(range_of).collect())
    }

    /// The ranges of this machine's addresses, but for those of its pods.
    pub async fn links(&self) -> Result<Vec<Range>, LinkError> {
        let inner = [index(&self.handle, BRIDGE).await?, index(&self.handle, TUNNEL).await.unwrap_or(0)];
        let all: Vec<_> =
            self.handle.address().get().execute().try_collect().await.map_err(failed("list addresses"))?;
        let outer = all.iter().filter(|address| !inner.contains(&address.header.index));
        let ranges = outer.filter_map(|address| {
            let is_own = |a: &AddressAttribute| match a {
                AddressAttribute::Address(IpAddr::V4(ip)) => Some(*ip),
                _ => None,
            };
            let ip = address.attributes.iter().find_map(is_own)?;
            Range::new(ip, address.header.prefix_len)
        });
        Ok(ranges.collect())
    }

    /// The tunnel, with this machine's end at its address `own`. Idempotent.
    pub async fn open(&self, own: Ipv4Addr) -> Result<(), LinkError> {
        let attempted = || failed(format!("make the tunnel {TUNNEL}"));
        let link = LinkVxlan::new(TUNNEL, NETWORK).local(own).port(PORT).learning(false);
        let link = link.address(mac(own).to_vec()).mtu(self.mtu(own).await?);
        let made = self.handle.link().add(link.build()).execute().await;
        unless_there(made).map_err(attempted())?;
        let tunnel = index(&self.handle, TUNNEL).await?;
        // One that an earlier run made under another address has another MAC.
        let named = LinkUnspec::new_with_index(tunnel).address(mac(own).to_vec()).build();
        self.handle.link().set(named).execute().await.map_err(attempted())?;
        up(&self.handle, tunnel).await
    }

    /// What fits into a packet of the link that has the address.
    async fn mtu(&self, own: Ipv4Addr) -> Result<u32, LinkError> {
        let all: Vec<_> =
            self.handle.address().get().execute().try_collect().await.map_err(failed("list addresses"))?;
        let has_own = |a: &AddressAttribute| *a == AddressAttribute::Address(IpAddr::V4(own));
        let link = all.iter().find(|address| address.attributes.iter().any(has_own));
        let Some(link) = link.map(|address| address.header.index) else { return Ok(1500 - OVERHEAD) };
        let mut found = self.handle.link().get().match_index(link).execute();
        let found = found.try_next().await.map_err(failed("look at the machine's link"))?;
        let mtu = found.iter().flat_map(|link| &link.attributes).find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
        Ok(mtu.unwrap_or(1500).saturating_sub(OVERHEAD))
    }
}

/// Another machine's end: its MAC behind the range's first address, and its address behind the MAC.
fn names(tunnel: u32, range: Range, machine: Ipv4Addr) -> [NeighbourMessage; 2] {
    use rtnetlink::packet_route::AddressFamily;
    use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
    let message = |family, destination, flags| {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        message.header.ifindex = tunnel;
        message.header.state = NeighbourState::Permanent;
        message.header.flags = flags;
        let destination = NeighbourAttribute::Destination(NeighbourAddress::Inet(destination));
        message.attributes = vec![destination, NeighbourAttribute::LinkLayerAddress(mac(machine).to_vec())];
        message
    };
    [
        message(AddressFamily::Inet, range.network(), NeighbourFlags::empty()),
        message(AddressFamily::Bridge, machine, NeighbourFlags::Own),
    ]
}

/// Locally administered, and different for each address.
fn mac(machine: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = machine.octets();
    [0x0a, 0xa0, a, b, c, d]
}

fn range_of(route: &RouteMessage) -> Option<Range> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
            Range::new(*ip, route.header.destination_prefix_length)
        }
        _ => None,
    })
}
