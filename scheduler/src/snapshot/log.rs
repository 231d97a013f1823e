//! Which slots have changed since somebody looked. The oldest changes are forgotten, never the newest.

use super::Slot;

/// So many changes are remembered; who is further behind looks at everything anew.
const LENGTH: usize = 1 << 14;

/// A place in the log of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position(u64);

/// Slots in the order in which something about them changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    slots: Vec<Slot>,
    /// How many were forgotten.
    dropped: u64,
}

impl Log {
    /// Behind the newest change.
    pub(super) fn end(&self) -> Position {
        Position(self.dropped + self.slots.len() as u64)
    }

    /// What changed behind this place; `None` if that isn't remembered.
    pub(super) fn since(&self, position: Position) -> Option<&[Slot]> {
        let at = usize::try_from(position.0.checked_sub(self.dropped)?).ok()?;
        self.slots.get(at..)
    }

    pub(super) fn note(&mut self, slot: Slot) {
        if self.slots.len() == LENGTH {
            self.slots.drain(..LENGTH / 2);
            self.dropped += LENGTH as u64 / 2;
        }
        self.slots.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_changes_are_remembered() {
        let mut log = Log::default();
        let start = log.end();
        log.note(Slot(7));
        assert_eq!(log.since(start), Some([Slot(7)].as_slice()));
        let seen = log.end();
        (0..LENGTH).for_each(|_| log.note(Slot(1)));
        assert_eq!(log.since(start), None, "forgotten");
        assert_eq!(log.since(seen), None, "so is what came next");
        let seen = log.end();
        log.note(Slot(2));
        assert_eq!(log.since(seen), Some([Slot(2)].as_slice()));
        assert_eq!(log.since(log.end()), Some([].as_slice()));
    }
}
