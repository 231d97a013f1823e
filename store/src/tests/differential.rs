//! Property: the simulation's disk and RocksDB are the same disk. Same batches, same snapshots; after a kill
//! both hold everything, after a power cut RocksDB holds what the simulated disk holds after losing some
//! tail of what wasn't synced. So what the simulation proves over the one is true of the other.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;

use super::apply::MapDisk;
use super::sim::disk::SimDisk;
use crate::config::Limits;
use crate::disk::{Disk, Durability};
use crate::mvcc::family::Family;
use crate::mvcc::view::{Batch, ReadView};
use crate::rocks::Rocks;
use crate::snapshot::{self, incoming};

#[derive(Clone, Debug)]
enum Step {
    Write(Batch, Durability),
    /// A snapshot with these contents, and the batch that goes with it.
    Install(Batch, Batch),
    /// The process dies.
    Kill,
    /// The power fails: so many thousandths of what isn't synced stay.
    PowerCut(u64),
}

/// The two disks side by side.
struct Pair {
    root: tempfile::TempDir,
    opened: u32,
    rocks: Rocks,
    sim: SimDisk,
    /// What is on the disk after each write since the last synced one, the synced state first.
    since_sync: Vec<MapDisk>,
    /// Bytes of the write-ahead log that are synced.
    synced_bytes: u64,
}

fn batch() -> impl Strategy<Value = Batch> {
    let family = prop::sample::select(&Family::ALL[..]);
    let value = prop::option::weighted(0.7, "[0-9]{0,40}");
    prop::collection::vec((family, "[a-c]{1,2}", value), 1..6).prop_map(|writes| {
        let mut batch = Batch::default();
        for (family, key, value) in writes {
            match value {
                Some(value) => batch.put(family, key.into_bytes(), Bytes::from(value)),
                None => batch.delete(family, key.into_bytes()),
            }
        }
        batch
    })
}

fn step() -> impl Strategy<Value = Step> {
    let durability = prop_oneof![3 => Just(Durability::Later), 1 => Just(Durability::Synced)];
    prop_oneof![
        20 => (batch(), durability).prop_map(|(batch, durability)| Step::Write(batch, durability)),
        1 => (batch(), batch()).prop_map(|(contents, last)| Step::Install(contents, last)),
        1 => Just(Step::Kill),
        3 => (0..=1000u64).prop_map(Step::PowerCut),
    ]
}

impl Pair {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("snapshots")).unwrap();
        let rocks = open(root.path(), 0);
        let (sim, since_sync) = (SimDisk::default(), vec![MapDisk::default()]);
        let mut pair = Self { root, opened: 0, rocks, sim, since_sync, synced_bytes: 0 };
        pair.synced_bytes = pair.log().1;
        pair
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join(format!("db{}", self.opened))
    }

    /// The newest write-ahead log and its length.
    fn log(&self) -> (PathBuf, u64) {
        let files = fs::read_dir(self.dir()).unwrap().map(|entry| entry.unwrap().path());
        let newest = files.filter(|path| path.extension().is_some_and(|e| e == "log")).max().unwrap();
        let bytes = fs::metadata(&newest).unwrap().len();
        (newest, bytes)
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Write(batch, durability) => {
                self.rocks.write(batch, *durability).unwrap();
                self.sim.write(batch, *durability).unwrap();
                self.wrote(*durability);
            }
            Step::Install(contents, last) => {
                self.install(contents, last);
                self.wrote(Durability::Synced);
            }
            Step::Kill => self.crash(1000),
            Step::PowerCut(kept) => self.crash(*kept),
        }
        assert_eq!(contents(&self.rocks), self.sim.contents(), "after {step:?}");
    }

    fn wrote(&mut self, durability: Durability) {
        if durability == Durability::Synced {
            self.since_sync.clear();
            self.synced_bytes = self.log().1;
        }
        self.since_sync.push(self.sim.contents());
    }

    fn install(&mut self, contents: &Batch, last: &Batch) {
        let mut source = MapDisk::default();
        source.write(contents);
        // A member's state is in every snapshot.
        source.put(Family::Meta, b"state".to_vec(), "some".into());
        let mut data = Vec::new();
        let mut collect = |block: &[u8]| {
            data.extend_from_slice(block);
            Ok(())
        };
        snapshot::encode(&source, &mut collect).unwrap();
        let name = "incoming.snap";
        incoming::store(&self.root.path().join("snapshots").join(name), &data[..]).unwrap();
        self.rocks.install(name.as_bytes(), last).unwrap();
        self.sim.install(&data, last).unwrap();
    }

    /// Copies the files as they are, cuts the log, and opens the copy: nothing was closed.
    fn crash(&mut self, kept: u64) {
        let (log, bytes) = self.log();
        let from = self.dir();
        self.opened += 1;
        copy(&from, &self.dir());
        let cut = self.synced_bytes + (bytes - self.synced_bytes) * kept / 1000;
        let copied = self.dir().join(log.file_name().unwrap());
        File::options().write(true).open(copied).unwrap().set_len(cut).unwrap();
        self.rocks = open(self.root.path(), self.opened);
        let real = contents(&self.rocks);
        // Equal states in a row: the last of them, as nothing tells them apart.
        let survivors = self.since_sync.iter().rposition(|state| *state == real);
        let survivors = survivors.expect("what is left is a state that was there since the last sync");
        assert!(kept < 1000 || self.since_sync.last() == Some(&real), "a kill loses nothing");
        self.sim.crash(survivors);
        self.since_sync = vec![real];
        self.synced_bytes = self.log().1;
    }
}

fn open(root: &Path, number: u32) -> Rocks {
    Rocks::open(&root.join(format!("db{number}")), &root.join("snapshots"), &Limits::default()).unwrap()
}

/// Copies the files of one moment: RocksDB removes old ones in the background, and then it is done again.
fn copy(from: &Path, to: &Path) {
    let names = || -> BTreeSet<OsString> {
        fs::read_dir(from).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    loop {
        let before = names();
        fs::create_dir(to).unwrap();
        let copied = before.iter().all(|name| fs::copy(from.join(name), to.join(name)).is_ok());
        if copied && names() == before {
            break;
        }
        fs::remove_dir_all(to).unwrap();
    }
}

fn contents(view: &impl ReadView) -> MapDisk {
    let mut all = MapDisk::default();
    for family in Family::ALL {
        let visit = &mut |key: &[u8], value: &[u8]| {
            all.put(family, key.to_vec(), Bytes::copy_from_slice(value));
            Ok(ControlFlow::Continue(()))
        };
        view.scan(family, &[], None, visit).unwrap();
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn the_simulated_disk_is_rocksdb(steps in prop::collection::vec(step(), 1..40)) {
        let mut pair = Pair::new();
        steps.iter().for_each(|step| pair.take(step));
    }
}
