//! Addresses and networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Answer;
use crate::cel::value::Value;

use Value::{Bool, Cidr, Int, Ip, String as Text};

pub(super) fn call<'v>(name: &str, args: &[Value<'v>]) -> Option<Answer<'v>> {
    Some(match (name, args) {
        ("ip", [Text(text)]) => address(text).map(Ip),
        ("isIP", [Text(text)]) => Ok(Bool(address(text).is_ok())),
        ("ip.isCanonical", [Text(text)]) => address(text).map(|ip| Bool(ip.to_string() == **text)),
        ("cidr", [Text(text)]) => network(text).map(|(ip, bits)| Cidr(ip, bits)),
        ("isCIDR", [Text(text)]) => Ok(Bool(network(text).is_ok())),
        (_, [Ip(ip)]) => return of_address(name, *ip).map(Ok),
        ("containsIP", [Cidr(net, bits), Ip(ip)]) => Ok(Bool(contains(*net, *bits, *ip))),
        ("containsIP", [Cidr(net, bits), Text(ip)]) => address(ip).map(|ip| Bool(contains(*net, *bits, ip))),
        ("containsCIDR", [Cidr(net, bits), Cidr(ip, inner)]) => {
            Ok(Bool(inner >= bits && contains(*net, *bits, *ip)))
        }
        ("containsCIDR", [Cidr(net, bits), Text(inner)]) => {
            network(inner).map(|(ip, inner)| Bool(inner >= *bits && contains(*net, *bits, ip)))
        }
        ("ip", [Cidr(ip, _)]) => Ok(Ip(*ip)),
        ("masked", [Cidr(ip, bits)]) => Ok(Cidr(masked(*ip, *bits), *bits)),
        ("prefixLength", [Cidr(_, bits)]) => Ok(Int((*bits).into())),
        _ => return None,
    })
}

fn of_address<'v>(name: &str, ip: IpAddr) -> Option<Value<'v>> {
    Some(match name {
        "family" => Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Bool(ip.is_unspecified()),
        "isLoopback" => Bool(ip.is_loopback()),
        "isLinkLocalMulticast" => Bool(match ip {
            IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
            IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
        }),
        "isLinkLocalUnicast" => Bool(is_link_local(ip)),
        "isGlobalUnicast" => {
            let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
            let local = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(ip);
            Bool(!broadcast && !local)
        }
        _ => return None,
    })
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    let parsed: IpAddr =
        text.parse().map_err(|_| format!("IP Address {text:?} parse error during conversion from string"))?;
    match parsed {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        ip => Ok(ip),
    }
}

fn network(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong =
        || format!("network address parse error during conversion from string: invalid CIDR {text:?}");
    let (ip, bits) = text.split_once('/').ok_or_else(wrong)?;
    let ip = address(ip)?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let bits: u8 = bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(wrong)?;
    Ok((ip, bits))
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    }
}

fn contains(net: IpAddr, bits: u8, ip: IpAddr) -> bool {
    net.is_ipv4() == ip.is_ipv4() && masked(net, bits) == masked(ip, bits)
}
