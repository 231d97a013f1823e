//! How a member with a new directory gets its say, so that one that has lost its directory doesn't.
//!
//! Raft trusts acknowledgements and votes for ever. A member that starts with an empty directory under an id
//! that was at work before has forgotten them, and could vote twice in a term or let a write be lost that it
//! had acknowledged. So each new directory draws a number, its incarnation, and is a newcomer first: it takes
//! no part in Raft at all, but asks the other members whether they know it. Each of them writes down, for
//! ever, the first incarnation of a member that it hears of, and vouches for no other. With more than half of
//! the *others* vouching it is admitted; one that knows another incarnation fences it.
//!
//! Why that is enough: two incarnations of one member would need more than half of the others each, and so a
//! member that vouched for both. It is also the least that will do. In a group of three, if two could begin
//! without telling the third, and then one of the two forgot, it and the third would be a majority that knows
//! of nothing. So a group of three is founded by all three, and one of five by any four of them.
//!
//! Members come and go. What they wrote down goes with them, so each one records its incarnation in the
//! replicated membership once it is admitted ([`crate::membership::MemberChange::Identify`]), and the leader
//! changes no voters while one of those that stay hasn't ([`crate::membership::judge`]).
//!
//! A directory that was put back to an earlier state keeps its incarnation. That is told from what a leader's
//! heartbeat says: see [`forgotten`].

use std::collections::BTreeSet;

use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};

use super::lease_desk::ENVELOPE;
use crate::bug::bug;
use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::MemberId;

pub mod record;

/// The format of words; envelopes about leases begin with another.
const VERSION: u8 = 2;

/// What newcomers and those whom they ask say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A newcomer asks: do you know me, with this incarnation?
    Ask(u64),
    /// I know you with this incarnation and with no other.
    Known {
        /// As it was asked about.
        incarnation: u64,
        /// How far the membership below is.
        index: u64,
        /// Who votes, as far as I know.
        voters: BTreeSet<MemberId>,
    },
    /// I know you, but not with this incarnation.
    Another(u64),
}

/// A member that isn't admitted yet.
#[derive(Debug)]
pub struct Newcomer {
    member: MemberId,
    incarnation: u64,
    /// Who votes, as of which index: the newest that was heard of.
    voters: (u64, BTreeSet<MemberId>),
    /// Of whom else it knows: whom it was told of where it joins, and who talks to it.
    others: BTreeSet<MemberId>,
    vouched: BTreeSet<MemberId>,
}

impl Newcomer {
    /// A member with a new directory, and who votes as far as it was told.
    pub fn new(
        member: MemberId,
        incarnation: u64,
        index: u64,
        voters: impl IntoIterator<Item = MemberId>,
    ) -> Self {
        let voters = (index, voters.into_iter().collect());
        Self { member, incarnation, voters, others: BTreeSet::new(), vouched: BTreeSet::new() }
    }

    /// It was told of a member, or one talks to it.
    pub fn may_ask(&mut self, member: MemberId) {
        self.others.insert(member);
    }

    /// Whom it asks. Those who vouch for it already tell it when others vote.
    pub fn to_ask(&self) -> impl Iterator<Item = MemberId> {
        let known = self.voters.1.union(&self.others).copied();
        known.filter(|id| *id != self.member)
    }

    /// The question.
    pub fn question(&self) -> Word {
        Word::Ask(self.incarnation)
    }

    /// `from` knows it.
    pub fn is_known_by(&mut self, from: MemberId, index: u64, voters: BTreeSet<MemberId>) {
        self.vouched.insert(from);
        if index >= self.voters.0 {
            self.voters = (index, voters);
        }
    }

    /// Whether more than half of the others vouch for it; nobody need, if there are none.
    pub fn is_admitted(&self) -> bool {
        if bug!(ForgottenVoterVotes) {
            return true;
        }
        let others = self.voters.1.iter().filter(|id| **id != self.member);
        let vouching = others.clone().filter(|id| self.vouched.contains(id)).count();
        let others = others.count();
        2 * vouching > others || (others == 0 && self.voters.1.contains(&self.member))
    }
}

/// Whether one may vouch for a member's `incarnation` who has written down `noted`, and whose membership has
/// `recorded` (0: nothing).
pub fn may_vouch(incarnation: u64, noted: Option<u64>, recorded: u64) -> bool {
    let same = |known: u64| known == incarnation;
    noted.is_none_or(same) && (recorded == 0 || same(recorded))
}

/// Whether a message shows that this member, whose log ends at `last`, has forgotten some of it. A leader's
/// heartbeat says up to where the log is committed that this member has acknowledged to it. One of an earlier
/// term says nothing any more.
pub fn forgotten(message: &Message, term: u64, last: u64) -> bool {
    message.get_msg_type() == MessageType::MsgHeartbeat
        && message.term >= term
        && message.commit > last
        && !bug!(ForgottenVoterVotes)
}

/// Whether a message is such a word.
pub fn is_word(message: &Message) -> bool {
    message.get_msg_type() == ENVELOPE && message.context.first() == Some(&VERSION)
}

