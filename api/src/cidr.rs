//! Ranges of IP addresses: `10.96.0.0/12`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses with a common prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    first: u128,
    /// Bits that are free in the range.
    free: u32,
    ipv6: bool,
}

impl Cidr {
    /// The IPv4 range with this first address and length of prefix; bits behind the prefix are dropped.
    pub const fn v4(first: [u8; 4], prefix: u32) -> Self {
        let free = 32 - prefix;
        Self { first: ((u32::from_be_bytes(first) >> free) << free) as u128, free, ipv6: false }
    }

    /// Reads a range; `None` if it is none, or has bits behind its prefix.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let (first, bits, ipv6) = match address.parse().ok()? {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32, false),
            IpAddr::V6(address) => (u128::from(address), 128, true),
        };
        let length: u32 = length.parse().ok().filter(|length| *length <= bits)?;
        let range = Self { first, free: bits - length, ipv6 };
        (first & range.mask() == 0).then_some(range)
    }

    /// Whether it is a range of IPv6 addresses.
    pub fn is_ipv6(&self) -> bool {
        self.ipv6
    }

    /// How many leading bits all its addresses have in common.
    pub fn prefix(&self) -> u32 {
        if self.ipv6 { 128 - self.free } else { 32 - self.free }
    }

    /// How many addresses are in it, capped at `u64::MAX`.
    pub fn size(&self) -> u64 {
        if self.free >= 64 { u64::MAX } else { 1 << self.free }
    }

    /// The address with this number; wraps around within the range.
    pub fn nth(&self, number: u64) -> IpAddr {
        let address = self.first | (u128::from(number) & self.mask());
        match self.ipv6 {
            true => IpAddr::V6(Ipv6Addr::from(address)),
            false => IpAddr::V4(Ipv4Addr::from(u32::try_from(address).unwrap_or(u32::MAX))),
        }
    }

    /// Whether an address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, ipv6) = match address {
            IpAddr::V4(address) => (u128::from(u32::from(address)), false),
            IpAddr::V6(address) => (u128::from(address), true),
        };
        ipv6 == self.ipv6 && bits & !self.mask() == self.first
    }

    fn mask(&self) -> u128 {
        if self.free >= 128 { u128::MAX } else { (1 << self.free) - 1 }
    }
}

/// The text isn't a range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of addresses such as 10.96.0.0/12")]
pub struct NotARange(String);

impl FromStr for Cidr {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        Self::parse(text).ok_or_else(|| NotARange(text.to_owned()))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.nth(0), self.prefix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_a_first_and_a_last_address() {
        let cases = [
            ("10.96.0.0/12", "10.96.0.0", "10.111.255.255", 1 << 20),
            ("10.0.0.4/32", "10.0.0.4", "10.0.0.4", 1),
            ("fd00::/112", "fd00::", "fd00::ffff", 1 << 16),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255", 1 << 32),
            ("::/0", "::", "::ffff:ffff:ffff:ffff", u64::MAX),
        ];
        for (text, first, last, size) in cases {
            let range = Cidr::parse(text).expect(text);
            assert_eq!((range.size(), range.to_string().as_str()), (size, text));
            assert_eq!(range.nth(0), first.parse::<IpAddr>().expect("an address"));
            let last: IpAddr = last.parse().expect("an address");
            assert_eq!(range.nth(size - u64::from(size != u64::MAX)), last);
            assert!(
                range.contains(last) && !range.contains("192.0.2.1".parse().expect("one"))
                    || text.starts_with("0.")
            );
        }
        for text in ["", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "x/8", "10.0.0.0/-1", "fd00::1/64"] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
    }
}
