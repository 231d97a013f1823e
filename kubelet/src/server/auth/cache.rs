//! Answers that are good for a while, and not too many of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// As many as upstream remembers.
const MOST: usize = 8192;

/// Answers by question.
pub(super) struct Remembered<K, V>(BTreeMap<K, (V, Instant)>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, V: Clone> Remembered<K, V> {
    /// The answer, if it is still good.
    pub(super) fn get(&self, question: &K, now: Instant) -> Option<V> {
        self.0.get(question).filter(|(_, until)| now < *until).map(|(answer, _)| answer.clone())
    }

    /// Keeps an answer. When there are too many, those that are good no longer go, and if there are none, all: who
    /// asks so many questions gains nothing by it.
    pub(super) fn put(&mut self, question: K, answer: V, now: Instant, good_for: Duration) {
        if self.0.len() >= MOST {
            self.0.retain(|_, (_, until)| now < *until);
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(question, (answer, now + good_for));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_and_are_bounded() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut known = Remembered::default();
        known.put(0, "yes", start, second);
        assert_eq!(known.get(&0, start), Some("yes"));
        assert_eq!(known.get(&0, start + second), None);
        for question in 0..3 * MOST {
            known.put(question, "no", start, second * 10);
            assert!(known.0.len() <= MOST);
            assert_eq!(known.get(&question, start), Some("no"));
        }
    }
}
