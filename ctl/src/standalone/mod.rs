//! The store alone, without Kubernetes: what etcd's flags mean to it.
//!
//! Flags become values here ([`url`], [`initial_cluster`], [`tls`]), and [`settings`] judges them together.
//! `amoeba store` runs the result; nothing here opens the store or listens.

pub mod initial_cluster;
pub mod settings;
pub mod tls;
pub mod url;
