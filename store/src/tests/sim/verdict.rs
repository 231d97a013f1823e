//! How an oracle says that a promise is broken.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Once;

use crate::proof::watch::Guarantee;

/// Which oracle found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Judge {
    /// An assertion in the code itself, or in the Raft library.
    Assertion,
    /// Two leaders in a term.
    OneLeader,
    /// Members applied different entries at one index.
    SameLog,
    /// Members are in different states at one index.
    SameState,
    /// An answer, an event or a state is not what the merged log leads to.
    Replay,
    /// An answer is older than what was known when it was asked for.
    RealTime,
    /// No order of the operations on a key explains what clients saw.
    Linearizable,
    /// A watch broke a guarantee.
    Watch(Guarantee),
    /// A watch didn't get everything in the end, or was told nonsense about compaction.
    WatchComplete,
    /// A lease ended early, late, or was kept alive after its end.
    Lease,
    /// What can only grow became less.
    Monotone,
    /// A member refuses the disk that it left behind.
    Start,
    /// Something that must be bounded isn't.
    Bounded,
    /// The healed group makes no progress, or members don't come together.
    Progress,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub judge: Judge,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.judge, self.what)
    }
}

/// Ends the run.
pub fn violated(judge: Judge, what: impl Into<String>) -> ! {
    std::panic::resume_unwind(Box::new(Violation { judge, what: what.into() }))
}

/// Ends the run unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $judge:expr, $($text:tt)+) => {
        if !$condition {
            $crate::tests::sim::verdict::violated($judge, format!($($text)+));
        }
    };
}
pub(super) use ensure;

thread_local! {
    static JUDGING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `work`; a violation or a panic in it becomes the error. Nothing is printed.
pub fn judge<T>(work: impl FnOnce() -> T) -> Result<T, Violation> {
    hook_once();
    let outer = JUDGING.replace(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    JUDGING.set(outer);
    result.map_err(|payload: Box<dyn Any + Send>| match payload.downcast::<Violation>() {
        Ok(violation) => *violation,
        Err(_) => Violation { judge: Judge::Assertion, what: PANIC.take() },
    })
}

/// Panics of threads that judge are kept, not printed.
fn hook_once() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if JUDGING.get() {
                PANIC.replace(info.to_string().replace('\n', " "));
            } else {
                usual(info);
            }
        }));
    });
}
