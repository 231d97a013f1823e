//! How `amoeba node` belongs to a cluster: by the kubeconfig that it got when it joined, and that renews itself.

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::config::{Options, switchable};
use client::kubeconfig::Credentials;
use http::Uri;
use jiff::Timestamp;
use kubelet::credentials::join::join;
use kubelet::credentials::{Renewal, life, write_private};

use crate::app::App;
use crate::failure::Failure;
use crate::invitation::InvitationArgs;
use crate::member::MemberError;
use crate::text::parse_duration;

/// The kubeconfig that a joined node has in its data directory.
const KUBECONFIG: &str = "kubelet.kubeconfig";
/// The cluster's authority beside it, by which callers of the node's API are verified.
const AUTHORITY: &str = "pki/ca.crt";

/// How to become a node of a cluster.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Joining a cluster")]
pub struct JoinArgs {
    /// API servers of the cluster to join; once joined, the node keeps what it got in its data directory, and neither
    /// URL nor token is needed again
    #[arg(long, value_name = "URL,…", value_delimiter = ',', conflicts_with = "fake")]
    join: Vec<Uri>,
    #[command(flatten)]
    invitation: InvitationArgs,
    /// Renew the node's certificates at least this often; otherwise after 70 to 90 % of their life
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    renew_certificates_every: Option<Duration>,
}

/// What a joined node has.
#[derive(Clone, Debug)]
pub struct Membership {
    /// How its certificates are renewed.
    pub renewal: Renewal,
    /// The cluster's authority.
    pub ca_file: PathBuf,
    /// The address from which it reaches the cluster.
    pub own_address: Option<IpAddr>,
}

impl JoinArgs {
    /// What this machine has of the cluster, joining it first if it has nothing that is good; `None` if it is to use
    /// another kubeconfig.
    ///
    /// # Errors
    /// If it can't join, or can't use what it got.
    pub async fn membership(
        &self,
        app: &App,
        node: &str,
        agent: &str,
    ) -> Result<Option<(kube::Client, Membership)>, Failure> {
        if app.target.kubeconfig.is_some() {
            let both = "--join makes a kubeconfig of its own: leave --kubeconfig out".to_owned();
            return if self.join.is_empty() { Ok(None) } else { Err(Failure::Usage(both)) };
        }
        let dir = app.data_dir()?;
        let path = dir.join(KUBECONFIG);
        if !self.join.is_empty() && !is_good(&path) {
            let invitation = self.invitation.to(&self.join)?;
            if invitation.pins.is_empty() {
                tracing::warn!("without --ca-cert-hash whoever has the token can pretend to be the cluster");
            }
            join(&invitation, node, &path).await.map_err(MemberError::Join)?;
            tracing::info!(node, "this machine has joined the cluster");
        }
        match path.exists() {
            true => self.take_up(&dir, &path, agent).await.map(Some),
            false => Ok(None),
        }
    }

    async fn take_up(
        &self,
        dir: &Path,
        path: &Path,
        agent: &str,
    ) -> Result<(kube::Client, Membership), Failure> {
        let failed = |what: &str, path: &Path| {
            let attempt = format!("{what} {}", path.display());
            move |source| Failure::io(attempt, source)
        };
        let text = std::fs::read_to_string(path).map_err(failed("read", path))?;
        let credentials =
            Credentials::parse(&text).map_err(|why| failed("use", path)(std::io::Error::other(why)))?;
        let ca_file = dir.join(AUTHORITY);
        write_private(&ca_file, &credentials.ca_pem).map_err(failed("write", &ca_file))?;
        let (client, switch) = switchable(path, &Options::new(agent))
            .await
            .map_err(|source| MemberError::Client(Box::new(source)))?;
        let renewal = Renewal { switch, at_least_every: self.renew_certificates_every };
        let own_address = credentials.servers.iter().find_map(|server| towards(server));
        Ok((client, Membership { renewal, ca_file, own_address }))
    }
}

/// Whether there is a kubeconfig whose certificate hasn't ended.
fn is_good(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).ok();
    let credentials = text.and_then(|text| Credentials::parse(&text).ok());
    let valid = credentials.and_then(|credentials| life::validity(&credentials.certificate_pem).ok());
    valid.is_some_and(|valid| Timestamp::now() < valid.end)
}

/// The address that this machine has towards a server; nothing is sent for that.
fn towards(server: &str) -> Option<IpAddr> {
    let uri: Uri = server.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    let any = if host.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((host.as_str(), uri.port_u16().unwrap_or(443))).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_knows_its_address_towards_a_server() {
        assert_eq!(towards("https://127.0.0.1:6443"), Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(towards("nonsense"), None);
    }

    #[test]
    fn what_isnt_there_or_is_damaged_isnt_good() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(KUBECONFIG);
        assert!(!is_good(&path));
        std::fs::write(&path, "junk").expect("written");
        assert!(!is_good(&path));
    }
}
