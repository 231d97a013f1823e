//! How a machine that knows a URL and a bootstrap token becomes a node: it learns whom it speaks to, and gets a
//! certificate.
//!
//! As kubeadm does: anybody may read the ConfigMap `kube-public/cluster-info`; it is believed because it is signed
//! with the token, and, if pins are given, because the authority in it has one of these keys. Then it is read once
//! more from a server that the authority vouches for. Only then the token is shown, and only to that server.

use std::io;
use std::path::{Path, PathBuf};

use api::bootstrap_token::{
    BootstrapToken, INFO_KUBECONFIG, INFO_NAME, INFO_NAMESPACE, INFO_SIGNATURE, KeyPin,
};
use client::config::{ConfigError, Options, from_config};
use client::kubeconfig::{Credentials, cluster_of};
use http::Uri;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::{AuthInfo, Kubeconfig};
use kube::{Api, Client};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::credentials::node_file::write_private;
use crate::credentials::request::{Purpose, RequestError, obtain};

/// What somebody who wants to join is given.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// URLs of API servers; the first that answers is asked.
    pub servers: Vec<Uri>,
    /// By which both recognise each other.
    pub token: BootstrapToken,
    /// Keys of the authority; none believes the token alone.
    pub pins: Vec<KeyPin>,
}

/// Why a machine can't join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No server answered.
    #[error("read cluster-info from {server}")]
    Unreachable {
        /// The last one that was asked.
        server: Uri,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// A client can't be made.
    #[error("prepare the connection")]
    Client(#[source] Box<ConfigError>),
    /// The token isn't among those that sign.
    #[error(
        "there is no JWS signed token in the cluster-info ConfigMap. This token id {0:?} is invalid for this cluster, \
         can't connect: it may have ended (`amoeba token create` makes another)"
    )]
    UnknownToken(String),
    /// Somebody else signed it.
    #[error("failed to verify JWS signature of received cluster info object, can't trust this API Server")]
    BadSignature,
    /// It has another authority than we were told.
    #[error(
        "cluster CA found in cluster-info ConfigMap is invalid: none of the public keys {0:?} are pinned"
    )]
    NotPinned(String),
    /// The second reading differs.
    #[error("cluster-info changed while it was read; try again")]
    Changed,
    /// It says something that can't be used.
    #[error("cluster-info is damaged: {0}")]
    Damaged(String),
    /// No certificate.
    #[error("get a certificate for this node")]
    Certificate(#[from] RequestError),
    /// What was got can't be kept.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The cluster, as cluster-info describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// URLs of its API servers.
    pub servers: Vec<String>,
    /// Its authority, PEM.
    pub ca_pem: String,
}

/// The cluster that was met, and that was found to be the one that was meant.
pub struct Met {
    /// Shows the token, and only to who the cluster's authority vouches for.
    pub client: Client,
    /// The server that it asks.
    pub server: Uri,
    /// What the cluster says of itself.
    pub cluster: Discovered,
}

/// Finds the cluster that one is invited to.
///
/// # Errors
/// [`JoinError`] says at which step.
pub async fn meet(invitation: &Invitation) -> Result<Met, JoinError> {
    let (server, first) = read_first(&invitation.servers).await?;
    let cluster = judge(&first, &invitation.token, &invitation.pins)?;
    let mut config = config(&server, Some(&cluster.ca_pem))?;
    let again = read(&client_of(config.clone())?, &server).await?;
    if field(&first, INFO_KUBECONFIG) != field(&again, INFO_KUBECONFIG) {
        return Err(JoinError::Changed);
    }
    config.auth_info = AuthInfo { token: Some(invitation.token.shown().into()), ..AuthInfo::default() };
    Ok(Met { client: client_of(config)?, server, cluster })
}

/// Joins as `node`, and writes the kubeconfig that the agent is to use to `path`, readable by its owner only.
///
/// # Errors
/// [`JoinError`] says at which step.
pub async fn join(invitation: &Invitation, node: &str, path: &Path) -> Result<(), JoinError> {
    let Met { client, server, cluster } = meet(invitation).await?;
    let certified = obtain(&client, node, &Purpose::Client).await?;
    let credentials = Credentials {
        servers: servers(&server, invitation, &cluster),
        ca_pem: cluster.ca_pem,
        user: format!("system:node:{node}"),
        certificate_pem: certified.chain_pem,
        key_pem: certified.key_pem,
    };
    let write = |source| JoinError::Write { path: path.to_owned(), source };
    write_private(path, &credentials.to_yaml()).map_err(write)
}

/// The one that answered first, then those that were named, then those that the cluster names; each once.
fn servers(answered: &Uri, invitation: &Invitation, cluster: &Discovered) -> Vec<String> {
    let plain = |url: &Uri| url.to_string().trim_end_matches('/').to_owned();
    let named = invitation.servers.iter().map(plain);
    let mut all = vec![plain(answered)];
    for url in named.chain(cluster.servers.iter().cloned()) {
        if !all.contains(&url) {
            all.push(url);
        }
    }
    all
}

