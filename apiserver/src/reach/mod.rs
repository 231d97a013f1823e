//! How the API server reaches others: webhooks, API servers behind it, pods, Services, kubelets, providers of
//! identities.
//!
//! One way for all: [`services`] finds who is behind a Service, [`tls`] says whom to believe and who we are, and a
//! [`Target`] is asked one question over a connection of its own. Redirects are never followed, and a name is
//! looked up only where an administrator's configuration holds one.

mod authorities;
mod client;
pub mod services;
pub mod tls;

pub use client::{Exchange, ReachError, Target, Tls, whole};
