//! From flags and kubeconfig to a client. Nothing is sent here.

use std::path::{Path, PathBuf};

use client::config::{ConfigError, Options};
use kube::Config;
use kube::config::{KubeConfigOptions, KubeconfigError};

use super::Cluster;
use super::kubeconfig::{self, NotFound};
use crate::app::App;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No kubeconfig applies.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The kubeconfig can't be used.
    #[error("cannot use the kubeconfig {paths}", paths = show(.paths))]
    Kubeconfig {
        /// The files that were merged.
        paths: Vec<PathBuf>,
        /// What is wrong with them.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// `--server` isn't a URL.
    #[error("--server {url} is not a URL like https://127.0.0.1:6443")]
    Server {
        /// What was given.
        url: String,
        /// Why it isn't one.
        #[source]
        source: http::uri::InvalidUri,
    },
    /// The credentials of the kubeconfig can't be used.
    #[error("cannot use the credentials for {address}")]
    Client {
        /// The API server.
        address: String,
        /// Why.
        #[source]
        source: Box<ConfigError>,
    },
}

fn show(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// A client of the cluster that the flags and the environment choose.
pub async fn connect(app: &App) -> Result<Cluster, ConnectError> {
    let paths = kubeconfig::find(app, &|path: &Path| path.exists())?;
    let mut config = load(app, &paths).await?;
    if let Some(url) = &app.target.server {
        config.cluster_url =
            url.parse().map_err(|source| ConnectError::Server { url: url.clone(), source })?;
    }
    let namespace = app.target.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let address = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let client = client::config::from_config(config, &Options::new("amoeba"))
        .map_err(|source| ConnectError::Client { address: address.clone(), source: Box::new(source) })?;
    Ok(Cluster::new(client, address, namespace))
}

async fn load(app: &App, paths: &[PathBuf]) -> Result<Config, ConnectError> {
    let failed = |source| ConnectError::Kubeconfig { paths: paths.to_vec(), source: Box::new(source) };
    let options = KubeConfigOptions { context: app.target.context.clone(), ..KubeConfigOptions::default() };
    let merged = kubeconfig::read(paths).map_err(failed)?;
    Config::from_custom_kubeconfig(merged, &options).await.map_err(failed)
}
