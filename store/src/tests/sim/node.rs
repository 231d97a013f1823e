//! A member of the simulated group: its disk, its clocks and how it is configured.

use std::collections::BTreeSet;
use std::time::Duration;

use super::disk::SimDisk;
use super::plan::Plan;
use super::random::Random;
use super::world::{ELECTION_TICKS, STEP_MS, TICK_MS};
use crate::kv::{MemberId, Revision};
use crate::membership::MemberInfo;
use crate::raft::member::MemberConfig;
use crate::raft::proposals::ProposalLimits;
use crate::raft::replica::{Input, LogKeep, Now, Replica, ReplicaConfig};
use crate::snapshot;
use crate::watch::hub::Hub;

pub struct Node {
    pub disk: SimDisk,
    pub running: Option<Running>,
    pub starts_at: u64,
    /// How long it stays down after the next crash.
    pub down: u64,
    /// The power fails when it has given a vote.
    pub fails_after_vote: bool,
    pub inbox: Vec<Input>,
    pub paused_until: u64,
    pub watchers_stall_until: u64,
    /// It has no space until then; `Some` as long as it may still say so.
    pub full_until: Option<u64>,
    /// The group has removed it, or it mustn't go on.
    pub gone: bool,
    /// It lost its disk, and must not be believed any more.
    pub lost_disk: bool,
    /// How often it was started.
    pub starts: u64,
    /// Percent of real time, and until when.
    pub rate: (u64, u64),
    /// Its wall clock is off by so much.
    pub wall_offset_ms: i64,
    /// Its monotonic clock, in microseconds.
    mono_us: u64,
    next_tick_us: u64,
}

pub struct Running {
    pub replica: Replica<SimDisk>,
    pub hub: Hub,
    /// There may be compacted history to clean up.
    pub scrubbing: bool,
    /// The newest revision it ever had.
    pub revision: Revision,
}

impl Node {
    /// What its driver says of the space on its disk.
    pub fn look_at_space(&mut self, now: u64) -> Option<Input> {
        let until = self.full_until?;
        if now < until {
            return Some(Input::Space(Some("nearly full".into())));
        }
        self.disk.give_space();
        Some(Input::Space(None))
    }

    /// A new disk.
    pub fn new(random: &mut Random) -> Self {
        Self {
            disk: SimDisk::default(),
            running: None,
            starts_at: 0,
            down: 0,
            fails_after_vote: false,
            inbox: Vec::new(),
            paused_until: 0,
            watchers_stall_until: 0,
            full_until: None,
            gone: false,
            lost_disk: false,
            starts: 0,
            rate: (100, 0),
            wall_offset_ms: i64::try_from(random.below(100_000)).expect("a minute fits"),
            mono_us: 0,
            next_tick_us: random.below(TICK_MS * 1000),
        }
    }

    /// Its clocks go on, whatever it does; `now` is the true time, in steps.
    pub fn pass_time(&mut self, now: u64) {
        let (rate, until) = self.rate;
        self.mono_us += STEP_MS * 10 * if now < until { rate } else { 100 };
    }

    /// What its clocks say.
    pub fn clocks(&self, now: u64) -> Now {
        let wall = i64::try_from(10_000_000 + now * STEP_MS).expect("far below the end of time");
        let wall_ms = u64::try_from(wall + self.wall_offset_ms).expect("jumps are below the start");
        Now { mono: Duration::from_micros(self.mono_us), wall_ms }
    }

    /// Whether it is time for a tick; then the next is set. After a pause there is one, as in the driver.
    pub fn tick(&mut self) -> bool {
        let due = self.mono_us >= self.next_tick_us;
        if due {
            self.next_tick_us = self.mono_us + TICK_MS * 1000;
        }
        due
    }
}

/// What the member is told at its start of that number.
pub fn config(plan: &Plan, at: usize, start: u64) -> ReplicaConfig {
    ReplicaConfig {
        member: MemberConfig {
            id: MemberId(at as u64 + 1),
            election_ticks: usize::try_from(ELECTION_TICKS).expect("a few"),
            heartbeat_ticks: 2,
            max_message_bytes: 2000,
            max_inflight: 8,
            max_uncommitted_bytes: 100_000,
            max_apply_bytes: 1000,
            seed: plan.seed,
        },
        tick: Duration::from_millis(TICK_MS),
        cluster: 1,
        founders: if at < plan.members { founders(plan.members) } else { Vec::new() },
        introduced: BTreeSet::new(),
        incarnation: 1000 * start + at as u64 + 1,
        proposals: ProposalLimits {
            max_waiting: 100,
            max_bytes: 10_000,
            timeout: Duration::from_millis(1500),
            resend_after: Duration::from_millis(400),
        },
        log_keep: LogKeep {
            entries: plan.workload.log_keep,
            bytes: 100_000,
            for_snapshot_bytes: 600 * plan.workload.log_keep,
        },
        history: Duration::from_secs(1_000_000),
        compact_every: Duration::from_secs(1),
        lease_checkpoint: Duration::from_secs(1),
    }
}

/// The members of a new group.
pub fn founders(members: usize) -> Vec<MemberInfo> {
    (1..=members as u64).map(|id| MemberInfo::new(MemberId(id), format!("member:{id}"))).collect()
}

/// What a member offers to one that lags.
pub fn make_snapshot(replica: &Replica<SimDisk>, disk: &SimDisk) -> Input {
    let mut made = replica.snapshot_header();
    let mut data = Vec::new();
    let mut collect = |block: &[u8]| {
        data.extend_from_slice(block);
        Ok(())
    };
    snapshot::encode(disk, &mut collect).expect("memory can be read");
    made.data = data.into();
    Input::SnapshotMade(Some(made))
}
