//! `trace`: the writes about an object and what it owns, as a tree of causes, with the time each edge took.
//!
//! A function from entries of the journal to lines. A write's parent is the write that it names as its cause; one
//! that names none, or one that isn't among them, hangs below its owner's last write (a creation) or its object's
//! own (a change), and its edge is marked as a guess. What isn't shown is skipped, and its children move up.

mod write;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

pub use self::write::Write;

/// A write in its place in the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Line<'a> {
    /// The write.
    pub write: &'a Write,
    /// How deep it stands; 0 is a write that nothing known caused.
    pub depth: usize,
    /// Milliseconds since the write that caused it.
    pub after: Option<i64>,
    /// Whether the cause is concluded rather than recorded.
    pub is_guess: bool,
}

/// The writes in the order of the tree: causes before what they caused, older branches first. With `all`, status
/// writes that are no step of their own are shown, too.
pub fn tree(writes: &[Write], all: bool) -> Vec<Line<'_>> {
    let by_revision: BTreeMap<u64, &Write> = writes.iter().map(|write| (write.revision, write)).collect();
    let shown = |write: &Write| all || write.is_step;
    let mut children: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut guesses = BTreeSet::new();
    for write in writes.iter().filter(|write| shown(write)) {
        let mut parent = parent(write, writes, &by_revision, &mut guesses);
        while let Some(above) = parent.filter(|revision| !shown(by_revision[revision])) {
            parent = self::parent(by_revision[&above], writes, &by_revision, &mut BTreeSet::new());
        }
        // No revision is 0: below it stand the roots.
        children.entry(parent.unwrap_or(0)).or_default().insert(write.revision);
    }
    let mut lines = Vec::new();
    descend(0, 0, &children, &by_revision, &guesses, &mut lines);
    lines
}

/// The revision of the write that caused this one; always an earlier one, so there are no circles.
fn parent(
    write: &Write,
    writes: &[Write],
    by_revision: &BTreeMap<u64, &Write>,
    guesses: &mut BTreeSet<u64>,
) -> Option<u64> {
    let recorded = write.cause.filter(|cause| *cause < write.revision && by_revision.contains_key(cause));
    if recorded.is_some() {
        return recorded;
    }
    let last_of = |object: &str| {
        let earlier = writes.iter().filter(|other| other.object == object && other.revision < write.revision);
        earlier.map(|other| other.revision).max()
    };
    // A change that somebody outside asked for is a beginning, not a consequence.
    let own = if write.is_asked { None } else { last_of(&write.object) };
    let guess = own.or_else(|| last_of(write.owner.as_deref()?));
    guesses.extend(guess.map(|_| write.revision));
    guess
}

fn descend<'a>(
    below: u64,
    depth: usize,
    children: &BTreeMap<u64, BTreeSet<u64>>,
    writes: &BTreeMap<u64, &'a Write>,
    guesses: &BTreeSet<u64>,
    lines: &mut Vec<Line<'a>>,
) {
    for revision in children.get(&below).into_iter().flatten() {
        let write = writes[revision];
        let since = |cause: &&Write| (write.time - cause.time).total(jiff::Unit::Millisecond).ok();
        // Milliseconds of a day are far below what a float holds exactly.
        let after = writes.get(&below).and_then(since).map(|millis| millis as i64);
        lines.push(Line { write, depth, after, is_guess: guesses.contains(revision) });
        descend(*revision, depth + 1, children, writes, guesses, lines);
    }
}

impl Line<'_> {
    /// The cells of the line: when, after how long, what with its depth, by whom, revision.
    pub fn cells(&self) -> Vec<String> {
        let Write { time, object, what, by, revision, .. } = self.write;
        let guess = if self.is_guess { "~" } else { "+" };
        let after =
            self.after.map_or_else(|| "-".to_owned(), |millis| format!("{guess}{}", duration(millis)));
        let branch = if self.depth == 0 { String::new() } else { "   ".repeat(self.depth - 1) + "└─ " };
        vec![
            time.strftime("%H:%M:%S.%3f").to_string(),
            after,
            format!("{branch}{object} {what}"),
            by.clone(),
            revision.to_string(),
        ]
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let write = self.write;
        json!({
            "revision": write.revision.to_string(),
            "time": write.time.to_string(),
            "object": write.object,
            "what": write.what,
            "by": write.by,
            "depth": self.depth,
            "afterMilliseconds": self.after,
            "causeIsGuess": self.is_guess,
        })
    }
}

/// Names of the columns of [`Line::cells`].
pub const HEADER: [&str; 5] = ["TIME", "AFTER", "WHAT", "BY", "REVISION"];

fn duration(millis: i64) -> String {
    match millis {
        0..10_000 => format!("{millis}ms"),
        _ => api::time::human_duration(millis / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::golden;

    /// Each block of the file is a journal: `REVISION MS OBJECT BY CAUSE OWNER what…`.
    #[test]
    fn trees() {
        golden::check("testdata/trace.txt", |input| {
            let writes: Vec<Write> = input.lines().map(read).collect();
            let rows =
                tree(&writes, false).iter().map(|line| line.cells().join("\t") + "\n").collect::<String>();
            crate::print::elastic::align(&rows)
        });
    }

    fn read(line: &str) -> Write {
        let words: Vec<&str> = line.splitn(7, ' ').collect();
        let [revision, millis, object, by, cause, owner, what] = words.try_into().expect("seven words");
        let item = json!({
            "revision": revision,
            "time": jiff::Timestamp::from_millisecond(millis.parse().expect("a number")).expect("a time").to_string(),
            "agent": by, "cause": cause, "verb": "patch",
            "type": if what == "created" { "Created" } else { "Modified" },
            "changes": [{"path": what.split(' ').next(), "from": null, "to": what.split(' ').nth(1)}],
        });
        let owner = (owner != "-").then(|| owner.to_owned());
        Write::of(&item, object, owner).expect("an entry of a history")
    }
}
