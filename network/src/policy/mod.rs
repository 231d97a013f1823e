//! NetworkPolicy: which traffic of pods is let through.
//!
//! [`plan`] reads NetworkPolicies, pods and namespaces into an [`plan::Isolation`], [`layout`] lays it out as
//! an nftables table, [`keeper`] keeps the kernel's as they say. Only forwarded packets are judged: what
//! the machine itself says to its pods (probes), and they to it, is never restricted, as the API documents; and
//! what belongs to a connection that was let through passes with it.

pub mod keeper;
pub mod layout;
pub mod plan;
pub mod pod;

#[cfg(test)]
mod oracle;
