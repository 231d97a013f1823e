//! Alarms: what is wrong with a member, as replicated state that every member knows.
//!
//! `NoSpace` stops puts everywhere, so that the member's last bytes are left for deletes, compaction and
//! Raft itself. Unlike etcd's it is withdrawn by the member that raised it once it has space again: nobody
//! needs to disarm it, and disarming it while space is short only raises it again. The leader withdraws it,
//! too, when it doesn't hear the member any more: one that is cut off or down mustn't stop a majority that has
//! space. `Corrupt` fences the member for good: its data differs from what the others applied.

use std::fmt;

use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::MemberId;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    /// The member's filesystem is nearly full.
    NoSpace,
    /// The member's data differs from the others' or from its own digest.
    Corrupt,
}

/// Something is wrong with a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What.
    pub kind: AlarmKind,
    /// With whom.
    pub member: MemberId,
    /// In words: the path, the numbers and what to do.
    pub detail: String,
}

impl fmt::Display for AlarmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
        })
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {}: {}: {}", self.member, self.kind, self.detail)
    }
}

impl AlarmKind {
    /// Both.
    pub const ALL: [AlarmKind; 2] = [AlarmKind::NoSpace, AlarmKind::Corrupt];

    /// Its byte in records and log entries.
    pub(crate) fn tag(self) -> u8 {
        match self {
            AlarmKind::NoSpace => 1,
            AlarmKind::Corrupt => 2,
        }
    }

    pub(crate) fn from_tag(tag: u8) -> Result<Self, DecodeError> {
        let known = Self::ALL.into_iter().find(|kind| kind.tag() == tag);
        known.ok_or(DecodeError::Unknown { what: "alarm kind", tag: tag.into() })
    }
}

impl Alarm {
    /// Appends it to a record or entry.
    pub(crate) fn write(&self, out: &mut Writer) {
        out.u8(self.kind.tag()).u64(self.member.0).bytes(self.detail.as_bytes());
    }

    pub(crate) fn read(input: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: AlarmKind::from_tag(input.u8("alarm kind")?)?,
            member: MemberId(input.u64("member")?),
            detail: input.text("alarm detail")?,
        })
    }
}
