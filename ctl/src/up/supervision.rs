//! What to do when a child starts, ends, or is meddled with: a value without clock or processes.
//!
//! Members start at once; nodes as soon as one member serves. A child that ends unasked is started again
//! after a pause that doubles each time and is forgotten after a good run. What `chaos` took down stays down
//! until it is resumed. A stop ends nodes first, then members, each with a deadline.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::layout::ChildId;

/// The pause before the first restart.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A run this long clears the past.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// A child that was never ready after this many starts has a problem that starting doesn't solve.
const STARTS_BEFORE_GIVING_UP: u32 = 4;
/// How long nodes, and then members, may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(12);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The supervisor begins.
    Begin,
    /// A child serves.
    Ready(ChildId),
    /// A child ended.
    Exited(ChildId, String),
    /// A time that was asked for has come.
    Tick,
    /// `amoeba chaos kill`
    Kill(ChildId),
    /// `amoeba chaos stop`
    Freeze(ChildId),
    /// `amoeba chaos resume`
    Resume(ChildId),
    /// Ctrl-C or SIGTERM; a second one ends everything at once.
    Stop,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the child.
    Start(ChildId),
    /// Ask it to end.
    Terminate(ChildId),
    /// End it; a node with every process of its pods.
    Kill(ChildId),
    /// End only the process of the child itself, as a deadline has passed.
    KillAgent(ChildId),
    /// Stop its processes without ending them.
    Freeze(ChildId),
    /// Let them go on.
    Thaw(ChildId),
    /// Tell the user.
    Say(String),
    /// The child can't be started: give up.
    GiveUp(ChildId, String),
    /// Everything has ended.
    Finished,
}

/// How a child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started yet.
    Waiting,
    /// Started, not serving yet.
    Starting,
    /// Serving.
    Running,
    /// Ended by itself; starts again at this time.
    Pausing(Instant),
    /// Stopped by `chaos stop`; it served before, or not.
    Frozen(bool),
    /// Killed by `chaos kill`.
    Down,
    /// Ended after a stop.
    Ended,
}

impl State {
    /// As `chaos ls` shows it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Pausing(_) => "restarting",
            Self::Frozen(_) => "stopped",
            Self::Down => "killed",
            Self::Ended => "ended",
        }
    }

    fn has_process(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Frozen(_))
    }
}

#[derive(Clone, Copy, Debug)]
struct Child {
    state: State,
    started: Option<Instant>,
    was_ready: bool,
    /// Its process has not been reported to have ended.
    alive: bool,
    /// It was resumed before its killed process had ended: it starts when that is told.
    wanted: bool,
    /// Ends in a row without a good run between them.
    failures: u32,
    restarts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    StoppingNodes { deadline: Instant },
    StoppingMembers { deadline: Instant },
    Finished,
}

/// All children and what is to become of them.
#[derive(Clone, Debug)]
pub struct Supervision {
    children: BTreeMap<ChildId, Child>,
    phase: Phase,
}

impl Supervision {
    /// Nothing is started before [`Event::Begin`].
    pub fn new(children: impl IntoIterator<Item = ChildId>) -> Self {
        let fresh = Child {
            state: State::Waiting,
            started: None,
            was_ready: false,
            alive: false,
            wanted: false,
            failures: 0,
            restarts: 0,
        };
        Self { children: children.into_iter().map(|id| (id, fresh)).collect(), phase: Phase::Running }
    }

    /// How every child stands, and how often it was started again.
    pub fn states(&self) -> impl Iterator<Item = (ChildId, State, u32)> {
        self.children.iter().map(|(id, child)| (*id, child.state, child.restarts))
    }

    /// When [`Event::Tick`] is needed next.
    pub fn next_tick(&self) -> Option<Instant> {
        let pauses = self.children.values().filter_map(|child| match child.state {
            State::Pausing(until) => Some(until),
            _ => None,
        });
        let deadline = match self.phase {
            Phase::StoppingNodes { deadline } | Phase::StoppingMembers { deadline } => Some(deadline),
            Phase::Running | Phase::Finished => None,
        };
        pauses.chain(deadline).min()
    }

