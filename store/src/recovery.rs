//! Going on after most members are lost for ever: one survivor becomes a cluster of its own.
//!
//! Nothing can say which acknowledged writes the lost members had and the survivor had not; the report
//! names the last entry that is there. The survivor gets a new cluster's identity, so that a lost member
//! that comes back after all is refused, and revisions beyond any that the old cluster can have issued.

use std::path::{Path, PathBuf};

use crate::alarm::AlarmKind;
use crate::config::{ClusterId, Limits};
use crate::disk::{Disk, Durability};
use crate::failpoint::failpoint;
use crate::kv::{MemberId, Revision};
use crate::mvcc::corruption::Checks;
use crate::mvcc::state::State;
use crate::mvcc::view::{Batch, DiskError};
use crate::raft::persist::{self, Identity, RecoverError};
use crate::rocks::Rocks;
use crate::store::{OpenError, lock_dir};

/// What the survivor becomes.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// The survivor; `None`: whoever its directory says.
    pub id: Option<MemberId>,
    /// The new cluster; must differ from the old one.
    pub cluster: ClusterId,
    /// Added to the newest revision; see [`crate::backup::BUMP_REVISION`].
    pub bump_revision: u64,
    /// Forget all history, so that watchers of the old cluster must read again.
    pub mark_compacted: bool,
}

/// What was there, and so what may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The old cluster.
    pub old_cluster: ClusterId,
    /// Its voters.
    pub old_voters: Vec<MemberId>,
    /// The last entry that is known to be committed.
    pub committed: u64,
    /// The last entry in the log. Those after `committed` are kept: the old cluster may have acknowledged
    /// them. **Whatever it acknowledged after this one is lost.**
    pub last: u64,
    /// The newest applied revision of the old cluster.
    pub old_revision: Revision,
    /// The newest revision now.
    pub revision: Revision,
}

/// Why the survivor can't go on alone.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The directory can't be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It isn't this member's, or isn't whole.
    #[error("{}: the member can't be recovered", path.display())]
    Recover {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: RecoverError,
    },
    /// The options contradict what is there.
    #[error("{}: can't make a new cluster: {why}", path.display())]
    Options {
        /// The directory.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Makes the survivor in `dir`, whose process must have ended, the only member of a new cluster.
///
/// # Errors
/// If the directory is in use, isn't that member's, or isn't whole. Nothing is changed then.
pub fn force_new_cluster(dir: &Path, wanted: &NewCluster) -> Result<Report, RecoveryError> {
    let failed = |source| RecoveryError::Recover { path: dir.to_path_buf(), source };
    let database = |source: DiskError| failed(RecoverError::Disk(source));
    let _lock = lock_dir(dir)?;
    let rocks = Rocks::open(&dir.join("db"), &dir.join("snapshots"), &Limits::default()).map_err(database)?;
    let found = persist::identity(&rocks).map_err(failed)?;
    let found = check(dir, wanted, found)?;
    let log = persist::recover(&rocks).map_err(failed)?;
    let mut state = State::load(&rocks).map_err(database)?;
    if let Some(detail) = state.alarms.get(&(AlarmKind::Corrupt, found.member)) {
        return Err(failed(RecoverError::Fenced { member: found.member, detail: detail.clone() }));
    }
    // What was wrong with the lost members concerns nobody any more; our own disk is looked at anew.
    state.alarms.clear();
    state.checks = Checks::default();
    let (mut head, membership) = (state.head, state.membership.clone());
    let voters = membership.voters();
    if voters == [found.member] {
        let why = "its member is alone already; start it without that".into();
        return Err(RecoveryError::Options { path: dir.to_path_buf(), why });
    }
    let old_revision = head.revision;
    head.revision = Revision(head.revision.0 + wanted.bump_revision);
    if wanted.mark_compacted {
        head.compacted = head.revision;
    }
    let mut batch = Batch::default();
    head.store(&mut batch);
    state.store_alarms(&mut batch);
    state.store_checks(&mut batch);
    membership.only(found.member).store(&mut batch);
    persist::void_conf_changes(&log, head.index, &mut batch);
    let identity = Identity { cluster: wanted.cluster.0, member: found.member };
    persist::identify(&mut batch, &identity);
    failpoint!("recover_before_write");
    rocks.write(&batch, Durability::Synced).map_err(database)?;
    failpoint!("recover_after_write");
    Ok(Report {
        old_cluster: ClusterId(found.cluster),
        old_voters: voters,
        committed: log.hard_state.commit,
        last: log.last(),
        old_revision,
        revision: head.revision,
    })
}

fn check(dir: &Path, wanted: &NewCluster, found: Option<Identity>) -> Result<Identity, RecoveryError> {
    let refuse = |why: String| RecoveryError::Options { path: dir.to_path_buf(), why };
    let found = found.ok_or_else(|| refuse("there is no member in it".into()))?;
    if let Some(id) = wanted.id.filter(|id| *id != found.member) {
        return Err(refuse(format!("it is the directory of member {}, not {id}", found.member)));
    }
    if found.cluster == wanted.cluster.0 {
        return Err(refuse("the new cluster must have another id than the old one".into()));
    }
    Ok(found)
}
