//! Which network the pods of a local cluster have.

use std::ffi::OsString;

use network::{Claim, claim};
use serde::{Deserialize, Serialize};

use super::UpError;

/// What one cluster of a machine has: the addresses of its pods. The others do with the machine's network.
const NAME: &str = "amoeba/pod-addresses";

/// What `--pod-network` can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Addresses of their own, joined by a bridge
    Bridge,
    /// The machine's network and addresses
    Host,
}

/// The network of a cluster's pods.
#[derive(Debug)]
pub enum PodNetwork {
    /// Each pod has an address of its node's range, for as long as this is held.
    Bridge(#[expect(dead_code, reason = "it is held, not used")] Claim),
    /// Pods have the machine's address. Why, if nobody asked for it.
    Host(Option<String>),
}

impl PodNetwork {
    /// What was asked for, or else what the machine allows.
    ///
    /// # Errors
    /// [`Kind::Bridge`] was asked for and can't be had.
    pub fn choose(asked: Option<Kind>, nodes: u32) -> Result<Self, UpError> {
        match (asked, bridge()) {
            (Some(Kind::Host), _) => Ok(Self::Host(None)),
            _ if nodes == 0 => Ok(Self::Host(None)),
            (Some(Kind::Bridge), Err(why)) => Err(UpError::PodNetwork(why)),
            (None, Err(why)) => Ok(Self::Host(Some(why))),
            (_, Ok(claim)) => Ok(Self::Bridge(claim)),
        }
    }

    /// What the user should know.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Host(Some(why)) => Some(format!("pods share this machine's network and address: {why}")),
            _ => None,
        }
    }

    /// The flags of a node.
    pub fn arguments(&self, node: u32) -> Vec<OsString> {
        match self {
            Self::Bridge(_) => {
                ["--pod-cidr".to_owned(), format!("10.244.{node}.0/24")].map(Into::into).to_vec()
            }
            Self::Host(_) => Vec::new(),
        }
    }
}

fn bridge() -> Result<Claim, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("network namespaces need root".to_owned());
    }
    if !has_program("nft") {
        return Err("the program nft isn't there (Debian's package nftables)".to_owned());
    }
    claim(NAME).ok_or_else(|| "another cluster of this machine has the pods' addresses".to_owned())
}

fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}
