//! Keeps the node's certificates good, and its list of API servers: tasks that sleep until something is due.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::Shutdown;
use client::backoff::{Backoff, Policy};
use client::config::ConfigError;
use client::informer::Informer;
use client::kubeconfig::Credentials;
use http::Uri;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Endpoints;
use kube::Api;
use tokio::sync::{Mutex, watch};

use crate::agent::chain;
use crate::credentials::Renewal;
use crate::credentials::life::{renewal, validity, wait};
use crate::credentials::node_file::write_private;
use crate::credentials::request::{Certified, Purpose, obtain};
use crate::server::Shown;

/// Where the serving certificate is kept over restarts, below the data directory: chain and key in one file, under
/// upstream's name.
const SERVING_FILE: &str = "pki/kubelet-server-current.pem";

/// Renews for one node.
#[derive(Clone)]
pub struct Keeper {
    client: kube::Client,
    node: String,
    renewal: Renewal,
    /// Who changes the kubeconfig: certificates are renewed and servers come and go by themselves.
    file: Arc<Mutex<()>>,
}

/// Why a kubeconfig wasn't changed.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    #[error("{} can't be renewed: {why}", path.display())]
    Foreign { path: PathBuf, why: String },
    #[error("write {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
    #[error("take up the new kubeconfig")]
    Reload(#[from] ConfigError),
}

impl Keeper {
    /// For `node`, whose kubeconfig `renewal` names.
    pub fn new(client: kube::Client, node: &str, renewal: Renewal) -> Self {
        Self { client, node: node.to_owned(), renewal, file: Arc::default() }
    }

    /// Renews the client's certificate until asked to stop.
    pub async fn keep_client(self, shutdown: Shutdown) {
        let mut backoff = Backoff::new(Policy::CONNECT);
        let mut since = Timestamp::now();
        loop {
            let pause = match self.read() {
                Ok(credentials) => self.pause(&credentials.certificate_pem, since),
                Err(error) => {
                    tracing::error!(error = %chain(&error), "the node's certificate won't be renewed");
                    return;
                }
            };
            if sleep_or_stop(pause, &shutdown).await {
                return;
            }
            since = Timestamp::now();
            let Some(renewed) = self.ask(Purpose::Client, &shutdown).await else { return };
            let outcome = match renewed {
                Ok(certified) => self.replace_client(certified).await.map_err(|error| chain(&error)),
                Err(why) => Err(why),
            };
            if !settle(outcome, "client", &mut backoff, &shutdown).await {
                return;
            }
        }
    }

    /// Has the API show a certificate of the cluster, and renews it, until asked to stop. `registered` turns true
    /// once there is a Node, without which nobody could know whether its certificate is right.
    pub async fn keep_serving(
        self,
        data_dir: PathBuf,
        address: IpAddr,
        shown: Shown,
        mut registered: watch::Receiver<bool>,
        shutdown: Shutdown,
    ) {
        let path = data_dir.join(SERVING_FILE);
        let purpose = Purpose::Serving(self.own_addresses(address));
        let mut backoff = Backoff::new(Policy::CONNECT);
        let mut current = show_kept(&path, &shown);
        let mut since = Timestamp::now();
        loop {
            let pause = current.as_deref().map_or(Duration::ZERO, |chain_pem| self.pause(chain_pem, since));
            if sleep_or_stop(pause, &shutdown).await {
                return;
            }
            since = Timestamp::now();
            tokio::select! {
                there = registered.wait_for(|there| *there) => if there.is_err() { return },
                () = shutdown.requested() => return,
            }
            let Some(renewed) = self.ask(purpose.clone(), &shutdown).await else { return };
            let outcome = renewed.and_then(|certified| keep_and_show(&path, &shown, certified));
            let outcome = outcome.map(|chain_pem| current = Some(chain_pem));
            if !settle(outcome, "serving", &mut backoff, &shutdown).await {
                return;
            }
        }
    }

    /// Keeps the kubeconfig's servers as the living API servers are, until asked to stop: a node that was told of one
    /// learns of all.
    pub async fn follow_servers(self, shutdown: Shutdown) {
        let endpoints: Api<Endpoints> = Api::namespaced(self.client.clone(), "default");
        let informer = Informer::builder(endpoints).fields("metadata.name=kubernetes").start();
        let mut changes = informer.subscribe(1);
        loop {
            let change = tokio::select! {
                change = changes.recv() => change,
                () = shutdown.requested() => break,
            };
            let Some(change) = change else { break };
            let Some(endpoints) = change.object() else { continue };
            if let Err(error) = self.learn(&servers(endpoints)).await {
                tracing::warn!(error = %chain(&error), "keep the list of API servers");
            }
        }
        informer.shutdown().await;
    }

    fn pause(&self, chain_pem: &str, since: Timestamp) -> Duration {
        let now = Timestamp::now();
        match validity(chain_pem) {
            Ok(valid) => wait(renewal(&valid, rand::random(), since, self.renewal.at_least_every), now),
            Err(_) => Duration::ZERO,
        }
    }

    /// `None` if asked to stop meanwhile.
    async fn ask(&self, purpose: Purpose, shutdown: &Shutdown) -> Option<Result<Certified, String>> {
        tokio::select! {
            asked = obtain(&self.client, &self.node, &purpose) => Some(asked.map_err(|error| chain(&error))),
            () = shutdown.requested() => None,
        }
    }

