//! Services' addresses and ports, led to their pods by nftables.
//!
//! [`plan`] reads Services and EndpointSlices into [`plan::Route`]s, [`table`] lays these out as chains,
//! maps and sets. Both are values, so what the kernel is told can be read in a test.

pub mod plan;
pub mod table;

#[cfg(test)]
mod tests;
