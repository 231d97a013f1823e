//! The file that says which profiles the scheduler has.

use std::path::{Path, PathBuf};
use std::{fs, io};

use scheduler::configuration::{Configuration, Invalid};

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// It can't be read.
    #[error("cannot read the scheduler's configuration {path}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It says something that can't be.
    #[error("the scheduler's configuration {path} is invalid", path = .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The field, and what is wrong with it.
        #[source]
        source: Invalid,
    },
}

/// Reads the file.
pub fn read(path: &Path) -> Result<Configuration, ConfigurationError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ConfigurationError::Unreadable { path: path.to_owned(), source })?;
    Configuration::parse(&text)
        .map_err(|source| ConfigurationError::Invalid { path: path.to_owned(), source })
}

/// Reads the file for a scheduler that is about to run by it, and says in the log what of it has no effect.
pub fn read_to_run(path: &Path) -> Result<Configuration, ConfigurationError> {
    let read = read(path)?;
    for note in &read.notes {
        tracing::warn!("{path}: {note}", path = path.display());
    }
    Ok(read)
}
