//! The cluster as the verbs see it: an address, a namespace, its kinds, and requests for JSON values.
//!
//! Everything here works against any Kubernetes API server. Objects stay `serde_json::Value`: a verb must
//! show and change kinds that this binary has never heard of.

pub mod connect;
pub mod kinds;
pub mod kubeconfig;
pub mod path;
pub mod request;
pub mod watch;

use tokio::sync::OnceCell;

use self::kinds::Kinds;
use self::request::RequestError;

/// A client of one cluster with the user's namespace.
pub struct Cluster {
    client: kube::Client,
    /// Where the API server is, for messages.
    address: String,
    /// The namespace of the flag or of the context.
    namespace: String,
    /// The API server's kinds, asked for once.
    kinds: OnceCell<Kinds>,
}

impl Cluster {
    /// A client that talks to `address` (which is only printed).
    pub fn new(client: kube::Client, address: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self { client, address: address.into(), namespace: namespace.into(), kinds: OnceCell::new() }
    }

    /// The namespace to use where the user named none.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Where the API server is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What the API server serves; asked for on first use.
    pub async fn kinds(&self) -> Result<&Kinds, RequestError> {
        self.kinds.get_or_try_init(|| kinds::discover(self)).await
    }
}
