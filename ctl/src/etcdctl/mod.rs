//! The store's cluster as an operator of etcd sees it: endpoints, members, snapshots.
//!
//! Everything here speaks etcd's own API, so it works on `amoeba store`, on `amoeba server`, and mostly on a
//! stock etcd. [`endpoints`] says which cluster, [`cluster`] asks it.

pub mod channel;
pub mod cluster;
pub mod endpoints;
