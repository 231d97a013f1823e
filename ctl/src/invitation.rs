//! What a machine is given to join a cluster: a token, and the keys that the cluster's authority may have.

use std::path::{Path, PathBuf};

use api::bootstrap_token::{BootstrapToken, KeyPin};
use http::Uri;
use kubelet::credentials::join::Invitation;

use crate::failure::Failure;

/// By what machine and cluster recognise each other.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Joining a cluster")]
pub struct InvitationArgs {
    /// The bootstrap token (`amoeba token create`)
    #[arg(long, value_name = "TOKEN", requires = "join", conflicts_with = "token_file")]
    token: Option<BootstrapToken>,
    /// A file with the token, so that it stands in no process list
    #[arg(long, value_name = "FILE", requires = "join")]
    token_file: Option<PathBuf>,
    /// A key that the cluster's authority may have; without any the token alone tells whether it is the right cluster
    #[arg(long = "ca-cert-hash", value_name = "sha256:HEX", requires = "join")]
    ca_cert_hash: Vec<KeyPin>,
}

impl InvitationArgs {
    /// To the cluster of these API servers.
    ///
    /// # Errors
    /// There is no token, or none that can be read.
    pub fn to(&self, servers: &[Uri]) -> Result<Invitation, Failure> {
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => of_file(file)?,
            (None, None) => return Err(Failure::Usage("--join needs --token or --token-file".to_owned())),
        };
        Ok(Invitation { servers: servers.to_vec(), token, pins: self.ca_cert_hash.clone() })
    }
}

/// What a file holds, without the end of its line.
///
/// # Errors
/// It can't be read, or holds something else.
pub fn of_file<T>(file: &Path) -> Result<T, Failure>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = std::fs::read_to_string(file)
        .map_err(|source| Failure::io(format!("read {}", file.display()), source))?;
    text.trim().parse().map_err(|why| Failure::Usage(format!("{}: {why}", file.display())))
}
