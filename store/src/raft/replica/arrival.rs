//! What a replica does with the messages of others, and how it gets its say before it takes part
//! ([`crate::raft::newcomer`]).

use std::time::Duration;

use raft::eraftpb::{Message, MessageType};

use super::{Command, Disk, Durability, Fatal, MemberId, Replica, changes, lease_desk};
use crate::bug::bug;
use crate::membership::MemberChange;
use crate::mvcc::view::{Batch, DiskError};
use crate::raft::health;
use crate::raft::newcomer::{self, Word, record};

/// A proposal to record its incarnation of which nothing is heard is made again after this.
const RECORD_AGAIN: Duration = Duration::from_secs(1);

impl<D: Disk> Replica<D> {
    /// Takes a message. A newcomer hears nothing but who may vouch for it, and nobody else's word counts who
    /// betrays that this member has forgotten what it promised.
    pub(super) fn receive(&mut self, message: Message) -> Result<(), Fatal> {
        if newcomer::is_word(&message) {
            return self.hear(&message);
        }
        let from = MemberId(message.from);
        if let Some(newcomer) = &mut self.newcomer {
            newcomer.may_ask(from);
            return Ok(());
        }
        self.heard.from(from, self.now.mono);
        self.health.note_message(&message, self.now.mono);
        let (term, last) = (self.member.leadership().term, self.member.log().last());
        if newcomer::forgotten(&message, term, last) {
            let known = message.commit;
            return Err(self.fenced(&format!(
                "its log ends at entry {last}, but member {from} knows that it had entry {known}"
            )));
        }
        if lease_desk::is_envelope(&message) {
            self.desk.open(message, self.leases.leading().is_some(), self.now.mono);
        } else {
            self.step(message);
        }
        Ok(())
    }

    /// Steps a message, after a leader's look at the membership changes that it proposes. False if it was
    /// dropped.
    pub(super) fn step(&mut self, mut message: Message) -> bool {
        if self.member.is_leader() {
            changes::screen(&mut message, &mut |change| self.judge(change));
            if message.get_msg_type() == MessageType::MsgPropose && message.get_entries().is_empty() {
                return true;
            }
        }
        self.member.step(message)
    }

    /// A newcomer asks those who haven't vouched for it yet.
    pub(super) fn ask_to_be_known(&mut self) {
        let Some(newcomer) = &self.newcomer else { return };
        let id = self.config.member.id;
        self.held.extend(newcomer.to_ask().map(|other| newcomer.question().message(id, other)));
    }

    fn hear(&mut self, message: &Message) -> Result<(), Fatal> {
        let from = MemberId(message.from);
        match Word::read(message.context.clone()) {
            Ok(Word::Ask(incarnation)) => self.vouch(from, incarnation)?,
            Ok(Word::Known { incarnation, index, voters }) if incarnation == self.incarnation => {
                if let Some(newcomer) = &mut self.newcomer {
                    newcomer.is_known_by(from, index, voters);
                }
                self.admit_if_vouched()?;
            }
            Ok(Word::Another(incarnation)) if incarnation == self.incarnation => {
                return Err(self.fenced(&format!(
                    "its directory is new, but member {from} knows it with another one, which is lost: what it \
                     promised there is forgotten"
                )));
            }
            // To an earlier directory under this id.
            Ok(Word::Known { .. } | Word::Another(_)) => {}
            Err(error) => tracing::warn!(%from, %error, "a newcomer's word can't be understood"),
        }
        Ok(())
    }

    fn vouch(&mut self, from: MemberId, incarnation: u64) -> Result<(), Fatal> {
        let noted = self.acquainted.get(&from).copied();
        let recorded = self.state.membership.get(from).map_or(0, |member| member.incarnation);
        let word = if newcomer::may_vouch(incarnation, noted, recorded) {
            if noted != Some(incarnation) {
                let mut batch = Batch::default();
                record::acquaint(&mut batch, from, incarnation);
                self.disk.write(&batch, Durability::Synced)?;
                self.acquainted.insert(from, incarnation);
            }
            let voters = self.state.membership.voters().into_iter().collect();
            Word::Known { incarnation, index: self.state.head.index, voters }
        } else {
            Word::Another(incarnation)
        };
        self.held.push(word.message(self.id(), from));
        Ok(())
    }

    /// Takes part from now on, if enough of the others vouch for it.
    pub(super) fn admit_if_vouched(&mut self) -> Result<(), DiskError> {
        let Some(newcomer) = self.newcomer.take_if(|newcomer| newcomer.is_admitted()) else {
            return Ok(());
        };
        self.introduced = newcomer.to_ask().collect();
        let mut batch = Batch::default();
        record::admitted(&mut batch);
        self.disk.write(&batch, Durability::Synced)
    }

    /// Records this member's incarnation in the membership, if it isn't there yet.
    pub(super) fn identify_itself(&mut self) -> Result<(), Fatal> {
        let (id, incarnation) = (self.id(), self.incarnation);
        let Some(own) = self.state.membership.get(id).filter(|own| own.incarnation != incarnation) else {
            return Ok(());
        };
        if own.incarnation != 0 && !bug!(ForgottenVoterVotes) {
            return Err(self.fenced("the cluster knows it with another directory"));
        }
        if self.leadership.leader.is_some() && self.now.mono >= self.identify_at {
            self.identify_at = self.now.mono + RECORD_AGAIN;
            self.propose(None, Command::Member(MemberChange::Identify { id, incarnation }));
        }
        Ok(())
    }

    fn fenced(&self, why: &str) -> Fatal {
        Fatal::Fenced(format!("{why}; {}", health::remedy(self.id())))
    }
}
