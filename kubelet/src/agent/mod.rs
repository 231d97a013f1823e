//! The loop around the pods' lives.

use std::io;

use tokio::sync::watch;

use crate::config::KubeletConfig;

/// Why the agent could not start or had to give up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The data directory can't be used.
    #[error("use the data directory {path}")]
    DataDir {
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Runs the node until `shutdown` turns true (or its sender is dropped).
pub async fn run(
    client: kube::Client,
    config: KubeletConfig,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let _ = (client, config);
    let _ = shutdown.wait_for(|stop| *stop).await;
    Ok(())
}
