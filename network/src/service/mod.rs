//! Services' addresses and ports, led to their pods by nftables.
//!
//! [`plan`] reads Services and EndpointSlices into [`plan::Route`]s, [`table`] lays these out as chains,
//! maps and sets. Both are values, so what the kernel is told can be read in a test. [`health`] says what balancers
//! in front of the nodes are told, [`doors`] tells them.

pub mod doors;
pub mod health;
pub mod plan;
pub mod table;

#[cfg(test)]
mod tests;
