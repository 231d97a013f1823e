//! One member's turn: it starts, gets messages, works, and is looked at.

use raft::eraftpb::{Message, MessageType};

use super::network::place;
use super::node::{Node, Running, config, make_snapshot};
use super::verdict::{Judge, ensure, violated};
use super::world::World;
use crate::kv::MemberId;
use crate::mvcc::state::State;
use crate::mvcc::view::DiskError;
use crate::raft::persist::RecoverError;
use crate::raft::replica::{Fatal, Input, Output, Replica, StartError};
use crate::watch::hub::Hub;

impl World {
    pub fn start_if_due(&mut self, at: usize) {
        let node = &self.nodes[at];
        if node.running.is_some() || node.gone || self.now < node.starts_at {
            return;
        }
        if self.was_removed_before_it_heard_of_anything(at) {
            self.nodes[at].gone = true;
            return;
        }
        self.nodes[at].starts += 1;
        let node = &self.nodes[at];
        let mut config = config(&self.plan, at, node.starts);
        if at >= self.plan.members {
            // It asks the group who belongs to it, and is told.
            config.introduced = self.oracle.replay.membership().members().map(|member| member.id).collect();
        }
        let replica = match Replica::start(config, node.disk.clone(), node.clocks(self.now)) {
            Ok(replica) => replica,
            Err(StartError::Recover(RecoverError::Disk(DiskError::Engine { .. }))) => return self.crash(at),
            Err(StartError::Recover(RecoverError::Removed(_))) => {
                self.nodes[at].gone = true;
                return;
            }
            Err(error) => violated(Judge::Start, format!("member {}: {error:?}", at + 1)),
        };
        let head = replica.state().head;
        self.oracle.learn(self.now, &self.nodes[at].disk, head.index, &head, true);
        let hub = Hub::new(head.revision, head.compacted, self.plan.workload.ring_bytes);
        self.nodes[at].inbox.clear();
        self.nodes[at].running = Some(Running { replica, hub, scrubbing: true, revision: head.revision });
    }

    /// Then who joins finds nobody who knows its address, and doesn't start.
    pub fn was_removed_before_it_heard_of_anything(&self, at: usize) -> bool {
        let knows_others =
            !State::load(&self.nodes[at].disk).expect("memory can be read").membership.is_empty();
        let is_member = self.oracle.replay.membership().get(MemberId(at as u64 + 1)).is_some();
        at >= self.plan.members && !is_member && !knows_others
    }

    /// The power fails.
    pub fn crash(&mut self, at: usize) {
        self.summary.crashes += 1;
        self.trace(|| format!("crash {}", at + 1));
        let node = &mut self.nodes[at];
        node.fails_after_vote = false;
        // Without space it only halts: what is written stays.
        let full = node.disk.is_full();
        let survivors = if full { node.disk.pending() } else { self.disks.index(node.disk.pending() + 1) };
        node.disk.crash(survivors);
        node.running = None;
        let down = if full { node.full_until.unwrap_or(0) } else { self.now + node.down };
        node.starts_at = if self.calm { 0 } else { down };
        node.inbox.clear();
        // The others notice their broken connections, perhaps.
        for other in 0..self.nodes.len() {
            if other != at && self.disks.percent(70) {
                self.nodes[other].inbox.push(Input::Disconnected(MemberId(at as u64 + 1)));
            }
        }
        self.abandon_calls(at);
        self.watches_break(at);
    }

    /// Lets a member work if there is anything to do.
    pub fn turn(&mut self, at: usize) {
        let now = self.nodes[at].clocks(self.now);
        let node = &mut self.nodes[at];
        if self.now < node.paused_until {
            return;
        }
        let tick = node.tick();
        if !tick && node.inbox.is_empty() {
            return;
        }
        let space = if tick { node.look_at_space(self.now) } else { None };
        let Some(running) = &mut node.running else { return };
        let mut inputs = std::mem::take(&mut node.inbox);
        if tick {
            inputs.extend(space);
            inputs.push(Input::Tick);
        }
        let before = running.replica.state().head.index;
        let may_install = inputs.iter().any(brings_snapshot);
        let vote = |running: &Running| {
            let state = &running.replica.member().log().hard_state;
            (state.term, state.vote)
        };
        let voted = vote(running);
        let mut sent = Vec::new();
        let handled = running.replica.handle(now, inputs, &mut |message| sent.push(message));
        let fails = node.fails_after_vote && vote(running) != voted && vote(running).1 != 0;
        sent.into_iter().for_each(|message| self.send(message));
        match handled {
            Ok(_) if fails => self.fail(at, before, may_install),
            Ok(output) => self.settle(at, before, output, tick),
            Err(Fatal::Fenced(_)) if self.nodes[at].lost_disk => self.end(at),
            Err(Fatal::Fenced(why)) => {
                violated(Judge::SameState, format!("member {} is fenced: {why}", at + 1))
            }
            Err(_) => self.fail(at, before, may_install),
        }
    }

