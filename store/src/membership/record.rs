//! The membership's record on disk and on the wire, and changes and refusals in log entries.

use bytes::Bytes;

use super::{Joint, MemberChange, MemberInfo, Membership, Refusal};
use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::MemberId;

/// The format of records.
const VERSION: u8 = 2;

impl Membership {
    /// The record on disk and on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(64 + 64 * self.members.len());
        out.u8(VERSION).u32(count(self.members.len()));
        self.members.values().for_each(|member| encode_member(&mut out, member));
        out.u32(count(self.removed.len()));
        for id in &self.removed {
            out.u64(id.0);
        }
        if let Some(Joint { old, new }) = self.joint {
            out.u64(old.0).u64(new.0);
        }
        out.finish()
    }

    /// Reads the record.
    ///
    /// # Errors
    /// If the bytes are not what [`Membership::encode`] writes.
    pub fn decode(record: Bytes) -> Result<Self, DecodeError> {
        let mut input = Reader::new(record);
        match input.u8("membership version")? {
            VERSION => {}
            tag => return Err(DecodeError::Unknown { what: "membership version", tag: tag.into() }),
        }
        let mut membership = Self::default();
        for _ in 0..input.u32("members")? {
            let member = decode_member(&mut input)?;
            membership.members.insert(member.id, member);
        }
        for _ in 0..input.u32("removed members")? {
            membership.removed.insert(MemberId(input.u64("removed member")?));
        }
        if input.remaining() > 0 {
            let (old, new) = (MemberId(input.u64("old member")?), MemberId(input.u64("new member")?));
            membership.joint = Some(Joint { old, new });
        }
        input.finish()?;
        Ok(membership)
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).expect("a group has few members")
}

fn encode_member(out: &mut Writer, member: &MemberInfo) {
    let MemberInfo { id, name, peer_address, client_urls, learner, incarnation } = member;
    out.u64(id.0).bytes(name.as_bytes()).bytes(peer_address.as_bytes());
    encode_texts(out, client_urls);
    out.u8(u8::from(*learner)).u64(*incarnation);
}

fn decode_member(input: &mut Reader) -> Result<MemberInfo, DecodeError> {
    Ok(MemberInfo {
        id: MemberId(input.u64("member")?),
        name: input.text("name")?,
        peer_address: input.text("peer address")?,
        client_urls: decode_texts(input)?,
        learner: input.u8("learner")? != 0,
        incarnation: input.u64("incarnation")?,
    })
}

fn encode_texts(out: &mut Writer, texts: &[String]) {
    out.u32(count(texts.len()));
    for text in texts {
        out.bytes(text.as_bytes());
    }
}

fn decode_texts(input: &mut Reader) -> Result<Vec<String>, DecodeError> {
    let len = input.u32("list length")?;
    (0..len).map(|_| input.text("text")).collect()
}

impl MemberChange {
    /// Appends the change to a log entry.
    pub fn encode(&self, out: &mut Writer) {
        match self {
            MemberChange::Add { id, peer_address, learner } => {
                out.u8(1).u64(id.0).bytes(peer_address.as_bytes()).u8(u8::from(*learner));
            }
            MemberChange::Promote(id) => drop(out.u8(2).u64(id.0)),
            MemberChange::Remove(id) => drop(out.u8(3).u64(id.0)),
            MemberChange::Replace { old, new } => drop(out.u8(4).u64(old.0).u64(new.0)),
            MemberChange::Update { id, peer_address } => {
                out.u8(5).u64(id.0).bytes(peer_address.as_bytes());
            }
            MemberChange::Publish { id, name, client_urls } => {
                encode_texts(out.u8(6).u64(id.0).bytes(name.as_bytes()), client_urls);
            }
            MemberChange::Refused(refusal) => refusal.encode(out.u8(7)),
            MemberChange::Identify { id, incarnation } => drop(out.u8(8).u64(id.0).u64(*incarnation)),
        }
    }

    /// Reads a change from a log entry.
    ///
    /// # Errors
    /// If the bytes are not what [`MemberChange::encode`] writes.
    pub fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        let id = |input: &mut Reader| input.u64("member").map(MemberId);
        Ok(match input.u8("membership change")? {
            1 => MemberChange::Add {
                id: id(input)?,
                peer_address: input.text("peer address")?,
                learner: input.u8("learner")? != 0,
            },
            2 => MemberChange::Promote(id(input)?),
            3 => MemberChange::Remove(id(input)?),
            4 => MemberChange::Replace { old: id(input)?, new: id(input)? },
            5 => MemberChange::Update { id: id(input)?, peer_address: input.text("peer address")? },
            6 => MemberChange::Publish {
                id: id(input)?,
                name: input.text("name")?,
                client_urls: decode_texts(input)?,
            },
            7 => MemberChange::Refused(Refusal::decode(input)?),
            8 => MemberChange::Identify { id: id(input)?, incarnation: input.u64("incarnation")? },
            tag => return Err(DecodeError::Unknown { what: "membership change", tag: tag.into() }),
        })
    }
}

impl Refusal {
    fn encode(&self, out: &mut Writer) {
        match self {
            Refusal::NotFound(id) => drop(out.u8(1).u64(id.0)),
            Refusal::Exists { address, member } => drop(out.u8(2).bytes(address.as_bytes()).u64(member.0)),
            Refusal::IdUsed(id) => drop(out.u8(3).u64(id.0)),
            Refusal::NotLearner(id) => drop(out.u8(4).u64(id.0)),
            Refusal::LearnerNotReady { member, matched, last } => {
                out.u8(5).u64(member.0).u64(*matched).u64(*last);
            }
            Refusal::TooManyLearners(count) => drop(out.u8(6).u64(*count)),
            Refusal::Unhealthy(why) => drop(out.u8(7).bytes(why.as_bytes())),
            Refusal::LastVoter(id) => drop(out.u8(8).u64(id.0)),
            Refusal::Pending => drop(out.u8(9)),
            Refusal::Address(address) => drop(out.u8(10).bytes(address.as_bytes())),
            Refusal::Unreachable(id) => drop(out.u8(11).u64(id.0)),
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        let id = |input: &mut Reader| input.u64("member").map(MemberId);
        Ok(match input.u8("refusal")? {
            1 => Refusal::NotFound(id(input)?),
            2 => Refusal::Exists { address: input.text("peer address")?, member: id(input)? },
            3 => Refusal::IdUsed(id(input)?),
            4 => Refusal::NotLearner(id(input)?),
            5 => Refusal::LearnerNotReady {
                member: id(input)?,
                matched: input.u64("matched")?,
                last: input.u64("last")?,
            },
            6 => Refusal::TooManyLearners(input.u64("learners")?),
            7 => Refusal::Unhealthy(input.text("reason")?),
            8 => Refusal::LastVoter(id(input)?),
            9 => Refusal::Pending,
            10 => Refusal::Address(input.text("peer address")?),
            11 => Refusal::Unreachable(id(input)?),
            tag => return Err(DecodeError::Unknown { what: "refusal", tag: tag.into() }),
        })
    }
}
