//! A request's way through the server.

use std::sync::Arc;

use http::{Request, Response};
use store::kv::{Kv, KvError};

use crate::auth::Identity;
use crate::body::Body;
use crate::config::Config;
use crate::in_process::InProcess;
use crate::peer::Peer;
use crate::registry::Registry;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store refused to read or write what every cluster needs.
    #[error("prepare the store")]
    Store(#[source] KvError),
}

/// The API server: stateless but for caches of what is in the store.
pub struct ApiServer {
    pub(crate) store: Arc<dyn Kv>,
    pub(crate) config: Config,
    pub(crate) registry: Registry,
}

impl ApiServer {
    /// Starts on a store, and makes sure that the objects exist that every cluster has.
    ///
    /// # Errors
    /// If the store can't be read or written.
    pub async fn start(store: Arc<dyn Kv>, config: Config) -> Result<Arc<Self>, StartError> {
        Ok(Arc::new(Self { store, config, registry: Registry::builtin() }))
    }

    /// Answers one request of `peer`.
    pub async fn handle(self: &Arc<Self>, _request: Request<Body>, _peer: Peer) -> Response<Body> {
        Response::new(Body::empty())
    }

    /// A client of this server in the same process, which acts as `identity`.
    pub fn in_process(self: &Arc<Self>, identity: Identity) -> InProcess {
        InProcess::new(self.clone(), identity)
    }
}