    /// The power fails amid a turn. What was applied in it the others may have been told of already.
    fn fail(&mut self, at: usize, before: u64, may_install: bool) {
        let Node { running, disk, .. } = &self.nodes[at];
        let head = running.as_ref().expect("it has just run").replica.state().head;
        if !may_install {
            self.oracle.learn(self.now, disk, before, &head, false);
        }
        self.crash(at);
    }

    fn settle(&mut self, at: usize, before: u64, output: Output, tick: bool) {
        self.look_at(at, before, &output);
        let Node { running, disk, inbox, .. } = &mut self.nodes[at];
        let running = running.as_mut().expect("it has just run");
        let head = running.replica.state().head;
        running.scrubbing |= output.compacted;
        self.summary.compactions += u64::from(output.compacted);
        if output.installed {
            self.summary.installs += 1;
            running.hub.reset(head.revision, head.compacted);
        }
        running.hub.publish(output.events, head.revision, head.compacted);
        if output.snapshot_wanted {
            inbox.push(make_snapshot(&running.replica, disk));
        }
        for (ticket, result) in output.results {
            self.answer_write(at, ticket, &result);
        }
        for (ticket, result) in output.reads {
            self.answer_read(at, ticket, &result);
        }
        for (ticket, result) in output.leases {
            self.answer_lease(ticket, &result);
        }
        if output.removed {
            return self.end(at);
        }
        if tick {
            self.clean_up(at);
        }
        if tick && self.now.is_multiple_of(16) {
            self.tell_progress(at);
        }
    }

    /// What must hold of a member after each of its turns.
    fn look_at(&mut self, at: usize, before: u64, output: &Output) {
        let Node { running, disk, .. } = &mut self.nodes[at];
        let running = running.as_mut().expect("it has just run");
        let (head, member) = (running.replica.state().head, running.replica.member());
        if member.is_leader() {
            self.oracle.invariant_one_leader_per_term(member.leadership().term, running.replica.id());
        }
        self.oracle.learn(self.now, disk, before, &head, output.installed);
        self.oracle.invariant_events_follow_from_log(&output.events);
        ensure!(
            head.index <= member.commit(),
            Judge::Monotone,
            "applied {} > {}",
            head.index,
            member.commit()
        );
        ensure!(
            head.revision >= running.revision,
            Judge::Monotone,
            "{} < {}",
            head.revision,
            running.revision
        );
        running.revision = head.revision;
        // Whoever lags, leaves or never fetches its snapshot: what is kept for it has an end.
        let (kept, keep) = (head.index - member.log().truncated().0, self.plan.workload.log_keep as u64);
        ensure!(kept <= 5 * keep + 40, Judge::Bounded, "{kept} applied entries are kept in the log");
    }

    /// The group has removed the member, or knows that it has forgotten what it promised: its process ends.
    pub fn end(&mut self, at: usize) {
        self.crash(at);
        self.nodes[at].gone = true;
    }

    fn clean_up(&mut self, at: usize) {
        let events = self.plan.workload.scrub_events;
        let Some(running) = self.nodes[at].running.as_mut().filter(|running| running.scrubbing) else {
            return;
        };
        match running.replica.scrub(events) {
            Ok(more) => running.scrubbing = more,
            Err(_) => self.crash(at),
        }
    }

    fn send(&mut self, message: Message) {
        self.trace(|| format!("send {message:?}"));
        if !self.network.send(self.now, &message) {
            self.report_snapshot(&message, false);
        }
    }

    /// The sender of a snapshot hears what became of it.
    fn report_snapshot(&mut self, message: &Message, delivered: bool) {
        if message.get_msg_type() == MessageType::MsgSnapshot {
            self.nodes[place(message.from)].inbox.push(Input::SnapshotSent(MemberId(message.to), delivered));
        }
    }

    pub fn deliver(&mut self) {
        for message in self.network.arriving(self.now) {
            self.trace(|| format!("recv {message:?}"));
            // A member that was let in a moment ago has no process yet.
            let Some(to) = self.nodes.get(place(message.to)) else {
                self.report_snapshot(&message, false);
                continue;
            };
            let membership = to.running.as_ref().map(|running| running.replica.membership());
            if let Some(members) = membership.filter(|m| m.was_removed(MemberId(message.from))) {
                // Nobody talks with who is removed, but to say so.
                let removed = Input::Removed { by: MemberId(message.to), voters: members.voters() };
                self.nodes[place(message.from)].inbox.push(removed);
                continue;
            }
            let alive = to.running.is_some();
            self.report_snapshot(&message, alive);
            if alive {
                self.nodes[place(message.to)].inbox.push(Input::Message(message));
            }
        }
    }
}

fn brings_snapshot(input: &Input) -> bool {
    matches!(input, Input::Message(message) if message.get_msg_type() == MessageType::MsgSnapshot)
}
