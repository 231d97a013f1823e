//! Finding out, through the log, that members differ, and who is wrong.
//!
//! A [`Check`] is a log entry. Each one opens a checkpoint: every member notes the digest of its own state
//! there. The next one carries the leader's digest of that checkpoint, which is its vote; a member whose own
//! digest differs from a vote casts its vote too, and then all do. What a majority of the voters has is
//! right; the others get the alarm. While votes disagree no new checkpoint is opened, so that nobody's
//! vote comes too late.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::MemberId;

/// What a checking log entry says: the proposer's vote, and whether it opens the next checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The index of the checkpoint that is voted on.
    pub at: u64,
    /// The proposer's digest there.
    pub digest: u64,
    /// The entry is itself a checkpoint (the leader's).
    pub opens: bool,
}

/// The state at one log index, as this member sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The index; 0 for none.
    pub index: u64,
    /// **This member's** digest there.
    pub digest: u64,
    /// Who said what; the same on all members.
    pub votes: BTreeMap<MemberId, u64>,
}

/// The last two checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// The newest.
    pub current: Checkpoint,
    /// The one that the leader has voted on.
    pub previous: Checkpoint,
}

impl Checkpoint {
    /// Votes differ.
    fn disputed(&self) -> bool {
        self.votes.values().collect::<BTreeSet<_>>().len() > 1
    }

    /// Whether `member`, whose state this is, should say what it has: someone said something else, or
    /// others disagree.
    fn wants_vote_of(&self, member: MemberId) -> bool {
        !self.votes.contains_key(&member) && self.votes.values().any(|vote| *vote != self.digest)
            || self.disputed() && !self.votes.contains_key(&member)
    }

    /// Who is wrong, once that is known: all outside a majority of `voters`, or everyone if all have
    /// voted and there is no majority.
    fn wrong(&self, voters: &[MemberId]) -> Vec<MemberId> {
        if !self.disputed() {
            return Vec::new();
        }
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        let cast = voters.iter().filter_map(|voter| self.votes.get(voter));
        cast.for_each(|vote| *counts.entry(*vote).or_default() += 1);
        let right = counts.iter().find(|(_, count)| **count * 2 > voters.len()).map(|(vote, _)| *vote);
        let all_voted = voters.iter().all(|voter| self.votes.contains_key(voter));
        match right {
            Some(right) => self.votes.iter().filter(|(_, vote)| **vote != right).map(|(id, _)| *id).collect(),
            None if all_voted => self.votes.keys().copied().collect(),
            None => Vec::new(),
        }
    }
}

impl Checks {
    /// An entry at `index` is applied; `digest` is this member's there.
    pub fn apply(&mut self, member: MemberId, check: Check, index: u64, digest: u64) {
        for point in [&mut self.previous, &mut self.current] {
            if point.index == check.at && point.index > 0 {
                point.votes.insert(member, check.digest);
            }
        }
        if check.opens && !self.previous.disputed() && !self.current.disputed() {
            let next = Checkpoint { index, digest, votes: BTreeMap::new() };
            self.previous = std::mem::replace(&mut self.current, next);
        }
    }

    /// The dispute led to an alarm: go on.
    pub fn settle(&mut self) {
        self.previous.votes.clear();
        self.current.votes.clear();
    }

    /// What this member should say now, if anything.
    pub fn vote(&self, member: MemberId) -> Option<Check> {
        let wanted = [&self.previous, &self.current].into_iter().find(|point| point.wants_vote_of(member));
        wanted.map(|point| Check { at: point.index, digest: point.digest, opens: false })
    }

    /// Who is wrong as far as the votes show.
    pub fn wrong(&self, voters: &[MemberId]) -> Vec<MemberId> {
        [&self.previous, &self.current].into_iter().flat_map(|point| point.wrong(voters)).collect()
    }

    /// What the leader should propose: its vote, and the next checkpoint. `None` if nothing has happened
    /// since the last one that everyone could compare.
    pub fn next(&self, digest: u64) -> Option<Check> {
        let compared = self.previous.digest == self.current.digest && !self.previous.votes.is_empty();
        let idle = self.current.index > 0 && self.current.digest == digest && compared;
        let (at, digest) = (self.current.index, self.current.digest);
        (!idle).then_some(Check { at, digest, opens: true })
    }

    /// The record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(64);
        for point in [&self.current, &self.previous] {
            out.u64(point.index).u64(point.digest);
            out.u32(u32::try_from(point.votes.len()).expect("there are few members"));
            for (member, vote) in &point.votes {
                out.u64(member.0).u64(*vote);
            }
        }
        out.finish()
    }

    /// Reads the record.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn decode(record: Bytes) -> Result<Self, DecodeError> {
        let mut input = Reader::new(record);
        let mut point = || {
            let (index, digest) = (input.u64("checkpoint")?, input.u64("digest")?);
            let count = input.u32("votes")?;
            let votes = (0..count).map(|_| Ok((MemberId(input.u64("member")?), input.u64("vote")?)));
            Ok(Checkpoint { index, digest, votes: votes.collect::<Result<_, DecodeError>>()? })
        };
        Ok(Self { current: point()?, previous: point()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTERS: [MemberId; 3] = [MemberId(1), MemberId(2), MemberId(3)];

    /// Three members' checks; each applies the same entries with its own digests.
    fn apply(members: &mut [Checks; 3], digests: [u64; 3], from: MemberId, check: Check, index: u64) {
        for (checks, digest) in members.iter_mut().zip(digests) {
            checks.apply(from, check, index, digest);
        }
    }

    #[test]
    fn a_majority_says_who_is_wrong_even_if_the_leader_is() {
        for (wrong, leader) in [(0, 0), (1, 0), (2, 0)] {
            let mut members: [Checks; 3] = Default::default();
            let mut digests = [7; 3];
            digests[wrong] = 8;
            let open = members[leader].next(digests[leader]).unwrap();
            apply(&mut members, digests, VOTERS[leader], open, 10);
            let vote = members[leader].next(digests[leader]).unwrap();
            apply(&mut members, digests, VOTERS[leader], vote, 20);
            assert!(members[leader].wrong(&VOTERS).is_empty(), "one vote decides nothing");
            for index in 21..25 {
                for at in 0..3 {
                    if let Some(vote) = members[at].vote(VOTERS[at]) {
                        apply(&mut members, digests, VOTERS[at], vote, index);
                    }
                }
            }
            for checks in &members {
                assert_eq!(checks.wrong(&VOTERS), [VOTERS[wrong]]);
                assert_eq!(Checks::decode(checks.encode().into()).unwrap(), *checks);
            }
            members[0].settle();
            assert!(members[0].wrong(&VOTERS).is_empty());
        }
    }

    #[test]
    fn equal_members_stop_checking_when_nothing_happens() {
        let mut checks = Checks::default();
        let mut index = 0;
        while let Some(check) = checks.next(7) {
            index += 1;
            checks.apply(VOTERS[0], check, index, 7);
            assert!(index < 5, "checking never ends");
        }
        assert!(checks.vote(VOTERS[1]).is_none());
        assert!(checks.next(9).is_some(), "something happened");
    }

    #[test]
    fn without_a_majority_everyone_is_suspect() {
        let two = &VOTERS[..2];
        let mut checks = Checks::default();
        checks.apply(two[0], Check { at: 0, digest: 0, opens: true }, 5, 7);
        checks.apply(two[0], Check { at: 5, digest: 7, opens: true }, 6, 7);
        checks.apply(two[1], Check { at: 5, digest: 8, opens: false }, 7, 7);
        assert_eq!(checks.wrong(two), two);
    }
}
