//! The door: the only reader and writer of the store.
//!
//! [`ApiServer`] speaks the Kubernetes API over a [`store::kv::Kv`]. A request passes, in this order:
//! authentication, authorization, decoding, the verb (patch, defaults, admission, validation), one store
//! transaction, and the response. There is one generic implementation of each verb ([`verbs`]); what
//! differs between kinds is a row of the [`registry`] and a small strategy. Objects are JSON values here,
//! never Rust types: a built-in kind and a custom one take the same path.

pub mod addresses;
pub mod admission;
mod aggregation;
pub mod audit;
pub mod auth;
pub mod body;
pub mod bootstrap;
mod compress;
pub mod config;
pub mod crd;
pub mod discovery;
mod dispatch;
pub mod encryption;
mod error;
pub mod etag;
mod first_objects;
mod flow;
#[cfg(test)]
mod golden;
pub mod handle;
pub mod health;
pub mod in_process;
mod kubernetes_service;
pub mod members;
pub mod metrics;
mod negotiate;
pub mod node_proxy;
mod open_id;
pub mod openapi;
pub mod peer;
pub mod pki;
pub mod protobuf;
mod proxy;
mod query;
mod rbac_feed;
mod reach;
pub mod registry;
mod relay;
pub mod request;
mod resource_metrics;
mod response;
pub mod server;
mod stall;
pub mod storage;
mod strategies;
pub mod table;
mod transaction;
mod verbs;
pub mod version;
mod warnings;
mod webhook;
mod websocket;

pub use auth::Identity;
pub use body::Body;
pub use config::{Config, Limits};
pub use handle::{ApiServer, StartError};
pub use in_process::InProcess;
pub use peer::Peer;
pub use server::ServeError;
