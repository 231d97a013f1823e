//! Demonstrations on a cluster of their own: real processes, really killed.

mod cluster;
mod heal;
mod leader;
pub mod self_heal;
mod timeline;
pub mod visitor;
mod writer;
