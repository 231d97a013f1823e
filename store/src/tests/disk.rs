//! Disks that are full, wrong or damaged: nothing acknowledged is lost, nothing wrong is read.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use proptest::prelude::*;
use tempfile::TempDir;

use super::single::{get, put};
use crate::disk::{Disk, Durability};
use crate::kv::{KeyRange, Kv, KvError, MemberId, Op, RangeRequest, Revision, Txn};
use crate::mvcc::family::{Family, Pair};
use crate::mvcc::view::{Batch, ReadView};
use crate::{AlarmKind, Config, OpenError, Store};

const PATIENCE: Duration = Duration::from_secs(30);

/// Until `done` says so; each attempt waits for something itself.
async fn eventually<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) -> Duration {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < PATIENCE, "{what} takes too long");
        tokio::task::yield_now().await;
    }
    begun.elapsed()
}

/// Changes a stored value as bad memory or a bug would: checksums fit, the value doesn't.
pub fn flip_value(store: &Store, key: &str) {
    let rocks = store.rocks().unwrap();
    let mut pair = Pair::decode(rocks.get(Family::Latest, key.as_bytes()).unwrap().unwrap()).unwrap();
    let mut value = pair.value.to_vec();
    value[0] ^= 1;
    pair.value = value.into();
    let mut batch = Batch::default();
    batch.put(Family::Latest, key.as_bytes(), pair.encode());
    rocks.write(&batch, Durability::Later).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_value_fences_even_a_member_alone_and_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Config::single(dir.path(), MemberId(1))).await.unwrap();
    for key in ["a", "b"] {
        store.txn(put(key, "value")).await.unwrap();
    }
    flip_value(&store, "a");
    let found = eventually("finding a flipped value", || async {
        let written = store.txn(put("b", "other")).await;
        matches!(written, Err(KvError::Corrupt { .. }))
    });
    let took = found.await;
    assert!(took < Duration::from_secs(5), "{took:?} under a loaded machine, a second otherwise");
    let read = store.range(RangeRequest::new(KeyRange::key("a"))).await;
    assert!(matches!(read, Err(KvError::Corrupt { .. })), "{read:?}");
    store.close().await;
    let again = Store::open(Config::single(dir.path(), MemberId(1))).await;
    let Err(OpenError::Start { source, .. }) = again else { panic!("it must be refused") };
    assert!(source.to_string().contains("restored from a backup"), "{source}");
}

/// A small filesystem of its own; `None` without the right to mount.
struct Small {
    dir: TempDir,
}

