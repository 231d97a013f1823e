//! How a replica answers questions about leases: it brings the [`super::LeaseDesk`], the timers and the
//! confirmations of leadership together.

use std::time::Duration;

use super::{Command, Disk, LeaseAsk, LeaseLeft, Message, Question, Renewal, Replica, Waiter};
use crate::bug::bug;
use crate::failpoint::failpoint;
use crate::kv::{KvError, LeaseId};
use crate::mvcc::apply::LeaseChange;

impl<D: Disk> Replica<D> {
    /// A leader takes its own questions too, and has a quorum confirm that it may answer all that have come.
    pub(super) fn queue_questions(&mut self) {
        let Some(term) = self.leases.leading() else { return };
        self.desk.bring_here();
        if let Some(batch) = self.desk.next_batch(term, self.now.mono) {
            self.reads.add(Waiter::Leases(batch), self.now.mono);
        }
    }

    /// Any other member sends its questions to the leader.
    pub(super) fn send_questions(&mut self, send: &mut dyn FnMut(Message)) {
        if self.leases.leading().is_none()
            && let Some(leader) = self.leadership.leader.filter(|leader| *leader != self.id())
            && let Some(envelope) = self.desk.send_to(leader, self.now.mono)
        {
            send(envelope);
        }
    }

    /// Answers what a quorum has confirmed.
    pub(super) fn answer_batch(&mut self, batch: u64) {
        let (asked_at, questions) = self.desk.confirmed(batch, self.leases.leading());
        // A leader elected since gives every lease its time from its election on, and the grace. So a
        // confirmation counts only as long as the grace: this member may have been paused in between.
        if self.now.mono > asked_at + self.leases.times().grace {
            return self.desk.come_again(questions);
        }
        questions.into_iter().for_each(|question| self.answer_question(question));
    }

    fn answer_question(&mut self, question: Question) {
        failpoint!("lease_before_keep_alive");
        let now = self.now.mono;
        match question.ask {
            LeaseAsk::KeepAlive(id) => match self.leases.renew(id, now) {
                Renewal::Restarted { ttl_seconds } => {
                    let remaining = Duration::from_secs(ttl_seconds);
                    self.desk.answer(question, Ok(LeaseLeft { ttl_seconds, remaining }));
                }
                Renewal::Unknown => self.answer_unknown(question, id),
                Renewal::Ending | Renewal::BeingWritten => self.desk.hold(question),
                Renewal::Write => {
                    self.desk.hold(question);
                    self.propose(None, Command::LeaseKeepAlive(id));
                }
            },
            LeaseAsk::Left(id) => match self.leases.left(id, now) {
                Some((ttl_seconds, remaining)) => {
                    self.desk.answer(question, Ok(LeaseLeft { ttl_seconds, remaining }));
                }
                None if self.leases.is_ending(id) => self.desk.hold(question),
                None => self.desk.answer(question, Err(KvError::LeaseNotFound(id))),
            },
        }
    }

    fn answer_unknown(&mut self, question: Question, id: LeaseId) {
        let answer = if bug!(RenewAfterRevoke) {
            Ok(LeaseLeft { ttl_seconds: 1, remaining: Duration::from_secs(1) })
        } else {
            Err(KvError::LeaseNotFound(id))
        };
        self.desk.answer(question, answer);
    }

    /// What questions were held for has happened.
    pub(super) fn settle_held(&mut self, change: LeaseChange) {
        match change {
            // Its confirmation is old by now.
            LeaseChange::Armed(id, _) => {
                let questions = self.desk.unheld(id);
                self.desk.come_again(questions);
            }
            LeaseChange::Ended(id) => {
                for question in self.desk.unheld(id) {
                    self.desk.answer(question, Err(KvError::LeaseNotFound(id)));
                }
            }
        }
    }
}
