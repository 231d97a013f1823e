//! Which address a pod gets: the next free one of the node's range, so that one that has just been given
//! back isn't met by connections that are meant for its last owner.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    first: u32,
    /// How many bits are the same.
    pub prefix: u8,
}

/// A text isn't a range such as `10.244.1.0/24`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 range such as 10.244.1.0/24")]
pub struct NotARange(String);

impl FromStr for Range {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        let wrong = || NotARange(text.to_owned());
        let (ip, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let ip: Ipv4Addr = ip.parse().map_err(|_| wrong())?;
        prefix.parse().ok().and_then(|prefix| Self::new(ip, prefix)).ok_or_else(wrong)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

impl Range {
    /// The range of this address with this many leading bits; `None` for those that hold no pods.
    pub fn new(ip: Ipv4Addr, prefix: u8) -> Option<Self> {
        (1..=30).contains(&prefix).then(|| Self { first: u32::from(ip) & mask(prefix), prefix })
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX << (32 - u32::from(prefix))
}

impl Range {
    /// The bridge's address in this range: the first one.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.first + 1)
    }

    /// The first address, which names the range and is nobody's.
    pub fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.first)
    }

    /// If the address is of this range.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        u32::from(ip) & mask(self.prefix) == self.first
    }

    /// The last address is for all; the first two are the network's and the bridge's.
    fn pods(&self) -> std::ops::Range<u32> {
        self.first + 2..self.first | !mask(self.prefix)
    }
}

/// Who has which address of a range.
#[derive(Clone, Debug)]
pub struct Addresses {
    range: Range,
    owners: BTreeMap<u32, String>,
    next: u32,
}

/// All addresses are given out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all {count} pod addresses of {range} are in use")]
pub struct Exhausted {
    count: usize,
    range: Range,
}

impl Addresses {
    /// Nobody has any, but for these: pods that an earlier run of the agent left.
    pub fn new(range: Range, taken: impl IntoIterator<Item = (Ipv4Addr, String)>) -> Self {
        let taken = taken.into_iter().filter(|(ip, _)| range.contains(*ip));
        let owners: BTreeMap<u32, String> = taken.map(|(ip, owner)| (u32::from(ip), owner)).collect();
        let next = owners.keys().next_back().map_or(range.pods().start, |last| last + 1);
        Self { range, owners, next }
    }

    /// The owner's address, the same one each time it asks; `wanted`, if it has none and that one is free.
    ///
    /// # Errors
    /// The range is exhausted.
    pub fn take(&mut self, owner: &str, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, Exhausted> {
        if let Some((ip, _)) = self.owners.iter().find(|(_, found)| *found == owner) {
            return Ok(Ipv4Addr::from(*ip));
        }
        let pods = self.range.pods();
        let wanted = wanted.map(u32::from).filter(|ip| pods.contains(ip)).into_iter();
        let mut candidates = wanted.chain(self.next..pods.end).chain(pods.start..self.next.min(pods.end));
        let free = candidates.find(|ip| !self.owners.contains_key(ip));
        let ip = free.ok_or(Exhausted { count: pods.len(), range: self.range })?;
        self.owners.insert(ip, owner.to_owned());
        self.next = ip + 1;
        Ok(Ipv4Addr::from(ip))
    }

    /// The owner needs its address no more.
    pub fn give_back(&mut self, owner: &str) {
        self.owners.retain(|_, found| found != owner);
    }
}
