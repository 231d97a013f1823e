//! What a member of the control plane stands on: its certificates ([`certificates`]) and what keeps its
//! objects ([`backing`]), the own store or a stock etcd cluster.

pub mod backing;
pub mod certificates;