impl Word {
    /// The message that says it.
    pub fn message(&self, from: MemberId, to: MemberId) -> Message {
        let mut out = Writer::with_capacity(32);
        out.u8(VERSION);
        match self {
            Word::Ask(incarnation) => drop(out.u8(1).u64(*incarnation)),
            Word::Known { incarnation, index, voters } => {
                out.u8(2).u64(*incarnation).u64(*index);
                for id in voters {
                    out.u64(id.0);
                }
            }
            Word::Another(incarnation) => drop(out.u8(3).u64(*incarnation)),
        }
        let mut message = Message::new();
        message.set_msg_type(ENVELOPE);
        (message.from, message.to) = (from.0, to.0);
        message.context = out.finish().into();
        message
    }

    /// What a message says.
    ///
    /// # Errors
    /// If it isn't what [`Word::message`] writes.
    pub fn read(context: Bytes) -> Result<Self, DecodeError> {
        let mut input = Reader::new(context);
        let (_version, kind) = (input.u8("word version")?, input.u8("word")?);
        let incarnation = input.u64("incarnation")?;
        Ok(match kind {
            1 => Word::Ask(incarnation),
            2 => {
                let index = input.u64("index")?;
                let mut voters = BTreeSet::new();
                while input.remaining() > 0 {
                    voters.insert(MemberId(input.u64("voter")?));
                }
                Word::Known { incarnation, index, voters }
            }
            3 => Word::Another(incarnation),
            tag => return Err(DecodeError::Unknown { what: "word", tag: tag.into() }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<MemberId> {
        ids.iter().copied().map(MemberId).collect()
    }

    /// Who must vouch before member 1 of this group is admitted.
    fn needed(voters: &[u64]) -> usize {
        let mut newcomer = Newcomer::new(MemberId(1), 7, 1, ids(voters));
        let mut count = 0;
        for other in newcomer.to_ask().collect::<Vec<_>>() {
            if newcomer.is_admitted() {
                break;
            }
            newcomer.is_known_by(other, 1, ids(voters));
            count += 1;
        }
        assert!(newcomer.is_admitted(), "all others are enough");
        count
    }

    #[test]
    fn more_than_half_of_the_others_must_vouch() {
        let groups = [&[1][..], &[1, 2], &[1, 2, 3], &[1, 2, 3, 4], &[1, 2, 3, 4, 5]];
        assert_eq!(groups.map(needed), [0, 1, 2, 2, 3]);
        assert_eq!(needed(&[2, 3, 4]), 2, "a learner asks them, too");
    }

    #[test]
    fn who_joins_is_told_whom_to_ask_and_believes_the_newest_word() {
        let mut newcomer = Newcomer::new(MemberId(4), 7, 0, []);
        assert!(!newcomer.is_admitted(), "it knows nobody");
        newcomer.may_ask(MemberId(1));
        assert_eq!(newcomer.to_ask().collect::<BTreeSet<_>>(), ids(&[1]));
        newcomer.is_known_by(MemberId(1), 9, ids(&[1, 2, 3]));
        assert!(!newcomer.is_admitted());
        assert_eq!(newcomer.to_ask().collect::<BTreeSet<_>>(), ids(&[1, 2, 3]));
        newcomer.is_known_by(MemberId(2), 5, ids(&[2]));
        assert!(newcomer.is_admitted(), "by two of the three that 1 knows of");
    }

    #[test]
    fn who_waits_for_one_that_leaves_hears_of_it() {
        let mut newcomer = Newcomer::new(MemberId(4), 7, 0, []);
        newcomer.is_known_by(MemberId(1), 9, ids(&[1, 3]));
        assert!(!newcomer.is_admitted());
        newcomer.is_known_by(MemberId(1), 10, ids(&[1]));
        assert!(newcomer.is_admitted());
    }

    #[test]
    fn one_incarnation_is_vouched_for_and_no_other() {
        assert!(may_vouch(7, None, 0), "nobody was heard of before");
        assert!(may_vouch(7, Some(7), 7));
        assert!(!may_vouch(7, Some(8), 0));
        assert!(!may_vouch(7, None, 8), "others have heard of it");
    }

    #[test]
    fn a_heartbeat_beyond_the_log_betrays_a_loss_but_not_an_old_one() {
        let beyond = |term, commit| {
            let mut heartbeat = Message::new();
            heartbeat.set_msg_type(MessageType::MsgHeartbeat);
            (heartbeat.term, heartbeat.commit) = (term, commit);
            forgotten(&heartbeat, 3, 10)
        };
        assert!(!beyond(3, 10));
        assert!(beyond(3, 11) && beyond(4, 11));
        assert!(!beyond(2, 11));
    }

    #[test]
    fn words_survive_the_way() {
        let known = Word::Known { incarnation: 7, index: 9, voters: ids(&[1, 2]) };
        for word in [Word::Ask(7), known, Word::Another(8)] {
            let message = word.message(MemberId(1), MemberId(2));
            assert!(is_word(&message));
            assert_eq!(Word::read(message.context).unwrap(), word);
        }
        assert!(Word::read(Bytes::from_static(&[VERSION, 9, 0, 0, 0, 0, 0, 0, 0, 1])).is_err());
    }
}
