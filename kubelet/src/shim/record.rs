//! A container's directory: what agent and shim tell each other across restarts.
//!
//! | file | written by | when |
//! |---|---|---|
//! | `config.json` | agent | before the shim starts; what to run |
//! | `state.json` | shim | once the command runs; who it is |
//! | `exit.json` | shim | once the command ended; how |
//! | `cancelled` | agent | instead of a start that an agent before it began and never saw through |
//!
//! Always holds: a file is complete or absent for whoever lives, because it is renamed into place. How a run ended
//! is fsynced before that; what only matters while it runs is not.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::LogLimits;
use crate::container::Credentials;
use crate::process::ProcessIdentity;
use crate::runtime::{ContainerConfig, Exit};

/// What the agent tells the shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What to run.
    pub config: ContainerConfig,
    /// Where standard output and error go.
    pub log_path: PathBuf,
    /// When to rotate.
    pub limits: LogLimits,
    /// The node's promise, if it ends with that.
    #[serde(default)]
    pub promise: Option<PathBuf>,
}

/// Who runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningRecord {
    /// The supervisor.
    pub shim: ProcessIdentity,
    /// The command's process.
    pub process: ProcessIdentity,
    /// When it began.
    pub started_at: Timestamp,
    /// Who the command is; unknown of a plain process.
    #[serde(default)]
    pub credentials: Option<Credentials>,
}

/// The directory of one run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerDir(PathBuf);

impl ContainerDir {
    /// At this path; it need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the directory with its order. Not fsynced, so that a start waits for no disk: after a power cut
    /// nothing runs, and a run whose record is lost is known from the pod's own record.
    pub fn create(&self, order: &Order) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        write_atomically(&self.0.join("config.json"), order)
    }

    /// What to run.
    pub fn order(&self) -> io::Result<Order> {
        read(&self.0.join("config.json"))
    }

    /// Gives a start up that nobody waits for any more. A shim that has just begun to run it ends itself:
    /// it writes `state.json` before it looks for this mark, and the agent looks for `state.json` after it
    /// has made the mark, so at least one of them sees the other.
    pub fn cancel(&self) -> io::Result<()> {
        File::create(self.0.join("cancelled")).map(drop)
    }

    /// The start was given up.
    pub fn is_cancelled(&self) -> bool {
        self.0.join("cancelled").exists()
    }

    /// Who runs, if the command was started.
    pub fn running(&self) -> io::Result<Option<RunningRecord>> {
        optional(read(&self.0.join("state.json")))
    }

    /// Says who runs. Not fsynced: after a power cut nobody runs, and whoever reads an older boot's
    /// record knows it.
    pub fn set_running(&self, record: &RunningRecord) -> io::Result<()> {
        write_atomically(&self.0.join("state.json"), record)
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> io::Result<Option<Exit>> {
        optional(read(&self.0.join("exit.json")))
    }

    /// Says how it ended; afterwards that and the order survive a power cut.
    pub fn set_exit(&self, exit: &Exit) -> io::Result<()> {
        File::open(self.0.join("config.json"))?.sync_all()?;
        write_durably(&self.0.join("exit.json"), exit)
    }
}

fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a JSON file.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = fs::read(path)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
}

/// Writes a JSON file so that it is there, whole, after a power cut.
pub fn write_durably<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write(path, value, File::sync_all)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Writes a JSON file so that a reader sees the old one or the new one.
pub fn write_atomically<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write(path, value, |_| Ok(()))
}

fn write<T: Serialize>(path: &Path, value: &T, settle: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    settle(&file)?;
    drop(file);
    fs::rename(&temporary, path)
}
