//! What a member does about its own and the others' health: the alarms and checks it proposes.
//!
//! Nothing here acts: [`Health::due`] compares what is (a full disk, a wrong digest, votes that disagree) with the
//! alarms that everyone knows, and says what to propose. It is asked at each tick, so a proposal that got
//! lost is made again.

use std::collections::BTreeMap;
use std::time::Duration;

use raft::eraftpb::{Message, MessageType};

use crate::alarm::{Alarm, AlarmKind};
use crate::command::Command;
use crate::kv::MemberId;
use crate::mvcc::state::State;

/// How often a leader compares digests while something is written. Two of them find a divergence.
const CHECK_EVERY: Duration = Duration::from_millis(300);
/// A proposal of which nothing is heard is made again after this.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A member that hasn't answered its leader for so many election timeouts stops nobody's puts.
const SILENT_ELECTIONS: u32 = 6;

/// What is known of this member's health beside the replicated state.
#[derive(Debug)]
pub struct Health {
    member: MemberId,
    /// Why space is short, if it is; `None` before anyone has looked.
    space: Option<Option<String>>,
    /// What is wrong with this member's data.
    damaged: Option<String>,
    ask_at: Duration,
    check_at: Duration,
    /// The checkpoint that was voted on last, and when to do it again.
    voted: (u64, Duration),
    /// While it leads: since when, and who has answered it when since.
    leads_since: Option<Duration>,
    answered: BTreeMap<MemberId, Duration>,
    /// How long a member may be silent.
    silence: Duration,
}

impl Health {
    /// Of a member that has just started, in a group with this election timeout.
    pub fn new(member: MemberId, election_timeout: Duration) -> Self {
        let zero = Duration::ZERO;
        Self {
            member,
            space: None,
            damaged: None,
            ask_at: zero,
            check_at: zero,
            voted: (0, zero),
            leads_since: None,
            answered: BTreeMap::new(),
            silence: election_timeout * SILENT_ELECTIONS,
        }
    }

    /// A message of another member has come; the leader looks for answers.
    pub fn note_message(&mut self, message: &Message, now: Duration) {
        // Who can't hear the leader still asks for votes: that is no answer.
        let answers = [MessageType::MsgAppendResponse, MessageType::MsgHeartbeatResponse];
        if answers.contains(&message.get_msg_type()) {
            self.answered.insert(MemberId(message.from), now);
        }
    }

    /// The disk was looked at: why its space is short, if it is.
    pub fn note_space(&mut self, low: Option<String>) {
        self.space = Some(low);
    }

    /// This member's data is not what it should be.
    pub fn note_damage(&mut self, detail: String) {
        self.damaged = Some(detail);
    }

    /// What to propose now.
    pub fn due(&mut self, state: &State, voters: &[MemberId], leads: bool, now: Duration) -> Vec<Command> {
        let mut due = Vec::new();
        self.leads_since = leads.then(|| self.leads_since.unwrap_or(now));
        if now >= self.ask_at {
            due.extend(self.space_alarm(state));
            due.extend(self.corrupt_alarms(state, voters));
            due.extend(self.unheard_alarms(state, now));
            if !due.is_empty() {
                self.ask_at = now + ASK_AGAIN;
            }
        }
        due.extend(self.vote(state, now));
        if leads && voters.len() > 1 && now >= self.check_at {
            self.check_at = now + CHECK_EVERY;
            due.extend(state.checks.next(state.head.fingerprint()).map(Command::Check));
        }
        due
    }

    fn space_alarm(&self, state: &State) -> Option<Command> {
        let (kind, member) = (AlarmKind::NoSpace, self.member);
        let known = state.alarms.contains_key(&(kind, member));
        match self.space.as_ref()? {
            Some(detail) if !known => {
                Some(Command::AlarmRaise(Alarm { kind, member, detail: detail.clone() }))
            }
            None if known => Some(Command::AlarmDisarm { kind, member }),
            _ => None,
        }
    }

    /// A leader withdraws the space alarms of who doesn't answer it any more: such a member can't say that it
    /// has space again, and a majority must be able to go on without it. If it has none, it says so when it is
    /// heard of again; if it is full before, it halts, which is no worse than that it is silent.
    fn unheard_alarms(&self, state: &State, now: Duration) -> Vec<Command> {
        let Some(since) = self.leads_since else { return Vec::new() };
        let heard = |member: &MemberId| self.answered.get(member).map_or(since, |at| since.max(*at));
        state
            .alarms
            .keys()
            .filter(|(kind, member)| *kind == AlarmKind::NoSpace && *member != self.member)
            .filter(|(_, member)| now >= heard(member) + self.silence)
            .map(|(kind, member)| Command::AlarmDisarm { kind: *kind, member: *member })
            .collect()
    }

