//! A network namespace and an address for each pod, joined to the machine's bridge.
//!
//! [`host_ports`] says which ports of the machine lead to it. [`addresses`] decides which address a pod gets; [`namespace`] makes and removes what the kernel needs.

pub mod addresses;
pub mod host_ports;
pub mod leftovers;
pub mod link;
pub mod namespace;