impl Small {
    fn new(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={mib}m");
        let mounted =
            mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str()));
        mounted.is_ok().then_some(Self { dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all space that is left, at once: the reserve is not in it.
    fn fill(&self) {
        use std::io::Write;
        let free = crate::space::Filesystem::of(self.path()).unwrap().free_bytes;
        let mut file = std::fs::File::create(self.path().join("filler")).unwrap();
        let taken = nix::fcntl::fallocate(
            &file,
            nix::fcntl::FallocateFlags::empty(),
            0,
            i64::try_from(free).unwrap(),
        );
        // The member may have taken a page meanwhile.
        while taken.is_err() && file.write_all(&[1; 4096]).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // A test that failed may still have files open.
        let _busy = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_puts_and_nothing_else_until_there_is_space() {
    let Some(small) = Small::new(64) else {
        eprintln!("skipped: mounting needs root");
        return;
    };
    let config = Config::single(small.path().join("member"), MemberId(1));
    let store = Store::open(config.clone()).await.unwrap();
    let mut acknowledged = 0;
    for round in 0..4 {
        for n in 0..20 {
            store.txn(put(&format!("{round}/{n}"), &"v".repeat(1000))).await.unwrap();
            acknowledged += 1;
        }
        small.fill();
        // What was acknowledged while the disk got full counts too.
        let mut more = 0;
        eventually("refusing puts", || {
            more += 1;
            let (store, key) = (&store, format!("{round}/more{more}"));
            async move { matches!(store.txn(put(&key, &"v".repeat(20_000))).await, Err(KvError::NoSpace { .. })) }
        })
        .await;
        let alarms = eventually("the alarm", || async {
            store.alarms().unwrap().iter().any(|alarm| alarm.kind == AlarmKind::NoSpace)
        });
        alarms.await;
        assert!(get(&store, &format!("{round}/0")).await.is_some(), "reads go on");
        let delete = Op::Delete(KeyRange::key(format!("{round}/0")));
        store.txn(Txn { success: vec![delete], ..Txn::default() }).await.expect("deletes go on");
        acknowledged -= 1;
        let head = store.status().revision;
        store.compact(Revision(head.0 - 1)).await.expect("compaction goes on");
        small.empty();
        eventually("writing again", || async { store.txn(put("again", "x")).await.is_ok() }).await;
        assert!(store.alarms().unwrap().is_empty());
    }
    store.close().await;
    let store = Store::open(config).await.unwrap();
    let mut request = RangeRequest::new(KeyRange::prefix(""));
    request.keys_only = true;
    let keys = store.range(request).await.unwrap().kvs;
    let kept = keys.iter().filter(|kv| !kv.key.starts_with(b"again") && !contains_more(&kv.key)).count();
    assert_eq!(kept, acknowledged);
    store.close().await;
}

fn contains_more(key: &Bytes) -> bool {
    key.windows(4).any(|part| part == b"more")
}

/// All files below, in order.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { out.extend(files(&path)) } else { out.push(path) }
    }
    out.sort();
    out
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, target).unwrap();
    }
    std::fs::create_dir_all(to.join("snapshots")).unwrap();
}

/// A closed member's directory, with much in tables and some in the write-ahead log.
async fn closed(dir: &Path) -> Revision {
    let mut config = Config::single(dir, MemberId(1));
    config.limits.write_buffer_bytes = 256 << 10;
    let store = Store::open(config).await.unwrap();
    for n in 0..400 {
        store.txn(put(&format!("k{n:03}"), &value(n))).await.unwrap();
    }
    let revision = store.status().revision;
    store.close().await;
    revision
}

fn value(n: u64) -> String {
    format!("{n}-").repeat(400)
}

/// Opens a damaged member and reads everything: refused, unreadable, or exactly right.
async fn refused_or_right(dir: &Path) -> Result<(), String> {
    let Ok(store) = Store::open(Config::single(dir, MemberId(1))).await else { return Ok(()) };
    let mut wrong = Ok(());
    for n in 0..400 {
        match store.range(RangeRequest::new(KeyRange::key(format!("k{n:03}")))).await {
            Ok(found) if found.kvs.first().is_some_and(|kv| kv.value == value(n)) => {}
            Ok(found) => wrong = Err(format!("k{n:03} is {:?}", found.kvs.first().map(|kv| kv.value.len()))),
            Err(_) => {}
        }
    }
    store.stop().await;
    wrong
}

#[test]
fn a_damaged_file_is_refused_or_harmless_and_never_read_wrong() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let whole = tempfile::tempdir().unwrap();
    runtime.block_on(closed(whole.path()));
    let names = files(&whole.path().join("db"));
    assert!(names.iter().any(|name| name.extension().is_some_and(|e| e == "sst")), "{names:?}");
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let damage = (0..names.len(), 0.0..1.0f64, 1..=255u8, any::<bool>());
    let result = runner.run(&damage, |(file, place, mask, cut)| {
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path());
        let path = dir.path().join(names[file].strip_prefix(whole.path()).unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.is_empty() {
            return Ok(());
        }
        let at = (place * bytes.len() as f64) as usize;
        if cut {
            bytes.truncate(at)
        } else {
            bytes[at] ^= mask
        }
        std::fs::write(&path, bytes).unwrap();
        let outcome = runtime.block_on(refused_or_right(dir.path()));
        prop_assert!(outcome.is_ok(), "{} at {at}, cut: {cut}: {outcome:?}", path.display());
        Ok(())
    });
    result.unwrap();
}
