//! Property: MVCC over an ordinary map answers like the model, however entries are cut into batches,
//! and its events and history read back the same.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::ops::ControlFlow;

use bytes::Bytes;
use proptest::prelude::*;

use super::generate::{self, Step};
use crate::command::{Applied, Command, Outcome, Proposal, ProposalId};
use crate::kv::{
    FIRST_REVISION, Kv, KvError, LeaseId, MemberId, Op, Revision, Txn, WatchMessage, WatchRequest,
};
use crate::model::Model;
use crate::mvcc::apply::{self, LogEntry};
use crate::mvcc::family::Family;
use crate::mvcc::read;
use crate::mvcc::scrub;
use crate::mvcc::state::{Head, State};
use crate::mvcc::view::{Batch, DiskError, ReadView, Visit};
use crate::validate;

/// A disk that is a map for each family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapDisk {
    families: [BTreeMap<Vec<u8>, Bytes>; Family::ALL.len()],
}

impl MapDisk {
    pub fn write(&mut self, batch: &Batch) {
        for (family, key, value) in batch.writes() {
            match value {
                Some(value) => self.put(family, key.to_vec(), value.clone()),
                None => self.remove(family, key),
            }
        }
    }

    pub fn clear(&mut self, families: &[Family]) {
        families.iter().for_each(|family| self.families[*family as usize].clear());
    }

    pub fn put(&mut self, family: Family, key: Vec<u8>, value: Bytes) {
        self.insert(family, key, value);
    }

    pub fn remove(&mut self, family: Family, key: &[u8]) {
        self.take(family, key);
    }

    /// Puts a record; what was there before.
    pub fn insert(&mut self, family: Family, key: Vec<u8>, value: Bytes) -> Option<Bytes> {
        self.families[family as usize].insert(key, value)
    }

    /// Removes a record; what was there before.
    pub fn take(&mut self, family: Family, key: &[u8]) -> Option<Bytes> {
        self.families[family as usize].remove(key)
    }

    /// The replicated records, without what each member does at its own pace.
    pub fn replicated(&self) -> Vec<(Family, Vec<u8>, Bytes)> {
        let records = |family: Family| {
            let records = self.families[family as usize].iter();
            records.map(move |(key, value)| (family, key.clone(), value.clone()))
        };
        [Family::Latest, Family::Leases].into_iter().flat_map(records).collect()
    }
}

