//! The cluster's certificates: two authorities made at the first start and everything signed by them.
//!
//! Owns the files `ca.crt`, `ca.key`, `peer-ca.*`, `etcd-ca.*`, `front-proxy-ca.*`, `sa*` and
//! `encryption.keys` of one directory. What always holds:
//! a key file is readable by its owner only and is complete before its certificate exists, so a crash
//! while they are made leaves nothing that a later start could mistake for an authority. Store members
//! trust only the peer authority: no client or node certificate of the cluster opens a Raft connection.
//! API servers behind ours believe of users what somebody with a certificate of the front-proxy authority says, and
//! it signs only one.
//! The store's etcd API trusts only the etcd authority: behind it there are no roles, whoever gets in may
//! read every Secret.
//! It doesn't know who may do what; a certificate only says who somebody is.

mod account_keys;
mod files;
pub mod handover;
mod issue;
mod renewed;
pub(crate) mod tls;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::csr::CertificateRequest;
use jiff::Timestamp;
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;

pub use account_keys::AccountKeys;
pub use renewed::{Renewed, Shown};

use crate::encryption::{EncryptionKeys, KeyFileError};

/// The name that members present and expect on Raft connections.
pub const PEER_SERVER_NAME: &str = "amoeba-peer";
/// The user that the API server is to kubelets.
pub const KUBELET_CLIENT_USER: &str = "kube-apiserver-kubelet-client";
/// The user of the certificate that opens the store's etcd API.
pub const ETCD_CLIENT_USER: &str = "etcd-client";
/// The user as which the API server speaks for others to API servers behind it.
pub const FRONT_PROXY_USER: &str = "front-proxy-client";
/// The group whose members may do everything.
pub const MASTERS_GROUP: &str = "system:masters";
/// The group of all nodes.
pub const NODES_GROUP: &str = "system:nodes";

/// The authorities of one cluster, able to sign. Shared behind an `Arc`.
pub struct Pki {
    cluster: Authority,
    peers: Authority,
    etcd: Authority,
    front_proxy: Authority,
    accounts: AccountKeys,
    encryption: Arc<EncryptionKeys>,
}

/// A certificate with its private key, both PEM. `Debug` doesn't show the key.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: String,
}

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usage {
    Client,
    Server,
    /// Both ends of a Raft connection, and a kubelet, which is a server and a client of the API server.
    Both,
}

