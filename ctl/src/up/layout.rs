//! The data directory of `amoeba up`: where everything lies.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::cluster::kubeconfig::ADMIN_KUBECONFIG;

/// A member (`m1`, `m2`, …), a node (`n1`, `n2`, …) or all simulated nodes together (`fake`). Members come first in every list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChildId {
    /// A member of the control plane; its number is its Raft id.
    Member(u32),
    /// A node agent.
    Node(u32),
    /// The process that simulates nodes.
    Fake,
}

impl ChildId {
    /// Whether it is a node, or simulates some.
    pub fn is_node(self) -> bool {
        matches!(self, Self::Node(_) | Self::Fake)
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(number) => write!(f, "m{number}"),
            Self::Node(number) => write!(f, "n{number}"),
            Self::Fake => write!(f, "fake"),
        }
    }
}

impl FromStr for ChildId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("\"{text}\" is neither a member (m1, m2, …) nor a node (n1, n2, …)");
        if text == "fake" {
            return Ok(Self::Fake);
        }
        let number = |digits: &str| digits.parse::<u32>().ok().filter(|number| *number > 0).ok_or_else(wrong);
        match text.split_at_checked(1) {
            Some(("m", digits)) => number(digits).map(Self::Member),
            Some(("n", digits)) => number(digits).map(Self::Node),
            _ => Err(wrong()),
        }
    }
}

/// The paths below one data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of `root`, which must be absolute: children have other working directories.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the cluster is made of.
    pub fn shape(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// Held by the supervisor.
    pub fn lock(&self) -> PathBuf {
        self.root.join("up.lock")
    }

    /// Where the supervisor takes orders.
    pub fn socket(&self) -> PathBuf {
        self.root.join("up.sock")
    }

    /// Full rights on the cluster.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.root.join(ADMIN_KUBECONFIG)
    }

    /// Certificate authorities.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Images, shared by all nodes.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// What belongs to a child.
    pub fn child(&self, child: ChildId) -> PathBuf {
        let group = if child.is_node() { "nodes" } else { "members" };
        self.root.join(group).join(child.to_string())
    }

    /// The log of a child.
    pub fn log(&self, child: ChildId) -> PathBuf {
        self.child(child).join(if child.is_node() { "node.log" } else { "server.log" })
    }

    /// How a node reaches the API.
    pub fn node_kubeconfig(&self, child: ChildId) -> PathBuf {
        self.child(child).join("kubeconfig")
    }

    /// Certificate of a node's own API.
    pub fn node_certificate(&self, child: ChildId) -> PathBuf {
        self.child(child).join("kubelet.crt")
    }

    /// Key of that certificate.
    pub fn node_key(&self, child: ChildId) -> PathBuf {
        self.child(child).join("kubelet.key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_named_by_letter_and_number() {
        for (text, child) in [("m1", ChildId::Member(1)), ("n12", ChildId::Node(12)), ("fake", ChildId::Fake)]
        {
            assert_eq!(text.parse(), Ok(child));
            assert_eq!(child.to_string(), text);
        }
        for text in ["", "m", "n0", "x1", "m1x", "1", "ü1"] {
            assert!(text.parse::<ChildId>().is_err(), "{text}");
        }
    }

    #[test]
    fn everything_lies_below_the_root() {
        let layout = Layout::new("/d".into());
        assert_eq!(layout.log(ChildId::Member(1)), Path::new("/d/members/m1/server.log"));
        assert_eq!(layout.node_kubeconfig(ChildId::Node(2)), Path::new("/d/nodes/n2/kubeconfig"));
    }
}
