//! What is measured, one file each. Each returns rows for the table.

pub mod api_rate;
pub mod idle_memory;
pub mod leader_kill;
pub mod node_kill;
pub mod pod_rate;
pub mod startup;

use std::path::PathBuf;

/// What every measurement is given.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The binary that is measured.
    pub binary: PathBuf,
    /// How often each measurement is repeated.
    pub runs: usize,
}
