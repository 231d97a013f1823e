//! Building a client: from a kubeconfig (with several servers), or over a service in this process.
//!
//! What always holds: the first server that can be connected to is used until it fails; a request is
//! repeated on another server only if the first surely didn't act on it. Below `main` nobody reads the
//! environment, so the kubeconfig's path is an argument.

use crate::{
    cause,
    failover::{Failover, HeaderTimeout},
    kubeconfig::further_servers,
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
    Ok(switchable(path, options).await?.0)
}

/// Replaces the servers and credentials of a client that is in use: its file is read again. Requests that are under
/// way, watches among them, end as they began. Clones share the client.
#[derive(Clone)]
pub struct Switch {
    path: PathBuf,
    options: Options,
    servers: Failover,
}

impl Switch {
    /// The kubeconfig.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes up what the file says now.
    ///
    /// # Errors
    /// If it can't be used; then everything stays as it was.
    pub async fn reload(&self) -> Result<(), ConfigError> {
        let (config, options) = read_config(&self.path, &self.options).await?;
        self.servers.replace(clients_of(config, &options)?);
        Ok(())
    }
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switch").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A client as [`from_kubeconfig`] makes it, and what replaces its servers and credentials.
pub async fn switchable(path: &Path, options: &Options) -> Result<(Client, Switch), ConfigError> {
    let (config, all) = read_config(path, options).await?;
    let namespace = config.default_namespace.clone();
    let (client, servers) = over(clients_of(config, &all)?, &namespace, options)?;
    Ok((client, Switch { path: path.to_owned(), options: options.clone(), servers }))
}

async fn read_config(path: &Path, options: &Options) -> Result<(kube::Config, Options), ConfigError> {
    let kubeconfig = Kubeconfig::read_from(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source: Box::new(source) })?;
    let context = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    let mut options = options.clone();
    options.servers.extend(listed_servers(&kubeconfig, options.context.as_deref())?);
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &context)
        .await
        .map_err(|source| ConfigError::Use { path: path.to_owned(), source: Box::new(source) })?;
    Ok((config, options))
}

/// A client for a configuration that was made otherwise, e.g. in a pod.
pub fn from_config(config: kube::Config, options: &Options) -> Result<Client, ConfigError> {
    let namespace = config.default_namespace.clone();
    Ok(over(clients_of(config, options)?, &namespace, options)?.0)
}

fn over(clients: Vec<Client>, namespace: &str, options: &Options) -> Result<(Client, Failover), ConfigError> {
    let agent = user_agent(&options.user_agent)?;
    let servers = Failover::new(clients, HeaderTimeout(options.request_timeout));
    let signed = servers.clone().map_request(move |request| cause::sign(request, &agent));
    Ok((Client::new(signed, namespace), servers))
}

/// A client for each server, in the order in which they are tried.
fn clients_of(mut config: kube::Config, options: &Options) -> Result<Vec<Client>, ConfigError> {
    install_crypto();
    config.connect_timeout = Some(options.connect_timeout);
    // Our callers retry by looking again; kube's own retry may hold one request back for minutes.
    config.default_retry = false;
    let mut servers = vec![config.cluster_url.clone()];
    servers.extend(options.servers.iter().filter(|server| **server != config.cluster_url).cloned());
    servers.into_iter().map(|server| client_of(&config, server)).collect()
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
    let named = kubeconfig.clusters.iter().find(|named| Some(named.name.as_str()) == cluster);
    let extensions = named.and_then(|named| named.cluster.as_ref()?.extensions.as_deref());
    let urls = further_servers(extensions).into_iter();
    urls.map(|url| url.parse().map_err(|source| ConfigError::Server { url: url.clone(), source })).collect()
}

#[cfg(test)]
mod tests;
