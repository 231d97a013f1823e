//! What a replica is told at start, and what its parts make of it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::kv::MemberId;
use crate::membership::MemberInfo;
use crate::raft::lease_desk::DeskLimits;
use crate::raft::leases::LeaseTimes;
use crate::raft::member::MemberConfig;
use crate::raft::proposals::ProposalLimits;

/// Everything a replica is told at start.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// Raft's sizes and times.
    pub member: MemberConfig,
    /// The length of a tick.
    pub tick: Duration,
    /// Which cluster.
    pub cluster: u64,
    /// The founding members of a new group; counts only on a new disk. Without any, the member waits to be
    /// told by the group that it joins.
    pub founders: Vec<MemberInfo>,
    /// The members that it was told of where it joins a group; empty otherwise. Until it knows the membership
    /// it asks them to vouch for it, and hears from them if it was removed meanwhile.
    pub introduced: BTreeSet<MemberId>,
    /// A number that no other directory has, drawn for this one; counts only if it is new, and isn't 0.
    pub incarnation: u64,
    /// Limits of proposals.
    pub proposals: ProposalLimits,
    /// How much log is kept for lagging followers.
    pub log_keep: LogKeep,
    /// How long history is kept.
    pub history: Duration,
    /// How often the leader looks whether history is too old.
    pub compact_every: Duration,
    /// How often what is left of a long lease is written down.
    pub lease_checkpoint: Duration,
}

/// How much applied log is kept; a follower that needs more gets a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct LogKeep {
    /// At most so many entries.
    pub entries: usize,
    /// At most so many bytes.
    pub bytes: usize,
    /// While members are on their way to a snapshot, at most so many bytes in memory.
    pub for_snapshot_bytes: usize,
}

pub(super) fn lease_times(config: &ReplicaConfig) -> LeaseTimes {
    let election_ticks = u32::try_from(config.member.election_ticks).unwrap_or(u32::MAX);
    LeaseTimes {
        grace: config.tick * election_ticks,
        again_after: config.proposals.timeout,
        checkpoint_every: config.lease_checkpoint,
    }
}

pub(super) fn desk_limits(limits: &ProposalLimits) -> DeskLimits {
    DeskLimits { max_waiting: limits.max_waiting, timeout: limits.timeout, resend_after: limits.resend_after }
}
