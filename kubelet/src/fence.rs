//! The node's promise to pods that fence themselves ([`api::self_fence`]): until when they may run, on a clock that
//! goes on while the machine sleeps. The agent writes it after each renewal of its Lease, supervisors read it; it is
//! good for one boot only.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use serde::{Deserialize, Serialize};

use crate::process::boot_id;
use crate::shim::record::{read, write_atomically};

/// The file in the node's data directory.
const FILE: &str = "promise.json";
/// How long a look at the promise may take, a part of [`api::self_fence::MARGIN`]; a disk that needs longer has none.
const LOOK_LIMIT: Duration = Duration::from_millis(500);
/// Between two tries to end a container.
const AGAIN: Duration = Duration::from_millis(50);
/// Of each of a fence's threads, in bytes.
const STACK: usize = 128 << 10;

#[derive(Serialize, Deserialize)]
struct Promise {
    boot: String,
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    until: u64,
}

/// Where the promise is kept.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// The time since boot, sleep included.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME);
    time.expect("every Linux that we run on has this clock").into()
}

/// Promises until then. Not fsynced: after a power cut nobody runs, and the boot is another.
pub fn promise(path: &Path, until: Duration) -> io::Result<()> {
    let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
    write_atomically(path, &Promise { boot: boot_id()?.to_owned(), until })
}

/// Until when; `None` if nothing was promised since the boot.
pub fn promised(path: &Path) -> Option<Duration> {
    let promise: Promise = read(path).ok()?;
    (promise.boot == boot_id().ok()?).then(|| Duration::from_nanos(promise.until))
}

/// Whether what needs the promise may run now.
pub fn holds(path: &Path) -> bool {
    promised(path).is_some_and(|until| now() < until)
}

/// Ends a container when the promise ends, whatever becomes of the disk that promise and log are on: the thread that
/// waits touches no file. Another one reads the promise for it, and is waited for [`LOOK_LIMIT`].
pub struct Fence {
    path: PathBuf,
    until: Duration,
    passed: Arc<AtomicBool>,
}

impl Fence {
    /// Over the promise at `path`, as it is now. Nobody watches yet.
    pub fn new(path: &Path) -> Self {
        let until = promised(path).unwrap_or_default();
        Self { path: path.to_owned(), until, passed: Arc::default() }
    }

    /// From the promise's end on calls `end`, again and again, until it says that nothing is left to do. It must not wait
    /// for a disk.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn watch(&self, mut end: impl FnMut() -> bool + Send + 'static) -> io::Result<()> {
        let (ask, asked) = mpsc::sync_channel(1); // one question at a time
        let (tell, told) = mpsc::sync_channel(1);
        let (path, passed, until) = (self.path.clone(), self.passed.clone(), self.until);
        spawn("promise", move || {
            asked.into_iter().map_while(|()| tell.send(promised(&path)).ok()).for_each(drop);
        })?;
        let look = move || {
            ask.try_send(()).ok()?;
            told.recv_timeout(LOOK_LIMIT).ok().flatten()
        };
        spawn("fence", move || {
            outlast(until, look);
            passed.store(true, Ordering::Release);
            while end() {
                sleep_until(now() + AGAIN);
            }
        })
    }

    /// Whether the promise has ended while it was watched.
    pub fn has_passed(&self) -> bool {
        self.passed.load(Ordering::Acquire)
    }
}

/// Returns when the promise has ended: at its end, as far as it is known, it is looked at again. One that can't be read
/// has ended.
fn outlast(mut until: Duration, mut look: impl FnMut() -> Option<Duration>) {
    loop {
        sleep_until(until);
        match look() {
            Some(renewed) if now() < renewed => until = renewed,
            _ => return,
        }
    }
}

/// Until a time of [`now`]'s clock.
fn sleep_until(at: Duration) {
    let flags = ClockNanosleepFlags::TIMER_ABSTIME;
    // A signal may cut it short; nobody sends one to these threads.
    while now() < at && clock_nanosleep(ClockId::CLOCK_BOOTTIME, flags, &at.into()).is_err() {}
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(work).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Hears of the end.
    fn watched(fence: &Fence) -> mpsc::Receiver<Duration> {
        let (ends, heard) = mpsc::channel();
        fence.watch(move || ends.send(now()).is_err()).expect("threads");
        heard
    }

    #[test]
    fn a_promise_ends_or_is_renewed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = path(dir.path());
        assert!(!holds(&path), "nothing was promised");
        promise(&path, now() + Duration::from_secs(3600)).expect("written");
        assert!(holds(&path));
        promise(&path, now() + Duration::from_millis(20)).expect("written");
        let fence = Fence::new(&path);
        let renewed = now() + Duration::from_millis(200);
        promise(&path, renewed).expect("renewed");
        let ended = watched(&fence).recv_timeout(PATIENCE).expect("an end");
        assert!(ended >= renewed, "it was set for the old one, and looks at the new one");
        assert!(fence.has_passed() && !holds(&path));
        promise(&path, Duration::ZERO).expect("written");
        watched(&Fence::new(&path)).recv_timeout(PATIENCE).expect("an end at once");
    }

    #[test]
    fn a_promise_that_cannot_be_read_ends_in_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = path(dir.path());
        let until = now() + Duration::from_millis(50);
        promise(&path, until).expect("written");
        let fence = Fence::new(&path);
        // Who opens it waits for ever, as on a disk that hangs.
        std::fs::remove_file(&path).expect("removed");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
        let ended = watched(&fence).recv_timeout(PATIENCE).expect("an end");
        assert!(ended >= until + LOOK_LIMIT && fence.has_passed());
    }

    #[test]
    fn a_look_is_short_of_the_margin() {
        assert!(LOOK_LIMIT * 2 <= api::self_fence::MARGIN, "ending takes time, too");
    }

    #[test]
    fn the_promise_of_another_boot_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = path(dir.path());
        std::fs::write(&path, format!(r#"{{"boot":"another","until":{}}}"#, u64::MAX)).expect("written");
        assert!(!holds(&path));
    }
}
