//! Questions about leases that only the leader can answer: renewals, and what is left.
//!
//! Whoever is asked passes the question to the leader, in an envelope that Raft's own transport carries.
//! The leader collects what has come, has a quorum confirm that it still leads (one ReadIndex for all), and
//! only then looks at its timers. So a renewal costs no log entry and no disk write, and is never promised by
//! a leader that has been replaced: a new one was elected after the confirmation began, and gives every
//! lease its full time and an election timeout more.
//!
//! A question is asked again when the leader changes or is silent; asking twice does no harm. The desk knows
//! no timer itself: [`super::replica`] brings the two together.

use std::collections::BTreeMap;
use std::time::Duration;

use raft::eraftpb::{Message, MessageType};

use super::proposals::Ticket;
use crate::codec::Writer;
use crate::kv::{KvError, LeaseId, MemberId};

mod wire;

use wire::encode_replies;

/// The format of envelopes.
const VERSION: u8 = 1;
/// Raft's library sends this type to itself only and refuses it from others, so it marks what isn't Raft's.
pub(super) const ENVELOPE: MessageType = MessageType::MsgUnreachable;
/// Questions in one envelope.
const ENVELOPE_QUESTIONS: usize = 4096;
/// Questions that a leader keeps for each that one member may have waiting; more are dropped and come again.
const LEADER_FACTOR: usize = 16;

/// What is asked about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseAsk {
    /// Start its time again.
    KeepAlive(LeaseId),
    /// How much is left?
    Left(LeaseId),
}

impl LeaseAsk {
    /// The lease that it is about.
    pub fn id(self) -> LeaseId {
        match self {
            Self::KeepAlive(id) | Self::Left(id) => id,
        }
    }
}

/// What a leader says about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLeft {
    /// Granted time to live.
    pub ttl_seconds: u64,
    /// What is left of it.
    pub remaining: Duration,
}

/// The answer to a [`LeaseAsk`].
pub type LeaseAnswer = Result<LeaseLeft, KvError>;

/// Limits and times of questions.
#[derive(Clone, Copy, Debug)]
pub struct DeskLimits {
    /// Most questions waiting in this member; more are refused as [`KvError::Overloaded`].
    pub max_waiting: usize,
    /// A question is given up after this.
    pub timeout: Duration,
    /// A question is sent again if it isn't answered in this time.
    pub resend_after: Duration,
}

/// Names a question for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct QuestionId {
    member: MemberId,
    boot: u64,
    number: u64,
}

/// A question as the leader has it.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    id: QuestionId,
    deadline: Duration,
    /// What is asked.
    pub ask: LeaseAsk,
}

/// Where a question of this member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Not on its way.
    Waiting,
    /// Sent to the leader.
    Sent(Duration),
    /// This member leads and has it.
    Here,
}

#[derive(Debug)]
struct Own {
    ticket: Ticket,
    ask: LeaseAsk,
    deadline: Duration,
    place: Place,
}

/// Questions that wait for the same confirmation of leadership.
#[derive(Debug)]
struct Batch {
    term: u64,
    asked_at: Duration,
    questions: Vec<Question>,
}

/// The questions of one start of a member, and those that others ask it.
#[derive(Debug)]
pub struct LeaseDesk {
    member: MemberId,
    boot: u64,
    limits: DeskLimits,
    last_number: u64,
    own: BTreeMap<u64, Own>,
    arrived: Vec<Question>,
    last_batch: u64,
    batches: BTreeMap<u64, Batch>,
    /// Questions about leases whose end, or whose renewal, is being written.
    held: BTreeMap<LeaseId, Vec<Question>>,
    at_leader: usize,
    replies: BTreeMap<MemberId, Vec<(QuestionId, LeaseAnswer)>>,
    settled: Vec<(Ticket, LeaseAnswer)>,
}

impl LeaseDesk {
    /// No questions. `boot` must never have been used by this member before.
    pub fn new(member: MemberId, boot: u64, limits: DeskLimits) -> Self {
        Self {
            member,
            boot,
            limits,
            last_number: 0,
            own: BTreeMap::new(),
            arrived: Vec::new(),
            last_batch: 0,
            batches: BTreeMap::new(),
            held: BTreeMap::new(),
            at_leader: 0,
            replies: BTreeMap::new(),
            settled: Vec::new(),
        }
    }

    /// A caller asks.
    pub fn ask(&mut self, ticket: Ticket, ask: LeaseAsk, now: Duration) {
        if self.own.len() >= self.limits.max_waiting {
            return self.settled.push((ticket, Err(KvError::Overloaded)));
        }
        self.last_number += 1;
        let deadline = now + self.limits.timeout;
        self.own.insert(self.last_number, Own { ticket, ask, deadline, place: Place::Waiting });
    }

    /// This member leads: its own questions come to it.
    pub fn bring_here(&mut self) {
        for (number, own) in &mut self.own {
            if own.place != Place::Here {
                own.place = Place::Here;
                let id = QuestionId { member: self.member, boot: self.boot, number: *number };
                self.arrived.push(Question { id, deadline: own.deadline, ask: own.ask });
                self.at_leader += 1;
            }
        }
    }

