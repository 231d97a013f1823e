//! The language of the cluster: kinds, names, quantities, selectors, schemas, patches. Values only.
//!
//! Everything here is a function over values: no async, no clock, no randomness, no sockets. Time and
//! random numbers come in as arguments. Inside the API server an object is a [`serde_json::Value`]
//! (whose sorted maps are its canonical form); clients use the typed structs of [`k8s`].

pub use k8s_openapi as k8s;

pub mod bootstrap_token;
pub mod cel;
pub mod cidr;
pub mod convert;
pub mod crd;
pub mod cron;
pub mod csr;
pub mod defaults;
pub mod difference;
pub mod error;
pub mod hash;
pub mod jsonpath;
pub mod managed;
pub mod name;
pub mod object;
pub mod patch;
pub mod pluck;
pub mod pod;
pub mod pod_security;
pub mod quantity;
pub mod quota;
pub mod schema;
pub mod selector;
pub mod self_fence;
pub mod status;
#[cfg(test)]
mod testing;
pub mod time;
pub mod validation;
pub mod yaml;
