//! The flags of `amoeba server` that say how much it takes on, what it records, and where its administrator gets in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::ApiServer;
use apiserver::audit::AuditConfig;
use apiserver::audit::file::Rotation;
use apiserver::audit::policy::Policy;
use tokio::sync::watch;

use crate::member::MemberError;

/// The socket in the data directory.
const ADMIN_SOCKET: &str = "admin.sock";

/// Limits, audit log and admin socket; upstream's names where it has one.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Load and audit")]
pub struct LoadArgs {
    /// Reads served at once; with the writes they are the seats that the priority levels share
    #[arg(long, value_name = "NUMBER", default_value_t = 400)]
    max_requests_inflight: u32,
    /// Writes served at once
    #[arg(long, value_name = "NUMBER", default_value_t = 200)]
    max_mutating_requests_inflight: u32,
    /// Record requests in this file
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// What is recorded, as an audit.k8s.io/v1 Policy; levels above Metadata count as Metadata
    /// [default: what changes something, but for leases, events and the status that nodes report]
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    audit_policy_file: Option<PathBuf>,
    /// Set the file aside when it is larger, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 100)]
    audit_log_maxsize: u64,
    /// Keep so many files that were set aside; 0 keeps all
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    audit_log_maxbackup: usize,
    /// Keep them for so many days; 0 keeps them for ever
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    audit_log_maxage: u64,
    /// Where an administrator of this machine gets in without certificate and without limits
    /// [default: admin.sock in the data directory]
    #[arg(long, value_name = "FILE")]
    admin_socket: Option<PathBuf>,
}

impl LoadArgs {
    /// Says it to the API server.
    pub fn configure(&self, config: &mut apiserver::Config) -> Result<(), MemberError> {
        config.limits.seats = (self.max_requests_inflight + self.max_mutating_requests_inflight).max(1);
        if let Some(path) = &self.audit_log_path {
            let policy = self.audit_policy_file.as_deref().map(Policy::load).transpose();
            config.audit = Some(AuditConfig {
                policy: policy.map_err(MemberError::AuditPolicy)?.unwrap_or_default(),
                path: path.clone(),
                rotation: self.rotation(),
            });
        }
        Ok(())
    }

    fn rotation(&self) -> Rotation {
        Rotation {
            max_bytes: self.audit_log_maxsize.saturating_mul(1 << 20),
            max_backups: self.audit_log_maxbackup,
            max_age: Duration::from_secs(self.audit_log_maxage.saturating_mul(24 * 3600)),
        }
    }

    /// Opens the admin socket; it is served until `stop`.
    pub fn open_admin(
        &self,
        api: &Arc<ApiServer>,
        dir: &Path,
        stop: watch::Receiver<bool>,
    ) -> Result<(), MemberError> {
        let path = self.admin_socket.clone().unwrap_or_else(|| dir.join(ADMIN_SOCKET));
        match api.admin(&path) {
            Ok(socket) => drop(tokio::spawn(socket.serve(stop))),
            // A path may be too long for a socket; nobody who didn't ask for it shall miss a cluster for that.
            Err(error) if self.admin_socket.is_none() => {
                tracing::warn!(path = %path.display(), %error, "there is no admin socket");
            }
            Err(source) => return Err(MemberError::AdminSocket { path, source }),
        }
        Ok(())
    }
}
