//! Who is asked again because others changed the object after him. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

/// What one plugin has done to an object in the first round, and what it is to do again in the second.
#[derive(Debug, Default)]
pub(super) struct Round {
    is_second: bool,
    /// Those who want to be asked again, so far.
    asked: BTreeSet<String>,
    again: BTreeSet<String>,
    output: Value,
    has_changed: bool,
}

impl Round {
    /// Somebody is about to be asked: is it his turn?
    pub(super) fn wants(&self, key: &str) -> bool {
        !self.is_second || self.again.contains(key)
    }

    /// The one who was asked last changed the object: who was asked before sees it again, if he wants to.
    pub(super) fn changed(&mut self) {
        self.has_changed = true;
        self.again.extend(self.asked.iter().cloned());
    }

    /// Somebody was asked, and wants to be asked again if needed.
    pub(super) fn ran(&mut self, key: String, if_needed: bool) {
        if if_needed {
            self.asked.insert(key);
        }
    }

    /// The first round is over, with this result. True if it changed anything.
    pub(super) fn end(&mut self, object: &Value) -> bool {
        self.output = object.clone();
        self.has_changed
    }

    /// The second one begins: if others changed the object meanwhile, all who want to see it again.
    pub(super) fn again(&mut self, object: &Value) {
        if self.output != *object {
            self.again.append(&mut self.asked.clone());
        }
        self.is_second = true;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn those_who_want_to_see_what_came_after_them() {
        let mut round = Round::default();
        assert!(round.wants("a"));
        round.ran("a".to_owned(), true);
        round.changed();
        round.ran("b".to_owned(), true);
        round.ran("c".to_owned(), false);
        assert!(round.end(&json!(1)));
        round.again(&json!(1));
        assert!(round.wants("a") && !round.wants("b") && !round.wants("c"));
        round.again(&json!(2));
        assert!(round.wants("b"), "another plugin changed the object after it");
        assert!(!round.wants("c"), "it doesn't want to");
    }
}
