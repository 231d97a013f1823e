//! The cluster's names: Kubernetes' DNS specification 1.1.0, answered from Services and EndpointSlices.
//!
//! [`zone`] is the answer as a value; [`server`] speaks the protocol over UDP and TCP, and passes on to
//! the machine's own resolvers what isn't the cluster's.

pub mod server;
pub mod zone;

#[cfg(test)]
mod tests;
