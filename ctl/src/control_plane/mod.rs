//! What a member of the control plane stands on: its certificates ([`certificates`]), whom it
//! believes ([`identity`]) and what keeps its objects ([`backing`]), the own store or a stock etcd cluster.

pub mod backing;
pub mod certificates;
pub mod identity;
pub mod load;
