//! Images: where they come from, how they are kept, and what they say of a container.
//!
//! An image is a configuration and a row of layers. Each layer is unpacked once, into a directory of its own
//! with overlayfs' marks for what it removes, and shared by all images that have it.
//!
//! Always holds: nothing is unpacked outside of its layer's directory; a layer's contents and a
//! configuration are what their digests say; an image is listed only when all of it is there.

pub mod archive;
pub mod config;
pub mod digest;
pub mod layout;
pub mod reference;
pub mod registry;
pub mod store;
pub mod unpack;
mod zstd;

use std::io;
use std::path::{Path, PathBuf};

pub use config::ImageConfig;
pub use digest::Digest;
pub use reference::Reference;
pub use store::{Image, ImageStore};

/// Why an image can't be had, kept or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name isn't one.
    #[error("couldn't parse image name {text:?}: {why}")]
    Reference {
        /// As written.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// The system refused.
    #[error("{attempted} {path}")]
    System {
        /// Such as `read`.
        attempted: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What was to be loaded isn't an image as it should be.
    #[error("{0}")]
    Malformed(String),
    /// Contents and digest differ.
    #[error("{what} has the digest {found}, and {wanted} is asked for")]
    Digest {
        /// What was read.
        what: String,
        /// Of the contents.
        found: Digest,
        /// As named.
        wanted: Digest,
    },
    /// No such image.
    #[error("image {0} is not in the store: `amoeba image ls` shows those that are")]
    Unknown(String),
    /// A container runs from it.
    #[error("image {0} is in use by a container: delete its pods first")]
    InUse(String),
}

impl ImageError {
    /// The error and its causes on one line.
    pub fn chain(&self) -> String {
        use std::error::Error as _;
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        text
    }
}

/// Says what was attempted when the system refuses.
pub(crate) fn system<'a>(
    attempted: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> ImageError + 'a {
    move |source| ImageError::System { attempted, path: path.to_owned(), source }
}
