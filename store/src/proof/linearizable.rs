//! Linearizability of a register, by the algorithm of Wing and Gong with Lowe's memory of visited states.
//!
//! A key of the store is a register: an operation may look at it and may change it, at one moment between
//! its begin and its end. A history over many keys is linearizable only if its part for each key is, so the
//! caller splits it. An operation whose outcome is unknown (a timeout) has no end: it may have
//! happened at any later moment, or not at all.

use std::collections::HashSet;
use std::hash::Hash;

/// What one client did to the register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<V> {
    /// When it was called. Any unit; equal times count as concurrent.
    pub began: u64,
    /// When it returned; `None` if its outcome is unknown.
    pub ended: Option<u64>,
    /// The state that it saw or that it requires, if it looked.
    pub found: Option<V>,
    /// The state that it leaves, if it writes.
    pub left: Option<V>,
}

/// The judgement of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains everything.
    Linearizable,
    /// There is none. The longest explainable sequence found, as positions in the history.
    Violated(Vec<usize>),
    /// More states were visited than allowed.
    Unknown,
}

/// Judges a history of one register that was `initial` before it. Visits at most `max_states` states.
pub fn check<V: Clone + Eq + Hash>(initial: V, history: &[Operation<V>], max_states: usize) -> Verdict {
    Search::new(initial, history).run(max_states)
}

/// A call or a return in the list of what is still to be explained.
#[derive(Clone, Copy, Debug)]
struct Entry {
    operation: usize,
    is_call: bool,
    previous: usize,
    next: usize,
    /// The other one of the pair.
    partner: usize,
}

/// A set of operations.
type Set = Vec<u64>;

struct Search<'a, V> {
    history: &'a [Operation<V>],
    /// A list by links, so that explained operations are lifted out and put back at once; 0 is its head.
    entries: Vec<Entry>,
    explained: Set,
    state: V,
    /// The way here: lifted calls with the states before them.
    way: Vec<(usize, V)>,
    longest: Vec<usize>,
}

impl<'a, V: Clone + Eq + Hash> Search<'a, V> {
    fn new(initial: V, history: &'a [Operation<V>]) -> Self {
        let entries = entries(history);
        let explained = vec![0; history.len().div_ceil(64)];
        Self { history, entries, explained, state: initial, way: Vec::new(), longest: Vec::new() }
    }

    fn run(mut self, max_states: usize) -> Verdict {
        let mut visited: HashSet<(Set, V)> = HashSet::new();
        let mut at = self.entries[0].next;
        // The first return that is left bounds the search; without one of a known outcome all is explained.
        while at != 0 && (self.entries[at].is_call || self.is_known(at)) {
            if visited.len() > max_states {
                return Verdict::Unknown;
            }
            at = match self.entries[at].is_call.then(|| self.step(at)).flatten() {
                Some(state) if visited.insert((self.with(at), state.clone())) => self.explain(at, state),
                Some(_) | None if self.entries[at].is_call => self.entries[at].next,
                _ => match self.take_back() {
                    Some(at) => at,
                    None => return Verdict::Violated(self.longest),
                },
            };
        }
        Verdict::Linearizable
    }

    fn is_known(&self, at: usize) -> bool {
        self.history[self.entries[at].operation].ended.is_some()
    }

    /// The state after the operation, if it can happen now.
    fn step(&self, at: usize) -> Option<V> {
        let operation = &self.history[self.entries[at].operation];
        let possible = operation.found.as_ref().is_none_or(|found| *found == self.state);
        possible.then(|| operation.left.clone().unwrap_or_else(|| self.state.clone()))
    }

    fn with(&self, at: usize) -> Set {
        let operation = self.entries[at].operation;
        let mut set = self.explained.clone();
        set[operation / 64] |= 1 << (operation % 64);
        set
    }

    /// Puts the operation next in the order; where to go on.
    fn explain(&mut self, at: usize, state: V) -> usize {
        self.explained = self.with(at);
        let before = std::mem::replace(&mut self.state, state);
        self.way.push((at, before));
        if self.way.len() > self.longest.len() {
            self.longest = self.way.iter().map(|(at, _)| self.entries[*at].operation).collect();
        }
        for entry in [at, self.entries[at].partner] {
            let Entry { previous, next, .. } = self.entries[entry];
            self.entries[previous].next = next;
            self.entries[next].previous = previous;
        }
        self.entries[0].next
    }

