//! What is: a node's promise and its report; the runtime trait.

pub mod agent;
pub mod config;
pub mod runtime;
pub mod shim;

pub use agent::{RunError, run};
pub use config::{
    Backoff, CapacityOverrides, Heartbeat, KubeletConfig, LogLimits, NodeName, RuntimeKind, ServingTls,
};
pub use runtime::native::power_off;
pub use shim::shim_main;
