//! Hands the Raft library's log records to `tracing`.

use slog::{Drain, Level, Logger, OwnedKVList, Record, o};

use crate::kv::MemberId;

struct ToTracing {
    member: MemberId,
}

impl Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), slog::Never> {
        let (member, message) = (self.member, record.msg());
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "store::raft", %member, "{message}"),
            Level::Warning => tracing::warn!(target: "store::raft", %member, "{message}"),
            // The library tells each step of an election at its info level.
            Level::Info | Level::Debug => tracing::debug!(target: "store::raft", %member, "{message}"),
            Level::Trace => {}
        }
        Ok(())
    }
}

/// The library's logger for a member.
pub fn raft_logger(member: MemberId) -> Logger {
    Logger::root(ToTracing { member }.fuse(), o!())
}