    fn corrupt_alarms(&self, state: &State, voters: &[MemberId]) -> Vec<Command> {
        let own = self.damaged.iter().map(|detail| (self.member, detail.clone()));
        let outvoted =
            state.checks.wrong(voters).into_iter().map(|member| {
                (member, format!("its digest differs from the majority's; {}", remedy(member)))
            });
        own.chain(outvoted)
            .filter(|(member, _)| !state.alarms.contains_key(&(AlarmKind::Corrupt, *member)))
            .map(|(member, detail)| Command::AlarmRaise(Alarm { kind: AlarmKind::Corrupt, member, detail }))
            .collect()
    }

    fn vote(&mut self, state: &State, now: Duration) -> Option<Command> {
        let check = state.checks.vote(self.member)?;
        if self.voted.0 == check.at && now < self.voted.1 {
            return None;
        }
        self.voted = (check.at, now + ASK_AGAIN);
        Some(Command::Check(check))
    }
}

/// What to do about a member whose data is wrong.
pub fn remedy(member: MemberId) -> String {
    format!(
        "remove member {member} from the cluster (`amoeba member remove`), delete its directory and add it again \
         as a new member (`amoeba member add`); a cluster of one is restored from a backup"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTERS: [MemberId; 3] = [MemberId(1), MemberId(2), MemberId(3)];

    const ELECTION: Duration = Duration::from_millis(300);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_space_alarm_follows_the_disk_and_is_asked_for_until_it_is_known() {
        let (mut health, mut state) = (Health::new(VOTERS[0], ELECTION), State::default());
        assert!(health.due(&state, &VOTERS, false, at(0)).is_empty(), "nobody has looked");
        health.note_space(Some("full".into()));
        assert!(matches!(&health.due(&state, &VOTERS, false, at(0))[..], [Command::AlarmRaise(_)]));
        assert!(health.due(&state, &VOTERS, false, at(500)).is_empty());
        assert_eq!(health.due(&state, &VOTERS, false, at(1000)).len(), 1, "it got lost");
        state.alarms.insert((AlarmKind::NoSpace, VOTERS[0]), "full".into());
        assert!(health.due(&state, &VOTERS, false, at(2000)).is_empty());
        health.note_space(None);
        assert!(matches!(&health.due(&state, &VOTERS, false, at(2100))[..], [Command::AlarmDisarm { .. }]));
    }

    #[test]
    fn a_leader_withdraws_the_space_alarm_of_who_does_not_answer_but_of_nobody_else() {
        let (mut health, mut state) = (Health::new(VOTERS[0], ELECTION), State::default());
        let withdrawn = |commands: Vec<Command>| {
            let disarms = commands.into_iter().filter_map(|command| match command {
                Command::AlarmDisarm { member, .. } => Some(member),
                _ => None,
            });
            disarms.collect::<Vec<_>>()
        };
        health.note_space(Some("full".into()));
        for member in VOTERS {
            state.alarms.insert((AlarmKind::NoSpace, member), "full".into());
        }
        state.alarms.insert((AlarmKind::Corrupt, VOTERS[1]), "wrong".into());
        assert!(withdrawn(health.due(&state, &VOTERS, false, at(9000))).is_empty(), "it follows");
        assert!(
            withdrawn(health.due(&state, &VOTERS, true, at(10_000))).is_empty(),
            "it has just begun to lead"
        );
        let mut message = Message::new();
        message.from = VOTERS[2].0;
        message.set_msg_type(MessageType::MsgHeartbeatResponse);
        health.note_message(&message, at(11_000));
        message.from = VOTERS[1].0;
        message.set_msg_type(MessageType::MsgRequestPreVote);
        health.note_message(&message, at(11_000));
        assert_eq!(withdrawn(health.due(&state, &VOTERS, true, at(11_900))), [VOTERS[1]]);
        assert!(withdrawn(health.due(&state, &VOTERS, false, at(13_000))).is_empty(), "it follows again");
        assert!(
            withdrawn(health.due(&state, &VOTERS, true, at(14_100))).is_empty(),
            "a new term, a new chance"
        );
    }

    #[test]
    fn only_a_leader_of_several_compares_and_only_while_something_happens() {
        let (mut health, mut state) = (Health::new(VOTERS[0], ELECTION), State::default());
        assert!(health.due(&state, &VOTERS[..1], true, at(0)).is_empty());
        assert!(health.due(&state, &VOTERS, false, at(0)).is_empty());
        let mut checks = 0;
        for step in 0..100 {
            for command in health.due(&state, &VOTERS, true, at(step * 50)) {
                let Command::Check(check) = command else { panic!("{command:?}") };
                state.head.index += 1;
                state.checks.apply(VOTERS[0], check, state.head.index, state.head.fingerprint());
                checks += 1;
            }
        }
        assert!((1..5).contains(&checks), "{checks} checks of an idle group");
    }
}
