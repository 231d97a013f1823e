//! The store's other face: etcd's v3 gRPC API over it, and the contract over a stock etcd.
//!
//! [`serve`] answers etcd's clients (`etcdctl`, client libraries, Kubernetes) from a [`store::Store`].
//! gRPC is spoken directly on HTTP/2 frames: a call is a stream, a message is a length and bytes, the
//! outcome is a trailer. [`client::EtcdKv`] is the way back: the store's contract over an etcd cluster.
//!
//! What a request means is decided in functions over values (`kv::{check, range, txn, response}`,
//! `watch::{requests, encode}`); the rest waits for sockets and the store.

mod auth;
mod authority;
mod caller;
pub mod client;
mod cluster;
mod config;
mod connection;
mod election;
mod error;
mod grpc;
mod health;
mod http1;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod member;
mod monitor;
pub mod proto;
mod queue;
mod server;
mod service;
mod watch;

pub use config::{Config, Limits};
pub use server::serve;