    fn read(&self) -> Result<Credentials, FileError> {
        let path = self.renewal.switch.path();
        let text =
            std::fs::read_to_string(path).map_err(|source| FileError::Read(path.to_owned(), source))?;
        Credentials::parse(&text).map_err(|why| FileError::Foreign { path: path.to_owned(), why })
    }

    async fn replace_client(&self, certified: Certified) -> Result<(), FileError> {
        let _alone = self.file.lock().await;
        let mut credentials = self.read()?;
        (credentials.certificate_pem, credentials.key_pem) = (certified.chain_pem, certified.key_pem);
        self.write(&credentials).await
    }

    async fn learn(&self, living: &[String]) -> Result<(), FileError> {
        let _alone = self.file.lock().await;
        let mut credentials = self.read()?;
        let Some(servers) = merged(&credentials.servers, living) else { return Ok(()) };
        tracing::info!(servers = servers.join(","), "the API servers have changed");
        credentials.servers = servers;
        self.write(&credentials).await
    }

    async fn write(&self, credentials: &Credentials) -> Result<(), FileError> {
        let path = self.renewal.switch.path();
        let failed = |source| FileError::Write(path.to_owned(), source);
        write_private(path, &credentials.to_yaml()).map_err(failed)?;
        Ok(self.renewal.switch.reload().await?)
    }

    /// The address isn't named where an API server has it, too: nobody but API servers shows certificates for those,
    /// and the cluster calls a node by its name.
    fn own_addresses(&self, address: IpAddr) -> Vec<IpAddr> {
        let servers = self.read().map(|credentials| credentials.servers).unwrap_or_default();
        let shared = servers.iter().any(|server| host(server).is_some_and(|host| host == address));
        if shared { Vec::new() } else { vec![address] }
    }
}

/// The first stays: it is where the node was told to go, perhaps a name or a balancer. `None` if nothing changes, or
/// nobody is said to live.
fn merged(known: &[String], living: &[String]) -> Option<Vec<String>> {
    let first = known.first().filter(|_| !living.is_empty())?;
    // A server that calls itself by loopback is none to others.
    let is_far = |url: &&String| {
        let loopback = |url: &String| host(url).is_some_and(|ip| ip.is_loopback());
        !loopback(url) || loopback(first)
    };
    let others = living.iter().filter(|url| *url != first).filter(is_far).cloned();
    let merged: Vec<String> = std::iter::once(first.clone()).chain(others).collect();
    (merged != known).then_some(merged)
}

fn host(url: &str) -> Option<IpAddr> {
    let uri: Uri = url.parse().ok()?;
    uri.host()?.trim_matches(['[', ']']).parse().ok()
}

fn servers(endpoints: &Endpoints) -> Vec<String> {
    let mut urls = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let port = subset.ports.iter().flatten().map(|port| port.port).next().unwrap_or(443);
        let ips = subset.addresses.iter().flatten().filter_map(|address| address.ip.parse::<IpAddr>().ok());
        let at = |ip| std::net::SocketAddr::new(ip, u16::try_from(port).unwrap_or(443));
        urls.extend(ips.map(|ip| format!("https://{}", at(ip))));
    }
    urls
}

/// What an earlier run was given, if it is still good.
fn show_kept(path: &Path, shown: &Shown) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let valid = validity(&text).ok().filter(|valid| valid.contains(&Timestamp::now()));
    valid.and_then(|_| shown.replace(&text, &text).ok()).map(|()| text)
}

fn keep_and_show(path: &Path, shown: &Shown, certified: Certified) -> Result<String, String> {
    let Certified { chain_pem, key_pem } = certified;
    shown.replace(&chain_pem, &key_pem)?;
    let kept = format!("{}\n{key_pem}", chain_pem.trim_end());
    write_private(path, &kept).map_err(|error| format!("write {}: {error}", path.display()))?;
    Ok(chain_pem)
}

/// Logs what became of a renewal, and waits if it failed; false if asked to stop.
async fn settle(outcome: Result<(), String>, what: &str, backoff: &mut Backoff, shutdown: &Shutdown) -> bool {
    match outcome {
        Ok(()) => {
            backoff.succeeded();
            tracing::info!(what, "the node has a new certificate");
            true
        }
        Err(error) => {
            tracing::warn!(what, error, "renew the node's certificate");
            !sleep_or_stop(backoff.failed(rand::random()), shutdown).await
        }
    }
}

/// True if asked to stop.
async fn sleep_or_stop(pause: Duration, shutdown: &Shutdown) -> bool {
    tokio::select! {
        () = tokio::time::sleep(pause) => false,
        () = shutdown.requested() => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn servers_come_and_go_but_the_first_stays() {
        let known = urls("https://lb:6443 https://10.0.0.1:6443");
        let after = |living: &str| merged(&known, &urls(living)).map(|servers| servers.join(" "));
        assert_eq!(after("https://10.0.0.1:6443"), None, "nothing new");
        assert_eq!(after(""), None, "an empty list is no news");
        assert_eq!(
            after("https://10.0.0.2:6443 https://10.0.0.3:6443").as_deref(),
            Some("https://lb:6443 https://10.0.0.2:6443 https://10.0.0.3:6443")
        );
        assert_eq!(
            after("https://127.0.0.1:6443 https://10.0.0.1:6443"),
            None,
            "loopback is another machine"
        );
        let local = urls("https://127.0.0.1:6443");
        let both = merged(&local, &urls("https://127.0.0.1:6443 https://127.0.0.2:6443"));
        assert_eq!(both, Some(urls("https://127.0.0.1:6443 https://127.0.0.2:6443")));
    }
}
