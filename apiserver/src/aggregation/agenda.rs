//! Who is to be asked when whether it lives. Each has a pace of its own, so that one that is silent delays nobody.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How soon it is asked again after it didn't answer; twice as late each time.
const AGAIN: Duration = Duration::from_millis(500);
/// How often those are asked that answered, and at the latest those that didn't.
const RESYNC: Duration = Duration::from_secs(30);

/// All of them, by name.
#[derive(Debug, Default)]
pub struct Agenda(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    /// Looks in a row that weren't good.
    failures: u32,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// It is being asked; `again`: what it is asked about has changed meanwhile.
    Asked { again: bool },
    /// It is to be asked then.
    Due(Instant),
}

impl Agenda {
    /// Whether it is to be asked now; then it is being asked, until [`Agenda::ended`]. Who is new is asked at once.
    pub fn begins(&mut self, name: &str, now: Instant) -> bool {
        let new = || Entry { failures: 0, state: State::Due(now) };
        let entry = self.0.entry(name.to_owned()).or_insert_with(new);
        let begins = matches!(entry.state, State::Due(at) if at <= now);
        if begins {
            entry.state = State::Asked { again: false };
        }
        begins
    }

    /// The look at one is over; `settled`: it needn't be asked again soon.
    pub fn ended(&mut self, name: &str, settled: bool, now: Instant) {
        let Some(entry) = self.0.get_mut(name) else { return };
        entry.failures = if settled { 0 } else { entry.failures.saturating_add(1) };
        let again = matches!(entry.state, State::Asked { again: true });
        entry.state = State::Due(if again { now } else { now + pause(entry.failures) });
    }

    /// Something has changed on which the answers depend.
    pub fn stir(&mut self, now: Instant) {
        for entry in self.0.values_mut() {
            entry.failures = 0;
            entry.state = match entry.state {
                State::Asked { .. } => State::Asked { again: true },
                State::Due(_) => State::Due(now),
            };
        }
    }

    /// Forgets those who are no more, unless they are just being asked.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|name, entry| matches!(entry.state, State::Asked { .. }) || is_there(name));
    }

    /// When the next is due.
    pub fn next(&self) -> Option<Instant> {
        let due = self.0.values().filter_map(|entry| match entry.state {
            State::Due(at) => Some(at),
            State::Asked { .. } => None,
        });
        due.min()
    }
}

/// Until the next look after so many in a row that weren't good.
fn pause(failures: u32) -> Duration {
    match failures {
        0 => RESYNC,
        some => RESYNC.min(AGAIN * 2_u32.saturating_pow(some - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_is_asked_less_and_less_often() {
        let millis = |failures| pause(failures).as_millis();
        assert_eq!([0, 1, 2, 4, 7, 40].map(millis), [30_000, 500, 1_000, 4_000, 30_000, 30_000]);
    }

    #[test]
    fn each_has_its_own_pace() {
        let (mut agenda, start) = (Agenda::default(), Instant::now());
        assert!(agenda.begins("good", start) && agenda.begins("bad", start));
        assert_eq!(agenda.next(), None, "both are being asked");
        agenda.ended("good", true, start);
        agenda.ended("bad", false, start);
        assert_eq!(agenda.next(), Some(start + AGAIN));
        assert!(!agenda.begins("good", start + AGAIN));
        assert!(agenda.begins("bad", start + AGAIN));
        assert_eq!(agenda.next(), Some(start + RESYNC));
    }

    #[test]
    fn a_change_has_all_asked_anew_but_nobody_twice_at_a_time() {
        let (mut agenda, start) = (Agenda::default(), Instant::now());
        assert!(agenda.begins("silent", start) && agenda.begins("good", start));
        agenda.ended("good", true, start);
        agenda.stir(start);
        assert!(agenda.begins("good", start));
        assert!(!agenda.begins("silent", start));
        agenda.ended("silent", false, start);
        assert!(agenda.begins("silent", start), "the change came while it was asked");
    }

    #[test]
    fn who_is_gone_is_forgotten_after_its_look() {
        let (mut agenda, start) = (Agenda::default(), Instant::now());
        assert!(agenda.begins("gone", start));
        agenda.retain(|_| false);
        assert!(!agenda.begins("gone", start), "its look is under way");
        agenda.ended("gone", true, start);
        agenda.retain(|_| false);
        assert!(agenda.begins("gone", start));
    }
}