    /// Takes the last operation out of the order; where to go on, or `None` if all was tried.
    fn take_back(&mut self) -> Option<usize> {
        let (at, before) = self.way.pop()?;
        self.state = before;
        let operation = self.entries[at].operation;
        self.explained[operation / 64] &= !(1 << (operation % 64));
        for entry in [self.entries[at].partner, at] {
            let Entry { previous, next, .. } = self.entries[entry];
            self.entries[previous].next = entry;
            self.entries[next].previous = entry;
        }
        Some(self.entries[at].next)
    }
}

/// Calls and returns in the order of time, after an empty head. At one moment calls come first.
fn entries<V: Clone + Eq>(history: &[Operation<V>]) -> Vec<Entry> {
    let mut moments = Vec::with_capacity(2 * history.len());
    for (operation, Operation { began, ended, .. }) in history.iter().enumerate() {
        moments.push((*began, 0, operation));
        moments.push((ended.unwrap_or(u64::MAX), 1, operation));
    }
    moments.sort_unstable();
    let mut places = vec![[0; 2]; history.len()];
    for (place, (_, kind, operation)) in (1..).zip(&moments) {
        places[*operation][*kind] = place;
    }
    let count = moments.len();
    let link = |(place, (_, kind, operation)): (usize, &(u64, usize, usize))| Entry {
        operation: *operation,
        is_call: *kind == 0,
        previous: place - 1,
        next: (place + 1) % (count + 1),
        partner: places[*operation][1 - *kind],
    };
    let head =
        Entry { operation: 0, is_call: true, previous: count, next: usize::from(count > 0), partner: 0 };
    std::iter::once(head).chain((1..).zip(&moments).map(link)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(began: u64, ended: u64, value: u8) -> Operation<u8> {
        Operation { began, ended: Some(ended), found: None, left: Some(value) }
    }

    fn read(began: u64, ended: u64, value: u8) -> Operation<u8> {
        Operation { began, ended: Some(ended), found: Some(value), left: None }
    }

    fn unknown(operation: Operation<u8>) -> Operation<u8> {
        Operation { ended: None, ..operation }
    }

    #[test]
    fn histories_are_judged() {
        let cases = [
            ("nothing", vec![], true),
            ("a read after a write", vec![write(0, 1, 1), read(2, 3, 1)], true),
            ("a stale read", vec![write(0, 1, 1), read(2, 3, 0)], false),
            ("concurrent: either", vec![write(0, 9, 1), read(2, 3, 0), read(4, 5, 1)], true),
            ("concurrent: not back", vec![write(0, 9, 1), read(2, 3, 1), read(4, 5, 0)], false),
            ("unknown, happened", vec![unknown(write(0, 0, 1)), read(8, 9, 1)], true),
            ("unknown, never happened", vec![unknown(write(0, 0, 1)), read(8, 9, 0)], true),
            ("unknown, before it was called", vec![read(1, 2, 1), unknown(write(3, 0, 1))], false),
            (
                "unknown, twice",
                vec![unknown(write(0, 0, 1)), write(2, 3, 2), read(4, 5, 1), read(6, 7, 2)],
                false,
            ),
            (
                "two winners of one comparison",
                vec![
                    Operation { began: 0, ended: Some(5), found: Some(0), left: Some(1) },
                    Operation { began: 0, ended: Some(5), found: Some(0), left: Some(2) },
                ],
                false,
            ),
        ];
        for (name, history, expected) in cases {
            assert_eq!(check(0, &history, 1000) == Verdict::Linearizable, expected, "{name}");
        }
    }

    /// The definition itself: some order of all that ended, and some of the others.
    fn by_trying_all(state: u8, history: &[Operation<u8>], done: u32) -> bool {
        let left = || (0..history.len()).filter(|at| done & (1 << at) == 0);
        if left().all(|at| history[at].ended.is_none()) {
            return true;
        }
        let bound = left().filter_map(|at| history[at].ended).min().unwrap_or(u64::MAX);
        left().any(|at| {
            let Operation { began, found, left, .. } = &history[at];
            *began <= bound
                && found.is_none_or(|found| found == state)
                && by_trying_all(left.unwrap_or(state), history, done | (1 << at))
        })
    }

    fn operation() -> impl Strategy<Value = Operation<u8>> {
        (0..8u64, prop::option::weighted(0.8, 0..4u64), prop::option::of(0..3u8), prop::option::of(0..3u8))
            .prop_map(|(began, took, found, left)| Operation {
                began,
                ended: took.map(|took| began + took),
                found,
                left,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn it_agrees_with_trying_all_orders(history in prop::collection::vec(operation(), 0..7)) {
            let expected = by_trying_all(0, &history, 0);
            prop_assert_eq!(check(0, &history, 100_000) == Verdict::Linearizable, expected);
        }
    }
}
