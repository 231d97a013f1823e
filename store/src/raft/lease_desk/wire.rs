//! The envelopes in which questions about leases and their answers travel.

use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::Message;

use super::{
    ENVELOPE, LEADER_FACTOR, LeaseAnswer, LeaseAsk, LeaseDesk, LeaseLeft, Question, QuestionId, VERSION,
};
use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::{KvError, LeaseId, MemberId};

impl LeaseDesk {
    /// Takes an envelope of another member. Questions that come to a member that doesn't lead are dropped;
    /// they come again to the one that does.
    pub fn open(&mut self, message: Message, leads: bool, now: Duration) {
        let from = MemberId(message.from);
        let opened = match self.read_envelope(from, message.context, leads, now) {
            Ok(()) => return,
            Err(error) => error,
        };
        tracing::warn!(%from, error = %opened, "a member's question about leases can't be understood");
    }

    fn read_envelope(
        &mut self,
        from: MemberId,
        context: Bytes,
        leads: bool,
        now: Duration,
    ) -> Result<(), DecodeError> {
        let mut input = Reader::new(context);
        match (input.u8("envelope version")?, input.u8("envelope kind")?) {
            (VERSION, 1) => self.read_questions(from, &mut input, leads, now),
            (VERSION, 2) => self.read_replies(&mut input),
            (version, kind) => {
                let tag = u64::from(version) << 8 | u64::from(kind);
                Err(DecodeError::Unknown { what: "envelope", tag })
            }
        }
    }

    fn read_questions(
        &mut self,
        from: MemberId,
        input: &mut Reader,
        leads: bool,
        now: Duration,
    ) -> Result<(), DecodeError> {
        let boot = input.u64("boot")?;
        let deadline = now + self.limits.timeout;
        while input.remaining() > 0 {
            let id = QuestionId { member: from, boot, number: input.u64("question")? };
            let kind = input.u8("question kind")?;
            let lease = LeaseId(input.u64("lease")?);
            let ask = match kind {
                1 => LeaseAsk::KeepAlive(lease),
                2 => LeaseAsk::Left(lease),
                tag => return Err(DecodeError::Unknown { what: "question kind", tag: tag.into() }),
            };
            if leads && self.at_leader < LEADER_FACTOR * self.limits.max_waiting {
                self.at_leader += 1;
                self.arrived.push(Question { id, deadline, ask });
            }
        }
        Ok(())
    }

    fn read_replies(&mut self, input: &mut Reader) -> Result<(), DecodeError> {
        while input.remaining() > 0 {
            let boot = input.u64("boot")?;
            let id = QuestionId { member: self.member, boot, number: input.u64("question")? };
            let answer = match input.u8("answer")? {
                1 => Ok(LeaseLeft {
                    ttl_seconds: input.u64("ttl")?,
                    remaining: Duration::from_millis(input.u64("remaining")?),
                }),
                2 => Err(KvError::LeaseNotFound(LeaseId(input.u64("lease")?))),
                tag => return Err(DecodeError::Unknown { what: "answer", tag: tag.into() }),
            };
            self.settle(id, answer);
        }
        Ok(())
    }

    pub(super) fn envelope(&self, to: MemberId, content: Vec<u8>) -> Message {
        let mut message = Message::new();
        message.set_msg_type(ENVELOPE);
        (message.from, message.to) = (self.member.0, to.0);
        message.context = content.into();
        message
    }
}

pub(super) fn encode_replies(replies: &[(QuestionId, LeaseAnswer)]) -> Vec<u8> {
    let mut out = Writer::with_capacity(2 + 33 * replies.len());
    out.u8(VERSION).u8(2);
    for (id, answer) in replies {
        match answer {
            Ok(left) => {
                let millis = u64::try_from(left.remaining.as_millis()).unwrap_or(u64::MAX);
                out.u64(id.boot).u64(id.number).u8(1).u64(left.ttl_seconds).u64(millis);
            }
            Err(KvError::LeaseNotFound(lease)) => {
                out.u64(id.boot).u64(id.number).u8(2).u64(lease.0);
            }
            // Whatever else went wrong here may go right when it is asked again.
            Err(_) => {}
        }
    }
    out.finish()
}