    /// Takes one event and says what to do, in this order.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        let mut effects = match event {
            Event::Begin => self.start_waiting(now, |id| !id.is_node()),
            Event::Ready(id) => self.ready(id, now),
            Event::Exited(id, how) => self.exited(id, &how, now),
            Event::Tick => self.tick(now),
            Event::Kill(id) => self.kill(id),
            Event::Freeze(id) => self.freeze(id),
            Event::Resume(id) => self.resume(id, now),
            Event::Stop => self.stop(now),
        };
        effects.extend(self.advance(now));
        effects
    }

    fn start_waiting(&mut self, now: Instant, which: impl Fn(ChildId) -> bool) -> Vec<Effect> {
        let waiting =
            self.children.iter_mut().filter(|(id, child)| which(**id) && child.state == State::Waiting);
        waiting.map(|(id, child)| start(*id, child, now)).collect()
    }

    fn ready(&mut self, id: ChildId, now: Instant) -> Vec<Effect> {
        let Some(child) = self.children.get_mut(&id).filter(|child| child.state == State::Starting) else {
            return Vec::new();
        };
        child.state = State::Running;
        child.was_ready = true;
        // Nodes need a member that answers; one is enough.
        if id.is_node() { Vec::new() } else { self.start_waiting(now, ChildId::is_node) }
    }

    fn exited(&mut self, id: ChildId, how: &str, now: Instant) -> Vec<Effect> {
        let stopping = self.phase != Phase::Running;
        let Some(child) = self.children.get_mut(&id) else { return Vec::new() };
        child.alive = false;
        match child.state {
            State::Down if child.wanted && !stopping => return vec![start(id, child, now)],
            State::Down => return Vec::new(),
            _ if stopping => {
                child.state = State::Ended;
                return Vec::new();
            }
            _ => {}
        }
        let good = child.was_ready && child.started.is_some_and(|started| now - started >= GOOD_RUN);
        child.failures = if good { 1 } else { child.failures + 1 };
        if !child.was_ready && child.failures >= STARTS_BEFORE_GIVING_UP {
            child.state = State::Ended;
            return vec![Effect::GiveUp(id, how.to_owned())];
        }
        let pause = pause(child.failures);
        child.state = State::Pausing(now + pause);
        vec![Effect::Say(format!("{id} {how}; it starts again in {} ms", pause.as_millis()))]
    }

    fn tick(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (id, child) in &mut self.children {
            if matches!(child.state, State::Pausing(until) if until <= now) {
                child.restarts += 1;
                effects.push(start(*id, child, now));
            }
        }
        effects
    }

    fn kill(&mut self, id: ChildId) -> Vec<Effect> {
        let Some(child) = self.running(id) else { return Vec::new() };
        child.state = State::Down;
        child.wanted = false;
        vec![Effect::Kill(id)]
    }

    fn freeze(&mut self, id: ChildId) -> Vec<Effect> {
        let Some(child) =
            self.running(id).filter(|child| matches!(child.state, State::Starting | State::Running))
        else {
            return Vec::new();
        };
        child.state = State::Frozen(child.state == State::Running);
        vec![Effect::Freeze(id)]
    }

    fn resume(&mut self, id: ChildId, now: Instant) -> Vec<Effect> {
        let Some(child) = self.running(id) else { return Vec::new() };
        match child.state {
            State::Frozen(was_running) => {
                child.state = if was_running { State::Running } else { State::Starting };
                vec![Effect::Thaw(id)]
            }
            State::Down => {
                child.failures = 0;
                child.wanted = child.alive;
                if child.alive { Vec::new() } else { vec![start(id, child, now)] }
            }
            _ => Vec::new(),
        }
    }

    /// The child, unless everything is about to end anyway.
    fn running(&mut self, id: ChildId) -> Option<&mut Child> {
        if self.phase == Phase::Running { self.children.get_mut(&id) } else { None }
    }

    fn stop(&mut self, now: Instant) -> Vec<Effect> {
        match self.phase {
            Phase::Running => {
                self.phase = Phase::StoppingNodes { deadline: now + STOP_DEADLINE };
                self.abandon_idle();
                self.ask_to_end(ChildId::is_node)
            }
            Phase::StoppingNodes { .. } | Phase::StoppingMembers { .. } => self.end_now(|_| true),
            Phase::Finished => Vec::new(),
        }
    }

    /// What has no process is as good as ended.
    fn abandon_idle(&mut self) {
        for child in self.children.values_mut().filter(|child| !child.state.has_process()) {
            child.state = State::Ended;
        }
    }

    fn ask_to_end(&mut self, which: impl Fn(ChildId) -> bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (id, child) in
            self.children.iter_mut().filter(|(id, child)| which(**id) && child.state.has_process())
        {
            if matches!(child.state, State::Frozen(_)) {
                // A frozen process can't end; nor does anybody wait for what it might still say.
                effects.push(Effect::Thaw(*id));
                child.state = State::Running;
            }
            effects.push(Effect::Terminate(*id));
        }
        effects
    }

    fn end_now(&self, which: impl Fn(ChildId) -> bool) -> Vec<Effect> {
        let left = self.children.iter().filter(|(id, child)| which(**id) && child.state.has_process());
        left.map(|(id, _)| Effect::KillAgent(*id)).collect()
    }

    fn any_left(&self, which: impl Fn(ChildId) -> bool) -> bool {
        self.children.iter().any(|(id, child)| which(*id) && child.state.has_process())
    }

    /// Moves a stop on: to the members when the nodes have ended, to the end when all have.
    fn advance(&mut self, now: Instant) -> Vec<Effect> {
        match self.phase {
            Phase::StoppingNodes { .. } if !self.any_left(ChildId::is_node) => {
                self.phase = Phase::StoppingMembers { deadline: now + STOP_DEADLINE };
                let mut effects = self.ask_to_end(|_| true);
                effects.extend(self.advance(now));
                effects
            }
            Phase::StoppingMembers { .. } if !self.any_left(|_| true) => {
                self.phase = Phase::Finished;
                vec![Effect::Finished]
            }
            Phase::StoppingNodes { deadline } if deadline <= now => self.late(ChildId::is_node, now),
            Phase::StoppingMembers { deadline } if deadline <= now => self.late(|_| true, now),
            _ => Vec::new(),
        }
    }

    /// The deadline has passed: who holds us up is named and killed. Killed processes end at once, but the
    /// deadline moves on so that it doesn't fire again until they did.
    fn late(&mut self, which: impl Fn(ChildId) -> bool, now: Instant) -> Vec<Effect> {
        if let Phase::StoppingNodes { deadline } | Phase::StoppingMembers { deadline } = &mut self.phase {
            *deadline = now + STOP_DEADLINE;
        }
        let kills = self.end_now(which);
        let name = |effect: &Effect| match effect {
            Effect::KillAgent(id) => Some(id.to_string()),
            _ => None,
        };
        let names: Vec<String> = kills.iter().filter_map(name).collect();
        let mut effects = vec![Effect::Say(format!(
            "{} did not stop within {} s and is killed",
            crate::text::and(&names),
            STOP_DEADLINE.as_secs()
        ))];
        effects.extend(kills);
        effects
    }
}

fn start(id: ChildId, child: &mut Child, now: Instant) -> Effect {
    child.state = State::Starting;
    child.started = Some(now);
    child.alive = true;
    child.wanted = false;
    Effect::Start(id)
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests;
