//! Linearizable reads that wait for a quorum to confirm the commit index (ReadIndex).
//!
//! All reads that wait share one request; readers that come while it is on its way join the next one. A
//! request's context (member, start, counter) is never used twice, and an answer to a request that was
//! given up (another term, or too late) is ignored: it could be older than the reader.

use std::collections::BTreeMap;
use std::time::Duration;

use super::member::ConfirmedRead;
use crate::bug::bug;
use crate::codec::Writer;
use crate::kv::{KvError, MemberId};

#[derive(Debug)]
struct Round<T> {
    context: Vec<u8>,
    asked_at: Duration,
    readers: Vec<Reader<T>>,
}

#[derive(Clone, Copy, Debug)]
struct Reader<T> {
    who: T,
    deadline: Duration,
}

/// Waiting readers, of which `T` tells who they are.
#[derive(Debug)]
pub struct Reads<T> {
    member: MemberId,
    boot: u64,
    timeout: Duration,
    retry_after: Duration,
    last_round: u64,
    waiting: Vec<Reader<T>>,
    round: Option<Round<T>>,
    /// Confirmed ones, by the index that must be applied first.
    confirmed: BTreeMap<u64, Vec<Reader<T>>>,
}

impl<T: Copy> Reads<T> {
    /// None yet. A reader waits `timeout`; an unanswered request is replaced after `retry_after`.
    pub fn new(member: MemberId, boot: u64, timeout: Duration, retry_after: Duration) -> Self {
        Self {
            member,
            boot,
            timeout,
            retry_after,
            last_round: 0,
            waiting: Vec::new(),
            round: None,
            confirmed: BTreeMap::new(),
        }
    }

    /// A reader comes.
    pub fn add(&mut self, who: T, now: Duration) {
        self.waiting.push(Reader { who, deadline: now + self.timeout });
    }

    /// The context of a request to make now, if one is needed.
    pub fn next_request(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.round.as_ref().is_some_and(|round| now >= round.asked_at + self.retry_after) {
            self.give_up_round();
        }
        if self.round.is_some() || self.waiting.is_empty() {
            return None;
        }
        if self.last_round == 0 || !bug!(ReuseReadContext) {
            self.last_round += 1;
        }
        let mut context = Writer::with_capacity(24);
        context.u64(self.member.0).u64(self.boot).u64(self.last_round);
        let context = context.finish();
        let readers = std::mem::take(&mut self.waiting);
        self.round = Some(Round { context: context.clone(), asked_at: now, readers });
        Some(context)
    }

    /// An answer came; ignored unless it is to the request on its way.
    pub fn confirm(&mut self, read: &ConfirmedRead) {
        if let Some(round) = self.round.take_if(|round| round.context == read.context) {
            self.confirmed.entry(read.index).or_default().extend(round.readers);
        }
    }

    /// Another leader or term: the request on its way counts no more.
    pub fn give_up_round(&mut self) {
        if let Some(round) = self.round.take() {
            self.waiting.extend(round.readers);
        }
    }

    /// Readers that may go on, now that everything up to `applied` is.
    pub fn released(&mut self, applied: u64) -> Vec<T> {
        let applied = if bug!(ReadWithoutApplyWait) { u64::MAX - 1 } else { applied };
        let later = self.confirmed.split_off(&(applied + 1));
        let released = std::mem::replace(&mut self.confirmed, later).into_values().flatten();
        released.map(|reader| reader.who).collect()
    }

    /// How many wait for a quorum.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.round.as_ref().map_or(0, |round| round.readers.len())
    }

    /// Readers whose deadline has passed.
    pub fn expire(&mut self, now: Duration) -> Vec<(T, KvError)> {
        let mut late = Vec::new();
        let mut keep = |reader: &Reader<T>| {
            let in_time = now < reader.deadline;
            if !in_time {
                late.push((
                    reader.who,
                    KvError::Unavailable("the read wasn't confirmed and applied here in time".into()),
                ));
            }
            in_time
        };
        self.waiting.retain(&mut keep);
        if let Some(round) = &mut self.round {
            round.readers.retain(&mut keep);
        }
        // A member that is cut off after the answer may never apply what was confirmed.
        self.confirmed.values_mut().for_each(|readers| readers.retain(&mut keep));
        self.confirmed.retain(|_, readers| !readers.is_empty());
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::proposals::Ticket;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn readers_share_a_request_and_late_answers_are_ignored() {
        let mut reads = Reads::new(MemberId(1), 1, at(1000), at(100));
        reads.add(Ticket(1), at(0));
        reads.add(Ticket(2), at(0));
        let first = reads.next_request(at(0)).unwrap();
        reads.add(Ticket(3), at(1));
        assert_eq!(reads.next_request(at(1)), None, "one request at a time");
        let second = reads.next_request(at(100)).unwrap();
        reads.confirm(&ConfirmedRead { context: first, index: 1 });
        assert!(reads.released(9).is_empty(), "an answer to a request that was given up");
        reads.confirm(&ConfirmedRead { context: second, index: 5 });
        assert!(reads.released(4).is_empty(), "not applied yet");
        assert_eq!(reads.released(5), [Ticket(3), Ticket(1), Ticket(2)]);
    }

    #[test]
    fn readers_give_up_in_time() {
        let mut reads = Reads::new(MemberId(1), 1, at(1000), at(100));
        reads.add(Ticket(1), at(0));
        reads.next_request(at(0));
        assert!(reads.expire(at(999)).is_empty());
        assert!(matches!(&reads.expire(at(1000))[..], [(Ticket(1), KvError::Unavailable(_))]));
    }

    #[test]
    fn a_confirmed_reader_gives_up_too_if_the_index_never_comes() {
        let mut reads = Reads::new(MemberId(1), 1, at(1000), at(100));
        reads.add(Ticket(1), at(0));
        let context = reads.next_request(at(0)).unwrap();
        reads.confirm(&ConfirmedRead { context, index: 9 });
        assert!(reads.released(8).is_empty());
        assert!(matches!(&reads.expire(at(1000))[..], [(Ticket(1), KvError::Unavailable(_))]));
        assert!(reads.released(9).is_empty());
    }
}
