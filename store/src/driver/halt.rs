//! What the store's thread does when the member can't go on but the process can.
//!
//! - The disk is full: nothing is written and nothing acknowledged; this member's reads go on from what is
//!   there. Once there is room the database is closed, opened and recovered as after a crash, because an
//!   engine that has failed a write can't be trusted to go on with the next one.
//! - The member is fenced: its data is wrong. It answers nothing but the reason, until it is closed.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{Loop, Request, die, now};
use crate::kv::KvError;
use crate::raft::replica::{Fatal, Replica, StartError};

/// How often a full disk is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long opening the database is left alone after it failed.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

impl Loop {
    /// Waits until the disk has room, and starts the replica again. False if the store was closed meanwhile.
    pub(super) fn wait_for_space(&mut self, requests: &Receiver<Request>, why: &Fatal) -> bool {
        tracing::error!(error = %super::chain(why), "the disk is full: this member waits for space");
        self.driver.space.give_reserve();
        self.answer_all(&KvError::Unknown, &self.halted());
        self.publish_halted();
        let mut open_at = Instant::now();
        loop {
            if !self.refuse_for(requests, LOOK_EVERY, &self.halted()) {
                return false;
            }
            if Instant::now() < open_at || !self.driver.space.suffices_to_open() {
                continue;
            }
            open_at = Instant::now() + OPEN_AGAIN;
            match self.start_again() {
                Ok(true) => return true,
                Ok(false) => {}
                Err(fatal) => die(&fatal),
            }
        }
    }

    /// Opens the database and recovers from it; false if there is still no room for that, or someone reads.
    fn start_again(&mut self) -> Result<bool, Fatal> {
        let rocks = self.driver.replica.disk().clone();
        // A kept moment holds the database open; whoever needs it is offered a new one.
        self.handle.shared.offers.give_up();
        if !rocks.reopen()? {
            return Ok(false);
        }
        match Replica::start(self.driver.replica.config().clone(), rocks, now(self.started)) {
            Ok(replica) => self.driver.replica = replica,
            Err(StartError::Recover(error)) if error.is_no_space() => return Ok(false),
            Err(error) => return Err(Fatal::Restart(Box::new(error))),
        }
        // What was applied before the halt may not have been told to anyone.
        let head = self.driver.replica.state().head;
        self.driver.watches.reset(&head);
        self.scrubbing = true;
        self.publish_status();
        tracing::info!(index = head.index, "there is space: this member goes on");
        Ok(true)
    }

    fn halted(&self) -> KvError {
        let detail = format!(
            "{}: the disk is full and this member has halted; free space on this filesystem. It goes on by itself",
            self.driver.space.dir().display()
        );
        KvError::NoSpace { member: self.driver.replica.id(), detail }
    }

    /// Serves nothing any more, but says why, until the store is closed.
    pub(super) fn fence(&mut self, requests: &Receiver<Request>, detail: &str) {
        let member = self.driver.replica.id();
        let reason = KvError::Corrupt { member, detail: detail.to_owned() };
        tracing::error!("{reason}");
        self.handle.shared.fence(reason.clone());
        self.answer_all(&reason, &reason);
        self.publish_halted();
        self.driver.watches.close();
        while self.refuse_for(requests, OPEN_AGAIN, &reason) {}
    }

    /// Nobody waits for a halted replica.
    fn answer_all(&mut self, writes: &KvError, reads: &KvError) {
        for reply in std::mem::take(&mut self.waiting).into_values() {
            // The caller may have gone away.
            let _gone = reply.send(Err(writes.clone()));
        }
        for reply in std::mem::take(&mut self.asking).into_values() {
            let _gone = reply.send(Err(reads.clone()));
        }
        for reply in std::mem::take(&mut self.reading).into_values() {
            let _gone = reply.send(Err(reads.clone()));
        }
    }

    /// This member leads nobody and follows nobody.
    fn publish_halted(&mut self) {
        let shared = &self.handle.shared;
        shared.status.write().leader = None;
        shared.leader.send_if_modified(|known| known.take().is_some());
    }

    /// Refuses what comes in this time; false when the store is closed.
    fn refuse_for(&self, requests: &Receiver<Request>, time: Duration, reason: &KvError) -> bool {
        let end = Instant::now() + time;
        loop {
            match requests.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Request::Propose(_, reply)) => drop(reply.send(Err(reason.clone()))),
                Ok(Request::Lease(_, reply)) => drop(reply.send(Err(reason.clone()))),
                Ok(Request::Read(reply)) => drop(reply.send(Err(reason.clone()))),
                // Raft's messages: the member is as good as down.
                Ok(Request::Input(_) | Request::Answer(..)) => {}
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
    }
}
