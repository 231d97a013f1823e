//! What a leader lets into its log of membership changes.
//!
//! Changes arrive as Raft proposals, the leader's own and forwarded ones alike, and are judged here before
//! Raft sees them. A refused change becomes an ordinary entry that carries the refusal under the same
//! proposal id, so that the proposer, wherever it is, learns it from its own apply.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType};

use crate::command::{Command, Proposal};
use crate::kv::MemberId;
use crate::membership::{MemberChange, Refusal};

/// What becomes of a proposed change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be appended.
    Append,
    /// It is refused.
    Refuse(Refusal),
    /// Not now; its proposer sends it again.
    Later,
}

/// When each member was last heard of.
#[derive(Debug, Default)]
pub struct Heard {
    at: BTreeMap<MemberId, Duration>,
}

impl Heard {
    /// A message of `id` has come.
    pub fn from(&mut self, id: MemberId, now: Duration) {
        self.at.insert(id, now);
    }

    /// The connection to or from `id` is broken: it counts as gone until it is heard of again.
    pub fn lost(&mut self, id: MemberId) {
        self.at.remove(&id);
    }

    /// Who was heard of at or after `time`.
    pub fn since(&self, time: Duration) -> BTreeSet<MemberId> {
        self.at.iter().filter(|(_, at)| **at >= time).map(|(id, _)| *id).collect()
    }
}

/// A log entry's payload, and what kind of entry it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The entry's bytes.
    pub data: Bytes,
    /// Raft guards it as a change of voters or learners.
    pub conf_change: bool,
}

impl Payload {
    /// Wraps an encoded proposal of `command`.
    pub fn new(command: &Command, proposal: Vec<u8>) -> Self {
        let conf_change = match command {
            Command::Member(change) => change.conf_change(),
            _ => None,
        };
        match conf_change {
            None => Self { data: proposal.into(), conf_change: false },
            Some(mut change) => {
                change.set_context(proposal.into());
                let data = change.write_to_bytes().expect("a complete message in memory");
                Self { data: data.into(), conf_change: true }
            }
        }
    }

    /// The entry to propose.
    pub fn into_entry(self) -> Entry {
        let mut entry = Entry::new();
        entry.data = self.data;
        if self.conf_change {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
        }
        entry
    }
}

/// The proposal inside a membership change's entry; empty in the one that leaves a joint membership.
///
/// # Errors
/// If the entry is damaged.
pub fn proposal_of(data: &[u8]) -> Result<Bytes, protobuf::ProtobufError> {
    let mut change = ConfChangeV2::new();
    change.merge_from_bytes(data)?;
    Ok(change.take_context())
}

/// Asks `judge` about each membership change in a proposal message that is about to reach the leader.
/// Afterwards the message may be empty; then it must not be stepped.
pub fn screen(message: &mut Message, judge: &mut dyn FnMut(&MemberChange) -> Verdict) {
    if message.get_msg_type() != MessageType::MsgPropose {
        return;
    }
    let is_change = |entry: &Entry| entry.get_entry_type() != EntryType::EntryNormal;
    if !message.get_entries().iter().any(is_change) {
        return;
    }
    let entries = message.take_entries().into_iter();
    let kept =
        entries.filter_map(|entry| if is_change(&entry) { screen_entry(entry, judge) } else { Some(entry) });
    message.set_entries(kept.collect::<Vec<_>>().into());
}

fn screen_entry(entry: Entry, judge: &mut dyn FnMut(&MemberChange) -> Verdict) -> Option<Entry> {
    // Nobody proposes leaving a joint membership but the leader itself, which doesn't ask here.
    let proposal = proposal_of(&entry.data).ok().and_then(|data| Proposal::decode(data).ok())?;
    let Command::Member(change) = &proposal.command else { return None };
    match judge(change) {
        Verdict::Append => Some(entry),
        Verdict::Later => None,
        Verdict::Refuse(refusal) => {
            let command = Command::Member(MemberChange::Refused(refusal));
            let refused = Proposal { command, ..proposal }.encode();
            Some(Payload { data: refused.into(), conf_change: false }.into_entry())
        }
    }
}
