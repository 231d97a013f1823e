//! Node: created with its status, because the kubelet reports itself in one request.

use crate::registry::strategy::{Strategy, Traits};

/// The strategy of nodes.
pub struct Node;

impl Strategy for Node {
    fn traits(&self) -> Traits {
        Traits::ORDINARY
    }
}
