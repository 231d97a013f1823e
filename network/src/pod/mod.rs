//! A network namespace and an address for each pod, joined to the machine's bridge.
//!
//! [`addresses`] decides which address a pod gets; [`namespace`] makes and removes what the kernel needs.

pub mod addresses;
pub mod link;
pub mod namespace;
