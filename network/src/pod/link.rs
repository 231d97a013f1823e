//! Bridges, pairs of links, addresses and routes, told to the kernel by netlink.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkMessage};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::addresses::Range;

/// What a pod's link is called inside of the pod.
const POD_LINK: &str = "eth0";

/// The index of the loopback in every namespace.
const LOOPBACK: u32 = 1;

/// The kernel refused a change of links, addresses or routes.
#[derive(Debug, thiserror::Error)]
#[error("{attempted}: {source}")]
pub struct LinkError {
    attempted: String,
    source: rtnetlink::Error,
}

/// Says what was attempted.
pub fn failed(attempted: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    let attempted = attempted.into();
    |source| LinkError { attempted, source }
}

/// What is there already needs not be made.
pub fn unless_there(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(error)) if error.to_io().kind() == ErrorKind::AlreadyExists => {
            Ok(())
        }
        other => other,
    }
}

/// What is gone already needs not be removed.
pub fn unless_missing(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(error))
            if matches!(-error.raw_code(), nix::libc::ESRCH | nix::libc::ENOENT | nix::libc::ENODEV) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// The bridge with the range's first address. Idempotent; more ranges can have the same bridge.
pub async fn bridge(handle: &Handle, name: &str, range: Range) -> Result<(), LinkError> {
    let made = handle.link().add(LinkBridge::new(name).build()).execute().await;
    unless_there(made).map_err(failed(format!("make the bridge {name}")))?;
    let index = index(handle, name).await?;
    address(handle, index, range.gateway(), range.prefix).await?;
    up(handle, index).await
}

/// A pair of links: one end in the bridge, the other one, `eth0`, in the namespace. The kernel is told all of
/// it at once: an end that is moved, renamed or joined later makes it wait for all processors each time.
pub async fn pair(handle: &Handle, bridge: &str, outer: &str, namespace: RawFd) -> Result<(), LinkError> {
    let attempted = || format!("make the pair of links {outer}");
    let bridge = index(handle, bridge).await?;
    let inner = LinkUnspec::new_with_name(POD_LINK).setns_by_fd(namespace).build();
    let ends = InfoData::Veth(InfoVeth::Peer(inner));
    let both = LinkVeth::new(outer, POD_LINK).set_info_data(ends).controller(bridge).up().build();
    handle.link().add(both).execute().await.map_err(failed(attempted()))?;
    // A machine whose bridges ask netfilter translates a frame in the bridge: a pod that is led to itself
    // then gets it back by the way it came.
    let outer = index(handle, outer).await?;
    let back = LinkBridgePort::new(outer).hairpin(true).build();
    handle.link().set_port(back).execute().await.map_err(failed(attempted()))
}

/// Inside of the namespace: the links up, the pod's address, the way out.
///
/// The address stands alone (`/32`), so that even neighbours are reached by the machine: answers then take
/// the way of the questions, and a Service's address is put back in each of them.
pub async fn inside(handle: &Handle, ip: Ipv4Addr, gateway: Ipv4Addr) -> Result<(), LinkError> {
    up(handle, LOOPBACK).await?;
    let eth0 = index(handle, POD_LINK).await?;
    address(handle, eth0, ip, 32).await?;
    up(handle, eth0).await?;
    let near = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(gateway, 32).output_interface(eth0);
    let out = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(eth0);
    for route in [near.scope(RouteScope::Link).build(), out.build()] {
        let made = handle.route().add(route).execute().await;
        unless_there(made).map_err(failed("make the pod's routes"))?;
    }
    Ok(())
}

/// Takes a link away, and with it its other end. No link of this name is fine.
pub async fn remove(handle: &Handle, name: &str) -> Result<(), LinkError> {
    let Ok(index) = index(handle, name).await else { return Ok(()) };
    handle.link().del(index).execute().await.map_err(failed(format!("remove the link {name}")))
}

/// The way to a range: over the bridge, or over another machine. Idempotent.
pub async fn route(handle: &Handle, to: Range, via: Via<'_>) -> Result<(), LinkError> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to.network(), to.prefix);
    let route = match via {
        Via::Bridge(bridge, source) => {
            route.output_interface(index(handle, bridge).await?).pref_source(source)
        }
    };
    let made = handle.route().add(route.build()).replace().execute().await;
    made.map_err(failed(format!("make the route to {to}")))
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via<'a> {
    /// The bridge of this name, with this source address.
    Bridge(&'a str, Ipv4Addr),
}

/// One more address of a link. Idempotent.
pub async fn extra_address(handle: &Handle, link: &str, ip: Ipv4Addr) -> Result<(), LinkError> {
    let index = index(handle, link).await?;
    address(handle, index, ip, 32).await
}

async fn address(handle: &Handle, index: u32, ip: Ipv4Addr, prefix: u8) -> Result<(), LinkError> {
    let made = handle.address().add(index, IpAddr::V4(ip), prefix).execute().await;
    unless_there(made).map_err(failed(format!("give a link the address {ip}/{prefix}")))
}

/// Brings a link up.
pub async fn up(handle: &Handle, index: u32) -> Result<(), LinkError> {
    let up = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(up).execute().await.map_err(failed("bring a link up"))
}

/// The number of a link.
pub async fn index(handle: &Handle, name: &str) -> Result<u32, LinkError> {
    let mut found = handle.link().get().match_name(name.to_owned()).execute();
    let link: Option<LinkMessage> =
        found.try_next().await.map_err(failed(format!("find the link {name}")))?;
    let link =
        link.ok_or(rtnetlink::Error::RequestFailed).map_err(failed(format!("find the link {name}")))?;
    Ok(link.header.index)
}