/// Whether what was read is what the token's cluster says of itself.
///
/// # Errors
/// Why it isn't to be trusted.
pub fn judge(info: &ConfigMap, token: &BootstrapToken, pins: &[KeyPin]) -> Result<Discovered, JoinError> {
    let kubeconfig = field(info, INFO_KUBECONFIG);
    let signature = field(info, &format!("{INFO_SIGNATURE}{}", token.id));
    let signature = signature.ok_or_else(|| JoinError::UnknownToken(token.id.clone()))?;
    let damaged = |why: String| JoinError::Damaged(why);
    let kubeconfig = kubeconfig.ok_or_else(|| damaged("it has no kubeconfig".to_owned()))?;
    if !token.verifies(kubeconfig, signature) {
        return Err(JoinError::BadSignature);
    }
    let parsed = Kubeconfig::from_yaml(kubeconfig).map_err(|error| damaged(error.to_string()))?;
    let (servers, ca_pem) = cluster_of(&parsed).map_err(damaged)?;
    let pin = KeyPin::of_certificate(&ca_pem).map_err(damaged)?;
    if !pins.is_empty() && !pins.contains(&pin) {
        return Err(JoinError::NotPinned(pin.to_string()));
    }
    Ok(Discovered { servers, ca_pem })
}

fn field<'a>(info: &'a ConfigMap, name: &str) -> Option<&'a str> {
    info.data.as_ref()?.get(name).map(String::as_str)
}

async fn read_first(servers: &[Uri]) -> Result<(Uri, ConfigMap), JoinError> {
    let mut failed = JoinError::Damaged("no server was named".to_owned());
    for server in servers {
        match read(&client_of(config(server, None)?)?, server).await {
            Ok(info) => return Ok((server.clone(), info)),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn read(client: &Client, server: &Uri) -> Result<ConfigMap, JoinError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), INFO_NAMESPACE);
    let failed = |source| JoinError::Unreachable { server: server.clone(), source: Box::new(source) };
    maps.get(INFO_NAME).await.map_err(failed)
}

/// Without an authority the server isn't verified: what it says is judged by its signature.
fn config(server: &Uri, ca_pem: Option<&str>) -> Result<kube::Config, JoinError> {
    let mut config = kube::Config::new(server.clone());
    config.accept_invalid_certs = ca_pem.is_none();
    if let Some(pem) = ca_pem {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let read = read.map_err(|error| JoinError::Damaged(error.to_string()))?;
        config.root_cert = Some(read.iter().map(|certificate| certificate.to_vec()).collect());
    }
    Ok(config)
}

fn client_of(config: kube::Config) -> Result<Client, JoinError> {
    from_config(config, &Options::new("kubelet")).map_err(|source| JoinError::Client(Box::new(source)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn token(text: &str) -> BootstrapToken {
        text.parse().expect("a token")
    }

    fn authority() -> String {
        let key = KeyPair::generate().expect("a key");
        CertificateParams::default().self_signed(&key).expect("a certificate").pem()
    }

    /// What a cluster with this authority says, signed with `by`.
    fn info(ca_pem: &str, by: &BootstrapToken) -> ConfigMap {
        let credentials = Credentials {
            servers: vec!["https://10.0.0.1:6443".to_owned()],
            ca_pem: ca_pem.to_owned(),
            user: String::new(),
            certificate_pem: String::new(),
            key_pem: String::new(),
        };
        let text = credentials.to_yaml();
        let signature = (format!("{INFO_SIGNATURE}{}", by.id), by.sign(&text));
        ConfigMap {
            data: Some([(INFO_KUBECONFIG.to_owned(), text), signature].into()),
            ..ConfigMap::default()
        }
    }

    #[test]
    fn only_what_the_tokens_cluster_signed_is_believed() {
        let (ours, ca) = (token("aaaaaa.0123456789abcdef"), authority());
        let found = judge(&info(&ca, &ours), &ours, &[]).expect("believed");
        assert_eq!((found.ca_pem.as_str(), found.servers.len()), (ca.as_str(), 1));
        let forged = token("aaaaaa.0000000000000000");
        assert!(matches!(judge(&info(&ca, &forged), &ours, &[]), Err(JoinError::BadSignature)));
        let other = token("bbbbbb.0123456789abcdef");
        assert!(
            matches!(judge(&info(&ca, &other), &ours, &[]), Err(JoinError::UnknownToken(id)) if id == "aaaaaa")
        );
        let mut changed = info(&ca, &ours);
        let data = changed.data.as_mut().expect("data");
        *data.get_mut(INFO_KUBECONFIG).expect("a kubeconfig") += " ";
        assert!(matches!(judge(&changed, &ours, &[]), Err(JoinError::BadSignature)));
    }

    #[test]
    fn an_authority_that_isnt_pinned_is_refused_though_the_token_is_right() {
        let (ours, ca) = (token("aaaaaa.0123456789abcdef"), authority());
        let pin = |ca: &str| KeyPin::of_certificate(ca).expect("a pin");
        let pins = [pin(&authority()), pin(&ca)];
        assert!(judge(&info(&ca, &ours), &ours, &pins).is_ok(), "one of several pins is enough");
        let refused = judge(&info(&ca, &ours), &ours, &pins[..1]).expect_err("not pinned").to_string();
        assert!(
            refused.contains("none of the public keys") && refused.contains(&pin(&ca).to_string()),
            "{refused}"
        );
    }

    #[test]
    fn each_server_is_named_once_and_the_one_that_answered_first() {
        let url = |text: &str| text.parse::<Uri>().expect("a URL");
        let invitation = Invitation {
            servers: vec![url("https://a:6443"), url("https://b:6443")],
            token: token("aaaaaa.0123456789abcdef"),
            pins: Vec::new(),
        };
        let named = ["https://c:6443", "https://a:6443"].map(str::to_owned).to_vec();
        let cluster = Discovered { servers: named, ca_pem: String::new() };
        let all = servers(&url("https://b:6443"), &invitation, &cluster);
        assert_eq!(all, ["https://b:6443", "https://a:6443", "https://c:6443"]);
    }
}
