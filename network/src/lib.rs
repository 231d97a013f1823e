//! Between pods: an address for each, a way from a Service's address to one of its pods, and names.
//!
//! Three parts that know nothing of each other. [`pod`] makes a network namespace with an address for
//! each pod and joins it to the machine's bridge; [`service`] compiles Services and EndpointSlices into
//! nftables rules; [`dns`] answers questions about the cluster's names. What decides is a value in each
//! ([`service::table`], [`dns::zone`], [`pod::addresses`]); [`run`] drives them from informers.
//!
//! Everything is IPv4: the API server gives no other addresses out.

mod conntrack;
pub mod dns;
mod driver;
pub mod held_namespace;
mod neighbours;
mod nft;
pub mod pod;
pub mod policy;
pub mod service;
mod table;

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod scale_tests;

pub use driver::{Claim, ClusterNetwork, Error, Settings, claim, run};
pub use nft::NftError;
