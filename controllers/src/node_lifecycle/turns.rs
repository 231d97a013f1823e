//! Whose turn it is to be evicted: nodes stand in line, a line a zone, since a zone's rate lets one go after the other.
//!
//! What always holds: no two nodes of a zone get their turn within a pause; who has had his turn keeps it until he no
//! longer asks. Who stands far behind looks again after half of the time that he has to wait at most, so a line of n
//! nodes costs n log n looks, and those who leave it are noticed.

use super::Zone;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The lines of all zones.
#[derive(Debug, Default)]
pub struct Turns(HashMap<Zone, Line>);

#[derive(Debug)]
struct Line {
    /// The first of the line has its turn then.
    next: Timestamp,
    waiting: BTreeMap<u64, String>,
    places: HashMap<String, u64>,
    last: u64,
    had: HashSet<String>,
}

impl Default for Line {
    fn default() -> Line {
        Line {
            next: Timestamp::MIN,
            waiting: BTreeMap::new(),
            places: HashMap::new(),
            last: 0,
            had: HashSet::new(),
        }
    }
}

impl Turns {
    /// When `node`, which stands in the line of `zone` from now on, is to look again; its turn has come if that
    /// isn't later than `now`. `pause` is the time between two turns.
    pub fn of(&mut self, zone: &Zone, node: &str, pause: SignedDuration, now: Timestamp) -> Timestamp {
        let line = self.0.entry(zone.clone()).or_default();
        if line.had.contains(node) {
            return Timestamp::MIN;
        }
        let place = line.place(node);
        line.look_at(place, pause, now)
    }

    /// Notes that `node` uses its turn.
    pub fn used(&mut self, zone: &Zone, node: &str, pause: SignedDuration, now: Timestamp) {
        let line = self.0.entry(zone.clone()).or_default();
        line.leave(node);
        if line.had.insert(node.to_owned()) {
            line.next = now.saturating_add(pause).unwrap_or(Timestamp::MAX);
        }
    }

    /// Notes that `node` doesn't wait any more, nor needs the turn that it had.
    pub fn leave(&mut self, node: &str) {
        for line in self.0.values_mut() {
            line.leave(node);
            line.had.remove(node);
        }
    }
}

impl Line {
    /// Where the node stands; at the end if it has just come.
    fn place(&mut self, node: &str) -> u64 {
        if let Some(place) = self.places.get(node) {
            return *place;
        }
        self.last += 1;
        self.waiting.insert(self.last, node.to_owned());
        self.places.insert(node.to_owned(), self.last);
        self.last
    }

    fn look_at(&self, place: u64, pause: SignedDuration, now: Timestamp) -> Timestamp {
        let first = self.waiting.first_key_value().map_or(place, |(first, _)| *first);
        // At most so many: some may have left.
        let ahead = i32::try_from(place - first).unwrap_or(i32::MAX);
        if ahead == 0 {
            return self.next;
        }
        let wait = pause.saturating_mul(ahead);
        let turn = self.next.max(now).saturating_add(wait).unwrap_or(Timestamp::MAX);
        let left = turn.duration_since(now);
        if left <= pause * 2 { turn } else { now.saturating_add(left / 2).unwrap_or(turn) }
    }

    fn leave(&mut self, node: &str) {
        if let Some(place) = self.places.remove(node) {
            self.waiting.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: SignedDuration = SignedDuration::from_secs(10);

    /// All wait from the beginning; returns when each had its turn, and how many looks that took.
    fn evicted(count: usize, gone: impl Fn(usize) -> bool) -> (Vec<i64>, usize) {
        let (zone, mut turns) = (Zone("a".to_owned()), Turns::default());
        let mut timers: BTreeMap<(Timestamp, usize), ()> =
            (0..count).map(|node| ((Timestamp::UNIX_EPOCH, node), ())).collect();
        let (mut at, mut looks) = (Vec::new(), 0);
        while let Some(((now, node), ())) = timers.pop_first() {
            let name = format!("n{node}");
            looks += 1;
            if gone(node) && looks > count {
                turns.leave(&name);
                continue;
            }
            match turns.of(&zone, &name, PAUSE, now) {
                later if later > now => drop(timers.insert((later, node), ())),
                _ => {
                    turns.used(&zone, &name, PAUSE, now);
                    assert_eq!(turns.of(&zone, &name, PAUSE, now), Timestamp::MIN, "it keeps its turn");
                    turns.leave(&name);
                    at.push(now.as_second());
                }
            }
        }
        (at, looks)
    }

    #[test]
    fn one_goes_after_the_other_and_few_look_in_vain() {
        for count in [10_usize, 100, 1000] {
            let (at, looks) = evicted(count, |_| false);
            assert_eq!(at, (0..count).map(|place| place as i64 * 10).collect::<Vec<_>>());
            let most = count * (count.ilog2() as usize + 3);
            assert!(looks <= most, "{looks} looks of {count} nodes, {most} at most");
        }
    }

    #[test]
    fn those_who_leave_hold_nobody_up() {
        let (at, _) = evicted(100, |node| node % 10 != 0);
        assert_eq!(at.len(), 10);
        let (first, last) = (at[0], at[9]);
        assert!(first == 0 && last <= 600, "ten turns are over after half of the whole line's time: {at:?}");
    }
}