/// One certificate authority: its certificate, and the key to sign with.
struct Authority {
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// Why certificates can't be loaded, made or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or directory can't be read or written.
    #[error("{action} {}", path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A file exists but isn't what it should be.
    #[error(
        "{} is damaged: {problem}; restore it from a backup, or remove {} to make a new authority \
         (every certificate and kubeconfig issued so far stops working)",
        path.display(),
        path.parent().unwrap_or(Path::new(".")).display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The certificate is there, but not its key.
    #[error(
        "{} exists, but its key {} is missing; restore the key from a backup, or remove {} to make a new \
         authority (every certificate and kubeconfig issued so far stops working)",
        certificate.display(),
        key.display(),
        key.parent().unwrap_or(Path::new(".")).display()
    )]
    KeyMissing {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A certificate holds at most two groups here.
    #[error("certificate for {user:?}: {count} groups, but at most {} are supported", issue::MAX_GROUPS)]
    TooManyGroups {
        /// The certificate's user.
        user: String,
        /// How many groups were asked for.
        count: usize,
    },
    /// A certificate can't be made.
    #[error("sign a certificate for {subject:?}")]
    Sign {
        /// The certificate's common name.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The keys that seal Secrets can't be used.
    #[error(transparent)]
    Encryption(#[from] KeyFileError),
    /// A certificate or key given by a user isn't valid PEM.
    #[error("read the {what} of a TLS configuration")]
    Pem {
        /// `certificate` or `private key`.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The TLS library refuses a certificate, a key or an authority.
    #[error("configure TLS")]
    Tls(#[source] rustls::Error),
    /// The TLS library refuses to verify client certificates with the authority.
    #[error("verify client certificates")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

impl Pki {
    /// Loads the authorities from `dir`, or makes them if `dir` has none.
    ///
    /// # Errors
    /// A damaged or incomplete authority is never replaced: the error names the file and the remedy.
    pub fn load_or_create(dir: &Path) -> Result<Self, PkiError> {
        files::ensure_private_dir(dir)?;
        Ok(Self {
            cluster: Authority::load_or_create(dir, "ca", "amoeba-ca")?,
            peers: Authority::load_or_create(dir, "peer-ca", "amoeba-peer-ca")?,
            etcd: Authority::load_or_create(dir, "etcd-ca", "amoeba-etcd-ca")?,
            front_proxy: Authority::load_or_create(dir, "front-proxy-ca", "amoeba-front-proxy-ca")?,
            accounts: AccountKeys::load_or_create(dir)?,
            encryption: Arc::new(encryption_keys(dir)?),
        })
    }

    /// The keys that seal Secrets at rest.
    pub fn encryption_keys(&self) -> &Arc<EncryptionKeys> {
        &self.encryption
    }

    /// The keys of service-account tokens.
    pub fn account_keys(&self) -> &AccountKeys {
        &self.accounts
    }

    /// The certificate that clients verify the API server with, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.cluster.certificate_pem
    }

    /// A certificate that authenticates `user` in `groups` to the API server.
    pub fn issue_client(&self, user: &str, groups: &[&str]) -> Result<Issued, PkiError> {
        self.cluster.issue(&issue::Subject { user, groups, names: &[], addresses: &[] }, Usage::Client)
    }

    /// A serving certificate for the given DNS names and addresses.
    pub fn issue_server(&self, names: &[String], addresses: &[IpAddr]) -> Result<Issued, PkiError> {
        let user = names.first().map_or("kube-apiserver", String::as_str);
        self.cluster.issue(&issue::Subject { user, groups: &[], names, addresses }, Usage::Server)
    }

    /// A node's certificate: the node's client certificate and its kubelet's serving certificate in one.
    /// The API server verifies the kubelet by the node's name, so a node can't pose as another one even
    /// where all share an address.
    pub fn issue_node(&self, node: &str, addresses: &[IpAddr]) -> Result<Issued, PkiError> {
        let user = format!("system:node:{node}");
        let names = [node.to_owned()];
        let subject = issue::Subject { user: &user, groups: &[NODES_GROUP], names: &names, addresses };
        self.cluster.issue(&subject, Usage::Both)
    }

    /// Signs somebody's request for a certificate of the cluster, valid for these times in seconds since 1970, but
    /// not longer than the authority itself. Whether it should be signed is the caller's to know.
    pub fn sign_request(
        &self,
        request: &CertificateRequest,
        usages: &[String],
        valid: std::ops::Range<i64>,
    ) -> Result<String, PkiError> {
        let end = valid.end.min(tls::end_of(&self.cluster.certificate));
        issue::sign_request(&self.cluster.issuer, request, usages, valid.start..end)
    }

    /// A store member's certificate for both ends of a Raft connection; `member` is for humans.
    pub fn issue_peer(&self, member: &str) -> Result<Issued, PkiError> {
        let names = [PEER_SERVER_NAME.to_owned()];
        let subject = issue::Subject { user: member, groups: &[], names: &names, addresses: &[] };
        self.peers.issue(&subject, Usage::Both)
    }

    /// A member's serving certificate for the store's etcd API.
    pub fn issue_etcd_server(&self, names: &[String], addresses: &[IpAddr]) -> Result<Issued, PkiError> {
        self.etcd.issue(&issue::Subject { user: "etcd-server", groups: &[], names, addresses }, Usage::Server)
    }

    /// Writes `etcd-client.crt` and `etcd-client.key` into `dir`: what opens the store's etcd API, and with
    /// it everything that is stored.
    pub fn write_etcd_client(&self, dir: &Path) -> Result<(), PkiError> {
        let subject = issue::Subject { user: ETCD_CLIENT_USER, groups: &[], names: &[], addresses: &[] };
        let issued = self.etcd.issue(&subject, Usage::Client)?;
        let paths = files::Paths::new(dir, ETCD_CLIENT_USER);
        files::write_private(&paths.key, issued.key_pem.as_bytes())?;
        files::write_public(&paths.certificate, issued.certificate_pem.as_bytes())
    }

    /// How a member serves the store's etcd API: only certificates of the etcd authority get in.
    pub fn etcd_server_tls(&self, serving: &impl Shown) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        let verifier = tls::only_clients_of(&self.etcd.certificate)?;
        tls::server_config(serving, verifier, &[b"h2"])
    }

    /// How the API server serves: client certificates of our authority are verified, none is asked for.
    pub fn server_tls_config(&self, serving: &impl Shown) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        let verifier = tls::optional_clients_of(&self.cluster.certificate)?;
        tls::server_config(serving, verifier, &[b"h2", b"http/1.1"])
    }

    /// How a member serves Raft: only certificates of the peer authority get in.
    pub fn peer_server_tls(&self, peer: &impl Shown) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        let verifier = tls::only_clients_of(&self.peers.certificate)?;
        tls::server_config(peer, verifier, &[])
    }

    /// How a member calls another; the server name to expect is [`PEER_SERVER_NAME`].
    pub fn peer_client_tls(&self, peer: &impl Shown) -> Result<Arc<rustls::ClientConfig>, PkiError> {
        tls::client_config(&self.peers.certificate, peer, &[])
    }

    /// Who vouches for [`FRONT_PROXY_USER`], PEM.
    pub fn front_proxy_ca_pem(&self) -> &str {
        &self.front_proxy.certificate_pem
    }

    /// The certificate with which the API server says for whom it speaks.
    pub fn front_proxy(self: &Arc<Self>) -> Result<Arc<Renewed>, PkiError> {
        let pki = self.clone();
        Renewed::new(move || {
            let subject = issue::Subject { user: FRONT_PROXY_USER, groups: &[], names: &[], addresses: &[] };
            pki.front_proxy.issue(&subject, Usage::Client)
        })
    }

    /// How the API server calls kubelets: as [`KUBELET_CLIENT_USER`], verifying the node's certificate.
    pub fn kubelet_client_tls(self: &Arc<Self>) -> Result<Arc<rustls::ClientConfig>, PkiError> {
        let pki = self.clone();
        let own = Renewed::new(move || pki.issue_client(KUBELET_CLIENT_USER, &[MASTERS_GROUP]))?;
        tls::client_config(&self.cluster.certificate, &own, &[b"http/1.1"])
    }
}

impl Authority {
    fn load_or_create(dir: &Path, stem: &str, common_name: &str) -> Result<Self, PkiError> {
        let paths = files::Paths::new(dir, stem);
        if paths.certificate.exists() { Self::load(&paths) } else { Self::create(&paths, common_name) }
    }

    /// Makes an authority. The key is on disk before the certificate: a certificate file always has its key.
    fn create(paths: &files::Paths, common_name: &str) -> Result<Self, PkiError> {
        let (issued, issuer) = issue::self_signed(common_name)?;
        files::write_private(&paths.key, issued.key_pem.as_bytes())?;
        files::write_public(&paths.certificate, issued.certificate_pem.as_bytes())?;
        let certificate = tls::parse_certificate(&issued.certificate_pem)?;
        Ok(Self { certificate_pem: issued.certificate_pem, certificate, issuer })
    }

    fn load(paths: &files::Paths) -> Result<Self, PkiError> {
        let certificate_pem = files::read(&paths.certificate)?;
        if !paths.key.exists() {
            let (certificate, key) = (paths.certificate.clone(), paths.key.clone());
            return Err(PkiError::KeyMissing { certificate, key });
        }
        let key_pem = files::read(&paths.key)?;
        let certificate = tls::parse_certificate(&certificate_pem)
            .map_err(|_| damaged(&paths.certificate, "it holds no PEM certificate"))?;
        let key =
            KeyPair::from_pem(&key_pem).map_err(|_| damaged(&paths.key, "it holds no PEM private key"))?;
        issue::check_authority(&certificate, &key)
            .map_err(|problem| damaged(&paths.certificate, &problem))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|_| damaged(&paths.certificate, "it isn't a certificate authority"))?;
        Ok(Self { certificate_pem, certificate, issuer })
    }

    fn issue(&self, subject: &issue::Subject<'_>, usage: Usage) -> Result<Issued, PkiError> {
        issue::sign(&self.issuer, subject, usage)
    }
}

/// Loads the keys that seal Secrets at rest, or makes the first one.
fn encryption_keys(dir: &Path) -> Result<EncryptionKeys, PkiError> {
    let path = dir.join("encryption.keys");
    if !path.exists() {
        files::create_private(&path, EncryptionKeys::new_file().as_bytes())?;
    }
    Ok(EncryptionKeys::load(&path)?)
}

fn damaged(path: &Path, problem: &str) -> PkiError {
    PkiError::Damaged { path: path.to_owned(), problem: problem.to_owned() }
}

impl Issued {
    /// When it ends.
    ///
    /// # Errors
    /// It is no certificate.
    pub fn end(&self) -> Result<Timestamp, PkiError> {
        let end = tls::end_of(&tls::parse_certificate(&self.certificate_pem)?);
        Ok(Timestamp::from_second(end).unwrap_or(Timestamp::MAX))
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki").field("ca_pem", &self.cluster.certificate_pem).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
