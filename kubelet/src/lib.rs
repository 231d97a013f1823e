//! What is: a node's promise and its report; the runtime trait.
//!
//! A pod's life is one value ([`pod::life::PodLife`]) that is fed events and hands back effects; the
//! agent is the loop around it. Processes live under a shim each, so that they outlive the agent, and
//! whatever the agent must know after a restart is on disk before a process starts.
//!
//! What this crate deliberately doesn't know: where a pod should run (the scheduler binds it) and when
//! a silent node is given up (the node lifecycle controller decides). It meets both only through objects.

pub mod agent;
mod authorities;
pub mod config;
pub mod confined;
pub mod container;
pub mod credentials;
pub mod eviction;
pub mod fence;
pub mod hollow;
pub mod image;
pub mod node;
pub mod pod;
pub mod process;
pub mod runtime;
pub mod server;
pub mod shim;
pub mod stats;
mod wire;

pub use agent::{RunError, run};
pub use config::{
    Backoff, CapacityOverrides, Heartbeat, KubeletConfig, LogLimits, NodeName, PodNetworking, RuntimeKind,
    ServingCertificate, ServingTls,
};
pub use runtime::native::power_off;
pub use shim::shim_main;
