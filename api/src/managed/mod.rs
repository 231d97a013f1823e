//! Field ownership and server-side apply (KEP-555): who owns which parts of an object, what an applied
//! configuration makes of a live object, and who objects to it.
//!
//! The rules are those of structured-merge-diff v4.4 for objects of one version. Functions over values:
//! the caller knows the clock, the store and HTTP.

mod atomics;
mod compare;
mod element;
mod entries;
mod extract;
mod last_applied;
mod merge;
mod node;
mod remove;
mod set;
mod updater;

use crate::status::Status;

pub use atomics::atomics;
pub use entries::{Entry, ManagedFields, Manager, Operation};
pub use merge::merge;
pub use set::FieldSet;
pub use updater::{Writer, apply, reset_fields, track};

/// A part that another owner wants otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The owner, as upstream describes it.
    pub manager: String,
    /// The part.
    pub path: String,
}

/// Why a configuration isn't applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own what it would change.
    #[error("{}", conflict_text(.0))]
    Conflicts(Vec<Conflict>),
    /// It names an item of a list twice; the text is the item's path.
    #[error("duplicate entries for key {0}")]
    Duplicate(String),
    /// It can't be read as an object of its kind.
    #[error("{0}")]
    Invalid(String),
}

impl ApplyError {
    /// Puts the name of the field around the path of a duplicate.
    fn inside(self, field: &str) -> Self {
        match self {
            Self::Duplicate(path) => Self::Duplicate(format!(".{field}{path}")),
            other => other,
        }
    }

    /// The answer to the client.
    pub fn to_status(&self) -> Status {
        match self {
            Self::Conflicts(conflicts) => {
                let causes =
                    conflicts.iter().map(|c| (format!("conflict with {}", c.manager), c.path.clone()));
                Status::apply_conflict(&self.to_string(), causes)
            }
            Self::Duplicate(_) | Self::Invalid(_) => {
                Status::bad_request(format!("failed to create typed patch object: {self}"))
            }
        }
    }
}

/// Upstream's text: one conflict in one line, several grouped by owner.
fn conflict_text(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.path);
    }
    let mut managers: Vec<&str> = conflicts.iter().map(|c| c.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let groups: Vec<String> = managers
        .into_iter()
        .map(|manager| {
            let paths = conflicts.iter().filter(|c| c.manager == manager).map(|c| format!("\n- {}", c.path));
            format!("conflicts with {manager}:{}", paths.collect::<String>())
        })
        .collect();
    format!("Apply failed with {} conflicts: {}", conflicts.len(), groups.join("\n"))
}
