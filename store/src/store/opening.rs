//! What is checked and claimed before a member starts, and why it can't.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::config::Config;
use crate::mark::Mark;
use crate::mvcc::view::DiskError;
use crate::peer::join::JoinError;
use crate::raft::member::MemberConfig;
use crate::raft::persist::RecoverError;
use crate::raft::proposals::ProposalLimits;
use crate::raft::replica::{LogKeep, Replica, ReplicaConfig, StartError};
use crate::rocks::Rocks;
use crate::start::{self, Start};

/// How often what is left of a lease is written down, if it lasts longer than this.
const LEASE_CHECKPOINT: Duration = Duration::from_secs(300);

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration contradicts itself.
    #[error("invalid store configuration: {0}")]
    Config(String),
    /// The directory can't be made or used.
    #[error("{}: can't {attempted}", path.display())]
    Dir {
        /// Which file or directory.
        path: PathBuf,
        /// What was attempted.
        attempted: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("{}: the directory is in use by {holder}; stop it or choose another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it, as far as known.
        holder: String,
    },
    /// The database can't be opened.
    #[error("{}: can't open the database", path.display())]
    Database {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: DiskError,
    },
    /// The contents don't fit this member, or aren't whole.
    #[error("{}: can't start from the directory", path.display())]
    Start {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: StartError,
    },
    /// The cluster to join can't be found, or doesn't expect this member.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The peer address can't be listened on.
    #[error("can't listen for other members on {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A group of one didn't become its own leader.
    #[error("the store didn't start in time")]
    NotReady,
}

pub(super) fn check(config: &Config) -> Result<(), OpenError> {
    let refuse = |why: &str| Err(OpenError::Config(why.into()));
    if config.peers.keys().chain(&config.id).any(|id| id.0 == 0) {
        return refuse("member ids start at 1");
    }
    if config.heartbeat_ticks == 0 || config.election_ticks <= config.heartbeat_ticks {
        return refuse("election_ticks must be greater than heartbeat_ticks, which must be at least 1");
    }
    if config.tick.is_zero() {
        return refuse("the tick must not be zero");
    }
    Ok(())
}

pub(super) fn replica_config(config: &Config, start: &Start) -> ReplicaConfig {
    let limits = &config.limits;
    let election = config.tick * u32::try_from(config.election_ticks).unwrap_or(u32::MAX);
    ReplicaConfig {
        member: MemberConfig {
            id: start.id,
            election_ticks: config.election_ticks,
            heartbeat_ticks: config.heartbeat_ticks,
            max_message_bytes: limits.max_message_bytes,
            max_inflight: 64,
            max_uncommitted_bytes: limits.max_uncommitted_bytes,
            max_apply_bytes: limits.max_message_bytes,
            seed: start.cluster.0,
        },
        tick: config.tick,
        cluster: start.cluster.0,
        founders: start.founders.clone(),
        introduced: start.introduced.members().map(|member| member.id).collect(),
        incarnation: start::draw_incarnation(),
        proposals: ProposalLimits {
            max_waiting: limits.max_waiting_writes,
            max_bytes: limits.max_request_bytes,
            timeout: limits.request_timeout,
            resend_after: election * 2,
        },
        log_keep: LogKeep {
            entries: limits.log_keep_entries,
            bytes: limits.log_keep_bytes,
            for_snapshot_bytes: limits.log_keep_for_snapshot_bytes,
        },
        history: config.history.keep,
        compact_every: config.history.check_every,
        lease_checkpoint: LEASE_CHECKPOINT,
    }
}

/// Refuses a log that ends before what this member certainly had.
pub(super) fn check_mark(mark: &Mark, replica: &Replica<Rocks>) -> Result<(), OpenError> {
    let (last, marked) = (replica.member().log().last(), mark.read());
    if last >= marked {
        return Ok(());
    }
    let lost = RecoverError::LogLost(format!("it ends at entry {last}, but {marked} was applied here"));
    Err(OpenError::Start { path: mark.path().to_path_buf(), source: lost.into() })
}

/// Takes the directory for this process.
pub(crate) fn lock_dir(dir: &Path) -> Result<Flock<OwnedFd>, OpenError> {
    let path = dir.join("lock");
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(dir_error(&path, "open the lock file"))?;
    match Flock::lock(OwnedFd::from(file), FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            std::fs::write(&path, std::process::id().to_string())
                .map_err(dir_error(&path, "write the lock file"))?;
            Ok(lock)
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            let holder = match std::fs::read_to_string(&path) {
                Ok(pid) if !pid.is_empty() => format!("process {}", pid.trim()),
                _ => "another process".into(),
            };
            Err(OpenError::InUse { path: dir.to_path_buf(), holder })
        }
        Err((_, errno)) => Err(dir_error(&path, "lock")(errno.into())),
    }
}

pub(super) fn dir_error(path: &Path, attempted: &'static str) -> impl FnOnce(std::io::Error) -> OpenError {
    let path = path.to_path_buf();
    move |source| OpenError::Dir { path, attempted, source }
}
