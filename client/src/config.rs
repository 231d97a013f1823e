//! Building a client: from a kubeconfig (with several servers), or over a service in this process.
//!
//! What always holds: the first server that can be connected to is used until it fails; a request is
//! repeated on another server only if the first surely didn't act on it. Below `main` nobody reads the
//! environment, so the kubeconfig's path is an argument.

use crate::{
    cause,
    failover::{Failover, HeaderTimeout},
};
use http::{HeaderValue, Request, Response, Uri};
use kube::{
    Client,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tower::{BoxError, Service, ServiceExt};

/// The kubeconfig cluster extension that names further servers of the same cluster:
/// `extensions: [{name: amoeba.dev/servers, extension: [https://…, https://…]}]`. Other clients ignore it.
pub const SERVERS_EXTENSION: &str = "amoeba.dev/servers";

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// Context of the kubeconfig; none is its current one.
    pub context: Option<String>,
    /// Sent as `User-Agent`; the part before `/` becomes the field manager of writes.
    pub user_agent: String,
    /// Servers of the same cluster beside the kubeconfig's own, tried in order.
    pub servers: Vec<Uri>,
    /// How long a TCP and TLS connection may take to open.
    pub connect_timeout: Duration,
    /// How long a server may take to answer with headers; a watch or log answers with them at once.
    pub request_timeout: Duration,
}

impl Options {
    /// The current context, 2 s to connect, 30 s to answer.
    pub fn new(user_agent: &str) -> Options {
        Options {
            context: None,
            user_agent: user_agent.to_owned(),
            servers: Vec::new(),
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing, or isn't a kubeconfig.
    #[error("read the kubeconfig {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// The kubeconfig lacks something, or names a file that can't be read.
    #[error("use the kubeconfig {}", path.display())]
    Use {
        /// The file.
        path: PathBuf,
        /// What was missing.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// A further server isn't a URL.
    #[error("server {url:?} in the extension {SERVERS_EXTENSION} is not a URL")]
    Server {
        /// What stood there.
        url: String,
        /// What was wrong with it.
        #[source]
        source: http::uri::InvalidUri,
    },
    /// The user agent has characters that a header can't carry.
    #[error("user agent {0:?} can't be sent in a header")]
    UserAgent(String),
    /// TLS could not be set up from the certificates given.
    #[error("prepare the connection to {server}")]
    Connect {
        /// The server's URL.
        server: Uri,
        /// What was wrong.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Makes ring the process's TLS provider. Every constructor here calls it; calling it again is harmless.
pub fn install_crypto() {
    // The only error is that a provider is already installed, which is what we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client for the cluster of the kubeconfig at `path`.
pub async fn from_kubeconfig(path: &Path, options: &Options) -> Result<Client, ConfigError> {
    let kubeconfig = Kubeconfig::read_from(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source: Box::new(source) })?;
    let context = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    let mut options = options.clone();
    options.servers.extend(listed_servers(&kubeconfig, options.context.as_deref())?);
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &context)
        .await
        .map_err(|source| ConfigError::Use { path: path.to_owned(), source: Box::new(source) })?;
    from_config(config, &options)
}

/// A client for a configuration that was made otherwise, e.g. in a pod.
pub fn from_config(mut config: kube::Config, options: &Options) -> Result<Client, ConfigError> {
    install_crypto();
    let agent = user_agent(&options.user_agent)?;
    config.connect_timeout = Some(options.connect_timeout);
    // Our callers retry by looking again; kube's own retry may hold one request back for minutes.
    config.default_retry = false;
    let namespace = config.default_namespace.clone();
    let mut servers = vec![config.cluster_url.clone()];
    servers.extend(options.servers.iter().filter(|server| **server != config.cluster_url).cloned());
    let clients: Result<Vec<Client>, ConfigError> =
        servers.into_iter().map(|server| client_of(&config, server)).collect();
    let service = Failover::new(clients?, HeaderTimeout(options.request_timeout));
    Ok(Client::new(service.map_request(move |request| cause::sign(request, &agent)), namespace))
}

/// A client over an API server in this process: no socket, no TLS.
pub fn in_process<S, B>(service: S, agent: &str) -> Result<Client, ConfigError>
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = hyper::body::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let agent = user_agent(agent)?;
    Ok(Client::new(service.map_request(move |request| cause::sign(request, &agent)), "default"))
}

fn user_agent(agent: &str) -> Result<HeaderValue, ConfigError> {
    HeaderValue::from_str(agent).map_err(|_| ConfigError::UserAgent(agent.to_owned()))
}

fn client_of(config: &kube::Config, server: Uri) -> Result<Client, ConfigError> {
    let mut config = config.clone();
    config.cluster_url = server.clone();
    Client::try_from(config).map_err(|source| ConfigError::Connect { server, source: Box::new(source) })
}

/// The further servers that the context's cluster names.
fn listed_servers(kubeconfig: &Kubeconfig, context: Option<&str>) -> Result<Vec<Uri>, ConfigError> {
    let context = context.or(kubeconfig.current_context.as_deref());
    let cluster = kubeconfig
        .contexts
        .iter()
        .find(|named| Some(named.name.as_str()) == context)
        .and_then(|named| named.context.as_ref())
        .map(|context| context.cluster.as_str());
    let extensions = kubeconfig
        .clusters
        .iter()
        .find(|named| Some(named.name.as_str()) == cluster)
        .and_then(|named| named.cluster.as_ref())
        .and_then(|cluster| cluster.extensions.as_deref());
    let servers = extensions.into_iter().flatten().filter(|named| named.name == SERVERS_EXTENSION);
    let urls =
        servers.filter_map(|named| named.extension.as_array()).flatten().filter_map(|url| url.as_str());
    urls.map(|url| url.parse().map_err(|source| ConfigError::Server { url: url.to_owned(), source }))
        .collect()
}

#[cfg(test)]
mod tests;