    /// The envelope to send to the leader now, if there is anything to ask.
    pub fn send_to(&mut self, leader: MemberId, now: Duration) -> Option<Message> {
        if self.own.is_empty() {
            return None;
        }
        let resend_after = self.limits.resend_after;
        let is_due = |own: &Own| match own.place {
            Place::Waiting => true,
            Place::Sent(at) => now >= at + resend_after,
            Place::Here => false,
        };
        let due = self.own.iter_mut().filter(|(_, own)| is_due(own)).take(ENVELOPE_QUESTIONS);
        let mut out = Writer::with_capacity(64);
        out.u8(VERSION).u8(1).u64(self.boot);
        let header = 10;
        for (number, own) in due {
            own.place = Place::Sent(now);
            let kind = match own.ask {
                LeaseAsk::KeepAlive(_) => 1,
                LeaseAsk::Left(_) => 2,
            };
            out.u64(*number).u8(kind).u64(own.ask.id().0);
        }
        let out = out.finish();
        (out.len() > header).then(|| self.envelope(leader, out))
    }

    /// The leader changed: whatever is on its way may be lost.
    pub fn ask_again(&mut self) {
        self.own.values_mut().for_each(|own| own.place = Place::Waiting);
    }

    /// This member doesn't lead any more, or in another term: who asked asks again.
    pub fn stop_leading(&mut self) {
        self.arrived.clear();
        self.batches.clear();
        self.held.clear();
        self.at_leader = 0;
        self.ask_again();
    }

    /// Takes what has arrived as one batch, whose number is to be confirmed.
    pub fn next_batch(&mut self, term: u64, now: Duration) -> Option<u64> {
        if self.arrived.is_empty() {
            return None;
        }
        self.last_batch += 1;
        let questions = std::mem::take(&mut self.arrived);
        self.batches.insert(self.last_batch, Batch { term, asked_at: now, questions });
        Some(self.last_batch)
    }

    /// The questions of a batch that was confirmed, and since when they wait, if this member still leads in
    /// the term of the batch.
    pub fn confirmed(&mut self, batch: u64, leading: Option<u64>) -> (Duration, Vec<Question>) {
        match self.batches.remove(&batch) {
            Some(batch) if leading == Some(batch.term) => (batch.asked_at, batch.questions),
            // Forgotten with the leadership that it belonged to.
            _ => (Duration::ZERO, Vec::new()),
        }
    }

    /// These need another confirmation.
    pub fn come_again(&mut self, questions: Vec<Question>) {
        self.arrived.extend(questions);
    }

    /// The question waits until something happens to its lease.
    pub fn hold(&mut self, question: Question) {
        self.held.entry(question.ask.id()).or_default().push(question);
    }

    /// Something happened to a lease: the questions that waited for it.
    pub fn unheld(&mut self, id: LeaseId) -> Vec<Question> {
        self.held.remove(&id).unwrap_or_default()
    }

    /// Answers a question.
    pub fn answer(&mut self, question: Question, answer: LeaseAnswer) {
        self.at_leader = self.at_leader.saturating_sub(1);
        if question.id.member == self.member {
            self.settle(question.id, answer);
        } else {
            self.replies.entry(question.id.member).or_default().push((question.id, answer));
        }
    }

    /// Replies that are to be sent.
    pub fn take_replies(&mut self) -> Vec<Message> {
        let replies = std::mem::take(&mut self.replies);
        replies.into_iter().map(|(to, replies)| self.envelope(to, encode_replies(&replies))).collect()
    }

    /// Questions of callers that are settled.
    pub fn take_settled(&mut self) -> Vec<(Ticket, LeaseAnswer)> {
        std::mem::take(&mut self.settled)
    }

    /// Gives up what has waited too long.
    pub fn expire(&mut self, now: Duration) {
        let late: Vec<u64> =
            self.own.iter().filter(|(_, own)| now >= own.deadline).map(|(number, _)| *number).collect();
        for number in late {
            let own = self.own.remove(&number).expect("it was just found");
            let error = KvError::Unavailable("the leases' leader didn't answer in time".into());
            self.settled.push((own.ticket, Err(error)));
        }
        let mut dropped = 0;
        let mut keep = |question: &Question| {
            let in_time = now < question.deadline;
            dropped += usize::from(!in_time);
            in_time
        };
        self.arrived.retain(&mut keep);
        self.batches.values_mut().for_each(|batch| batch.questions.retain(&mut keep));
        self.batches.retain(|_, batch| !batch.questions.is_empty());
        self.held.values_mut().for_each(|questions| questions.retain(&mut keep));
        self.held.retain(|_, questions| !questions.is_empty());
        self.at_leader = self.at_leader.saturating_sub(dropped);
    }

    fn settle(&mut self, id: QuestionId, answer: LeaseAnswer) {
        if id.boot == self.boot
            && let Some(own) = self.own.remove(&id.number)
        {
            self.settled.push((own.ticket, answer));
        }
    }
}

/// Whether a message is for the desk and not for Raft.
pub fn is_envelope(message: &Message) -> bool {
    message.get_msg_type() == ENVELOPE
}

#[cfg(test)]
mod tests;
