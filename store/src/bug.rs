//! Seeded bugs: wrong behaviour on request, to prove that the tests would see it.
//!
//! Each is a mistake that some store really shipped, or that our own design invites. Production code asks
//! `bug!(Name)` at the place where the mistake would be made. That is a constant `false` in every ordinary
//! build; only unit tests and builds with the feature `seeded_bugs` can switch one on, and only for the
//! thread that asks for it. `tests::seeded` shows that each of them is caught, and by what.

/// A mistake that can be switched on.
///
/// The last one is out of the simulation's reach, as nobody there is lost for good at the moment of a removal;
/// `tests::removal` catches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the text of each is in `what`")]
pub enum Bug {
    AppliedIndexInOwnBatch,
    AckBeforeSync,
    ReuseReadContext,
    ReadWithoutApplyWait,
    ProgressOutOfBand,
    DuplicateOnResync,
    DropVictimBatch,
    KeepDeletedAtCompaction,
    RevisionResetOnCompactionCrash,
    ReplayAfterSnapshot,
    FutureWatchSendsOld,
    OldLeadersExpiryApplied,
    RenewAfterRevoke,
    CompactedReadPerMember,
    CommitBehindAppliedOnOpen,
    SnapshotInstalledInPlace,
    VoteNotPersisted,
    LeaderLeaseReads,
    SessionLostInSnapshot,
    ExpiryIgnoresRenewal,
    ForgottenVoterVotes,
    OneDismissesTheRemoved,
}

#[cfg(any(test, feature = "seeded_bugs"))]
impl Bug {
    /// All of them.
    pub const ALL: [Bug; 21] = [
        Bug::AppliedIndexInOwnBatch,
        Bug::AckBeforeSync,
        Bug::ReuseReadContext,
        Bug::ReadWithoutApplyWait,
        Bug::ProgressOutOfBand,
        Bug::DuplicateOnResync,
        Bug::DropVictimBatch,
        Bug::KeepDeletedAtCompaction,
        Bug::RevisionResetOnCompactionCrash,
        Bug::ReplayAfterSnapshot,
        Bug::FutureWatchSendsOld,
        Bug::OldLeadersExpiryApplied,
        Bug::RenewAfterRevoke,
        Bug::CompactedReadPerMember,
        Bug::CommitBehindAppliedOnOpen,
        Bug::SnapshotInstalledInPlace,
        Bug::VoteNotPersisted,
        Bug::LeaderLeaseReads,
        Bug::SessionLostInSnapshot,
        Bug::ExpiryIgnoresRenewal,
        Bug::ForgottenVoterVotes,
    ];

    /// What goes wrong.
    pub fn what(self) -> &'static str {
        match self {
            Bug::AppliedIndexInOwnBatch => {
                "the applied index is written after the data, in a batch of its own"
            }
            Bug::AckBeforeSync => "log entries are acknowledged before they are synced",
            Bug::ReuseReadContext => "all read confirmations of a start carry the same context",
            Bug::ReadWithoutApplyWait => "a confirmed read doesn't wait until its index is applied",
            Bug::ProgressOutOfBand => "progress is told to watchers that have events to get",
            Bug::DuplicateOnResync => "a watcher that is caught up from disk gets the last revision twice",
            Bug::DropVictimBatch => "a watcher that falls behind the ring goes on at the ring's start",
            Bug::KeepDeletedAtCompaction => "compaction forgets a deletion but not what was deleted",
            Bug::RevisionResetOnCompactionCrash => {
                "a start amid a compaction takes its mark for the newest revision"
            }
            Bug::ReplayAfterSnapshot => "an installed snapshot makes watches begin again at the compaction",
            Bug::FutureWatchSendsOld => "a watch from a future revision begins at the next one",
            Bug::OldLeadersExpiryApplied => "the end of a lease is applied though its proposer was deposed",
            Bug::RenewAfterRevoke => "a lease that is gone can be kept alive",
            Bug::CompactedReadPerMember => {
                "a transaction reads compacted history as far as this member still has it"
            }
            Bug::CommitBehindAppliedOnOpen => "the commit index on disk is believed though more was applied",
            Bug::SnapshotInstalledInPlace => "a snapshot's log position is written after its contents",
            Bug::VoteNotPersisted => "term and vote are written without a sync",
            Bug::LeaderLeaseReads => "a leader answers reads without asking a quorum",
            Bug::SessionLostInSnapshot => "a snapshot doesn't carry which proposals were applied",
            Bug::ExpiryIgnoresRenewal => "the end of a lease is applied though it was kept alive meanwhile",
            Bug::OneDismissesTheRemoved => "a removed member ends as soon as one other has told it to",
            Bug::ForgottenVoterVotes => "a member that has lost its directory takes part as if it were new",
        }
    }
}

/// Whether `bug` is switched on for this thread.
#[cfg(any(test, feature = "seeded_bugs"))]
pub fn active(bug: Bug) -> bool {
    ACTIVE.get() == Some(bug)
}

/// Whether `bug` is switched on: never in an ordinary build.
#[cfg(not(any(test, feature = "seeded_bugs")))]
#[inline(always)]
pub const fn active(_bug: Bug) -> bool {
    false
}

#[cfg(any(test, feature = "seeded_bugs"))]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Runs `work` with `bug` switched on for this thread.
#[cfg(any(test, feature = "seeded_bugs"))]
pub fn with<T>(bug: Option<Bug>, work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Bug>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ACTIVE.set(self.0);
        }
    }
    let _restore = Restore(ACTIVE.replace(bug));
    work()
}

/// Whether the seeded bug of that name is switched on.
macro_rules! bug {
    ($name:ident) => {
        $crate::bug::active($crate::bug::Bug::$name)
    };
}
pub(crate) use bug;
