//! Which member gets the next connection: the choice of the balancer, without sockets.
//!
//! Members that answered their last probe take turns. A member that failed a probe or refused a connection
//! gets none until it answers again.

use super::layout::ChildId;

/// The members and what is known of them.
#[derive(Clone, Debug)]
pub struct Health {
    members: Vec<(ChildId, bool)>,
    turn: usize,
}

impl Health {
    /// Nobody is known to live yet.
    pub fn new(members: impl IntoIterator<Item = ChildId>) -> Self {
        Self { members: members.into_iter().map(|id| (id, false)).collect(), turn: 0 }
    }

    /// Takes the result of a probe or of a connection. True if that changed something.
    pub fn observe(&mut self, id: ChildId, lives: bool) -> bool {
        let Some((_, known)) = self.members.iter_mut().find(|(member, _)| *member == id) else {
            return false;
        };
        std::mem::replace(known, lives) != lives
    }

    /// Whether the member answered last time.
    pub fn lives(&self, id: ChildId) -> bool {
        self.members.iter().any(|(member, lives)| *member == id && *lives)
    }

    /// Whose turn it is among those that live.
    pub fn choose(&mut self) -> Option<ChildId> {
        let count = self.members.len();
        let order = (0..count).map(|step| (self.turn + step) % count);
        let chosen = order.into_iter().find(|index| self.members[*index].1)?;
        self.turn = chosen + 1;
        Some(self.members[chosen].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [ChildId; 3] = [ChildId::Member(1), ChildId::Member(2), ChildId::Member(3)];

    fn choices(health: &mut Health, count: usize) -> String {
        (0..count)
            .map(|_| health.choose().map_or("-".to_owned(), |id| id.to_string()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn the_living_take_turns() {
        let mut health = Health::new(IDS);
        assert_eq!(choices(&mut health, 2), "- -");
        IDS.iter().for_each(|id| assert!(health.observe(*id, true)));
        assert_eq!(choices(&mut health, 4), "m1 m2 m3 m1");
        health.observe(IDS[1], false);
        assert_eq!(choices(&mut health, 4), "m3 m1 m3 m1");
        health.observe(IDS[1], true);
        assert_eq!(choices(&mut health, 3), "m2 m3 m1");
    }

    #[test]
    fn only_changes_are_changes() {
        let mut health = Health::new(IDS);
        assert!(health.observe(IDS[0], true));
        assert!(!health.observe(IDS[0], true));
        assert!(!health.observe(ChildId::Member(9), true));
        assert!(health.lives(IDS[0]) && !health.lives(IDS[1]));
    }
}