impl ReadView for MapDisk {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        Ok(self.families[family as usize].get(key).cloned())
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        for (key, value) in self.families[family as usize].range::<[u8], _>(bounds) {
            if visit(key, value)? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

fn entries(commands: &[Command]) -> Vec<LogEntry> {
    let entry = |(index, command): (u64, &Command)| {
        let id = ProposalId { member: MemberId(1), boot: 1, seq: index };
        let proposal = Proposal { id, floor: 1, wall_ms: 1000 + index, command: command.clone() };
        LogEntry { index, term: 1, data: proposal.encode().into(), conf_change: false }
    };
    (1..).zip(commands).map(entry).collect()
}

fn command(step: &Step) -> Option<Command> {
    match step {
        Step::Txn(txn) => validate::check_txn(txn).is_ok().then(|| Command::Txn(txn.clone())),
        Step::Compact(revision) => Some(Command::Compact(Revision(*revision))),
        Step::Grant(id) => Some(Command::LeaseGrant { id: id.map(LeaseId), ttl_seconds: 1_000_000 }),
        Step::Revoke(id) => Some(Command::LeaseRevoke(LeaseId(*id))),
        Step::Read(_) => None,
    }
}

async fn model_result(model: &Model, command: &Command) -> Applied {
    match command {
        Command::Txn(txn) => model.txn(txn.clone()).await.map(Outcome::Txn),
        Command::Compact(revision) => model.compact(*revision).await.map(|()| Outcome::Done),
        Command::LeaseGrant { id, ttl_seconds } => {
            model.lease_grant(*id, *ttl_seconds).await.map(Outcome::Lease)
        }
        Command::LeaseRevoke(id) => model.lease_revoke(*id).await.map(|()| Outcome::Done),
        _ => unreachable!("not generated"),
    }
}

fn text<T: std::fmt::Debug>(result: &Result<T, KvError>) -> String {
    format!("{result:?}")
}

/// All events that the model would show a watcher of everything from just above its compaction.
async fn model_events(model: &Model) -> Vec<read::RevisionEvents> {
    let status = model.status();
    let request = WatchRequest {
        range: crate::kv::KeyRange::prefix(""),
        start: Some(Revision(status.compacted.0 + 1)),
    };
    let mut watch = model.watch(request).await.unwrap();
    let mut events = Vec::new();
    let start = status.compacted.max(FIRST_REVISION);
    while events.last().map_or(start, |(revision, _)| *revision) < status.revision {
        match watch.recv().await.unwrap() {
            WatchMessage::Events { revision, events: more } => events.push((revision, more)),
            other => panic!("{other:?}"),
        }
    }
    events
}

/// The state in which a group begins, but for its members.
fn founded() -> State {
    let mut state = State::default();
    state.head.revision = FIRST_REVISION;
    state
}

async fn agree(steps: &[Step], batch: usize) {
    let commands: Vec<Command> = steps.iter().filter_map(command).collect();
    let (model, mut disk, mut state) = (Model::new(), MapDisk::default(), founded());
    for chunk in entries(&commands).chunks(batch) {
        let effects = apply::apply(&mut state, &disk, chunk).unwrap();
        disk.write(&effects.batch);
        assert_eq!(State::load(&disk).unwrap(), state, "the batch holds the whole state");
        for (id, result) in &effects.results {
            let at = usize::try_from(id.seq - 1).unwrap();
            assert_eq!(text(result), text(&model_result(&model, &commands[at]).await), "{:?}", commands[at]);
        }
        while let Some(piece) = scrub::next_piece(&disk, 2).unwrap() {
            disk.write(&piece.batch);
        }
        check_reads(&model, &disk, steps).await;
    }
    let from = Revision(state.head.compacted.0 + 1);
    assert_eq!(read::events(&disk, from, usize::MAX).unwrap(), model_events(&model).await);
}

async fn check_reads(model: &Model, disk: &MapDisk, steps: &[Step]) {
    let head = Head::load(disk).unwrap();
    for step in steps {
        let Step::Read(request) = step else { continue };
        let ours = read::check_revision(&head, request.revision)
            .map(|()| read::range(disk, head.revision, request).unwrap());
        assert_eq!(
            text(&ours),
            text(&model.range(request.clone()).await),
            "{request:?} at {}",
            head.revision
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn apply_agrees_with_the_model(
        steps in prop::collection::vec(generate::step(), 1..40),
        batch in 1..8usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(agree(&steps, batch));
    }

    #[test]
    fn time_in_the_journal_grows_whatever_the_proposers_clocks_say(
        clocks in prop::collection::vec((1..4u64, 0..5_000_000_000_000u64), 1..40),
    ) {
        let (mut disk, mut state) = (MapDisk::default(), founded());
        let mut last = 0;
        for (index, (member, wall_ms)) in (1..).zip(clocks) {
            // Each entry in a term of its own, as if leaders changed all the time.
            let op = Op::Put { key: "k".into(), value: "v".into(), lease: None };
            let command = Command::Txn(Txn { success: vec![op], ..Txn::default() });
            let id = ProposalId { member: MemberId(member), boot: 1, seq: index };
            let data = Proposal { id, floor: 1, wall_ms, command }.encode().into();
            let entry = LogEntry { index, term: index, data, conf_change: false };
            let effects = apply::apply(&mut state, &disk, &[entry]).unwrap();
            disk.write(&effects.batch);
            let record = read::journal(&disk, state.head.revision).unwrap().unwrap();
            prop_assert!(record.time > last, "{} after {last}", record.time);
            prop_assert!(record.wall_ms() >= wall_ms, "never before the write was asked for");
            last = record.time;
        }
    }

    #[test]
    fn how_entries_are_batched_makes_no_difference(
        steps in prop::collection::vec(generate::step(), 1..30),
        batch in 2..8usize,
    ) {
        let commands: Vec<Command> = steps.iter().filter_map(command).collect();
        let entries = entries(&commands);
        let run = |batch: usize| {
            let (mut disk, mut state) = (MapDisk::default(), founded());
            for chunk in entries.chunks(batch) {
                let effects = apply::apply(&mut state, &disk, chunk).unwrap();
                disk.write(&effects.batch);
            }
            (disk, state)
        };
        prop_assert_eq!(run(1), run(batch));
    }
}
