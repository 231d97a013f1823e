//! Certificates that a member makes for itself at each start and before they end, signed by the cluster's
//! authorities.

use std::error::Error as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use api::csr::CertificateRequest;
use apiserver::pki::{Issued, MASTERS_GROUP, PEER_SERVER_NAME, Pki, PkiError, Renewed};
use client::kubeconfig::Credentials;
use controllers::certificates::CertificateSigner;
use rustls::ServerConfig;
use store::PeerTls;

use crate::cluster::kubeconfig::ADMIN_KUBECONFIG;
use crate::member::MemberError;

/// Names under which every API server is reached.
const API_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// For the API server, which is reached at `addresses` and, as the user says, at `more` names and addresses.
pub fn serving(pki: &Arc<Pki>, addresses: &[IpAddr], more: &[String]) -> Result<Arc<ServerConfig>, PkiError> {
    let (names, addresses) = subjects(&API_NAMES, addresses, more);
    let signer = pki.clone();
    pki.server_tls_config(&Renewed::new(move || signer.issue_server(&names, &addresses))?)
}

/// For the store's etcd API, which is reached at `hosts`.
pub fn etcd(pki: &Arc<Pki>, hosts: &[String]) -> Result<Arc<ServerConfig>, PkiError> {
    let (names, addresses) = subjects(&["localhost"], &[], hosts);
    let signer = pki.clone();
    pki.etcd_server_tls(&Renewed::new(move || signer.issue_etcd_server(&names, &addresses))?)
}

/// For both ends of Raft connections.
pub fn peer(pki: &Arc<Pki>, member: &str) -> Result<PeerTls, PkiError> {
    let (signer, member) = (pki.clone(), member.to_owned());
    let own = Renewed::new(move || signer.issue_peer(&member))?;
    Ok(PeerTls {
        server: pki.peer_server_tls(&own)?,
        client: pki.peer_client_tls(&own)?,
        server_name: Some(PEER_SERVER_NAME.to_owned()),
    })
}

/// The user of the admin kubeconfig.
const ADMIN: &str = "kubernetes-admin";

/// A kubeconfig that gives all rights at `url`, with a new certificate.
pub fn admin_kubeconfig(pki: &Pki, url: &str) -> Result<String, PkiError> {
    Ok(kubeconfig(url, pki, ADMIN, &pki.issue_client(ADMIN, &[MASTERS_GROUP])?))
}

/// A kubeconfig with everything inside, so that it can be copied.
pub fn kubeconfig(url: &str, pki: &Pki, user: &str, issued: &Issued) -> String {
    let credentials = Credentials {
        servers: vec![url.to_owned()],
        ca_pem: pki.ca_pem().to_owned(),
        user: user.to_owned(),
        certificate_pem: issued.certificate_pem.clone(),
        key_pem: issued.key_pem.clone(),
    };
    credentials.to_yaml()
}

/// Leaves a kubeconfig with all rights in `dir` for who runs this machine, readable by its owner only.
///
/// # Errors
/// [`MemberError::Admin`] names the file.
pub fn leave_admin(pki: &Pki, dir: &Path, address: SocketAddr) -> Result<(), MemberError> {
    let path = dir.join(ADMIN_KUBECONFIG);
    let ip = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
    let url = format!("https://{}", SocketAddr::new(ip, address.port()));
    let text =
        admin_kubeconfig(pki, &url).map_err(|source| MemberError::Pki { dir: dir.to_owned(), source })?;
    kubelet::credentials::write_private(&path, &text).map_err(|source| MemberError::Admin { path, source })
}

/// Signs certificate requests with the cluster's authority.
pub struct Signer(pub Arc<Pki>);

impl CertificateSigner for Signer {
    fn sign(
        &self,
        request: &CertificateRequest,
        usages: &[String],
        valid: Range<i64>,
    ) -> Result<String, String> {
        self.0.sign_request(request, usages, valid).map_err(|error| match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        })
    }
}

/// Names and addresses, each once; loopback is always among them.
fn subjects(names: &[&str], addresses: &[IpAddr], more: &[String]) -> (Vec<String>, Vec<IpAddr>) {
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut addresses = [&[IpAddr::V4(Ipv4Addr::LOCALHOST)], addresses].concat();
    for subject in more {
        match subject.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(subject.clone()),
        }
    }
    names.sort();
    names.dedup();
    addresses.sort();
    addresses.dedup();
    (names, addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart() {
        let more = ["10.0.0.1".to_owned(), "db.example.com".to_owned(), "127.0.0.1".to_owned()];
        let (names, addresses) = subjects(&["localhost"], &[], &more);
        assert_eq!(names, ["db.example.com", "localhost"]);
        assert_eq!(addresses, [IpAddr::from([10, 0, 0, 1]), IpAddr::from([127, 0, 0, 1])]);
    }
}
