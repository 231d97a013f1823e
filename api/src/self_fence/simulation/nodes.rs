//! What happens on the nodes, and what the server makes of their requests.

use std::time::Duration;

use super::{Answer, Bug, Event, NODES, Request, SECOND, Simulation};
use crate::self_fence::{Step, promise};

impl Simulation {
    /// One attempt at the Lease: a request on its way.
    pub(super) fn step(&mut self, node: usize) {
        let before = self.nodes[node].promised.filter(|_| self.bug != Bug::Shortens);
        let sent = self.nodes[node].clock(self.now);
        let agent = &mut self.nodes[node].agent;
        agent.attempt += 1;
        let request = match agent.tenure.next() {
            Step::Read => Request::Read,
            Step::EndPods => match agent.to_fail.take() {
                None => Request::List,
                Some((uid, newest)) => Request::Fail(uid, newest),
            },
            Step::Renew { version, mark } => {
                Request::Renew { version, mark, promise: promise(agent.lease, sent, before) }
            }
        };
        let attempt = agent.attempt;
        self.after(10 * SECOND, Event::Timeout(node, attempt));
        if !self.chance(10) {
            let delay = self.delay();
            self.after(delay, Event::Arrive(node, attempt, request));
        }
    }

    pub(super) fn arrived(&mut self, node: usize, attempt: u64, request: Request) {
        let answer = match request {
            Request::Read => Answer::Lease(self.server.leases[node].clone(), None),
            Request::Renew { version, mark, promise } => {
                match self.server.write(node, &version, mark, Some(promise.seconds)) {
                    true => {
                        self.tell_controller(node);
                        Answer::Lease(self.server.leases[node].clone(), mark.is_none().then_some(promise))
                    }
                    false => Answer::Refused,
                }
            }
            Request::List => {
                let pod = self.server.pod.as_ref().filter(|pod| pod.node == node);
                Answer::Listed(pod.map(|pod| pod.uid), self.uids)
            }
            Request::Fail(uid, newest) => {
                let pod = self.server.pod.as_mut().filter(|pod| pod.uid == uid);
                pod.into_iter().for_each(|pod| pod.failed = true);
                Answer::Failed(uid, newest)
            }
        };
        if !self.chance(10) {
            let delay = self.delay();
            self.after(delay, Event::Answer(node, attempt, answer));
        }
    }

    pub(super) fn answered(&mut self, node: usize, attempt: u64, answer: Answer) {
        let late = self.nodes[node].clock(self.now);
        let it = &mut self.nodes[node];
        if it.agent.attempt != attempt {
            return;
        }
        let mut pause = 0;
        match answer {
            Answer::Refused => it.agent.tenure.failed(),
            Answer::Listed(Some(uid), newest) if self.bug != Bug::ForgetsItsPods => {
                it.agent.to_fail = Some((uid, newest));
            }
            Answer::Listed(_, newest) | Answer::Failed(_, newest) => {
                if let Answer::Failed(uid, _) = answer {
                    it.refused.insert(uid);
                }
                if !matches!(self.bug, Bug::ForgetsItsPods | Bug::EndsListedOnly) {
                    it.end_up_to(newest);
                }
                it.agent.tenure.pods_ended();
                self.returned += 1;
            }
            Answer::Lease(lease, None) if it.agent.tenure.next() == Step::Read => {
                it.agent.tenure.read(&lease)
            }
            Answer::Lease(lease, promised) => {
                if it.agent.tenure.renewed(&lease) {
                    let until = promised.map(|promise| promise.until);
                    it.promised = match self.bug {
                        Bug::CountsFromAnswer => Some(late + it.agent.lease),
                        _ => until,
                    };
                    pause = 2 * SECOND;
                }
            }
        }
        self.nodes[node].agent.attempt += 1;
        self.after(pause, Event::Step(node));
    }

    pub(super) fn timed_out(&mut self, node: usize, attempt: u64) {
        let agent = &mut self.nodes[node].agent;
        if agent.attempt == attempt {
            agent.tenure.failed();
            self.after(SECOND / 2, Event::Step(node));
        }
    }

    pub(super) fn tend(&mut self, node: usize) {
        let it = &self.nodes[node];
        if let Some(uid) = it.wants(it.clock(self.now)) {
            let delay = self.random.below(SECOND / 2);
            self.after(delay, Event::Begin(node, uid));
            self.arm(node, uid);
        } else if let Some(uid) = it.stray() {
            self.nodes[node].end(uid);
        }
    }

    /// A supervisor sets its timer to the promise as it is.
    pub(super) fn arm(&mut self, node: usize, uid: u64) {
        let it = &self.nodes[node];
        let rings = it.true_time(it.promised.unwrap_or_default());
        self.at(rings.max(self.now), Event::Ring(node, uid));
    }

    pub(super) fn begin(&mut self, node: usize, uid: u64) {
        if self.nodes[node].running.is_some() {
            return;
        }
        let elsewhere = self.nodes.iter().position(|other| other.running.is_some());
        if let Some(other) = elsewhere {
            self.broken = Some(format!("{}: {uid} runs on {node}, and another on {other}", self.now));
        }
        self.nodes[node].running = Some(uid);
        // It may have missed its timer's moment.
        self.arm(node, uid);
    }

    pub(super) fn ring(&mut self, node: usize, uid: u64) {
        let it = &mut self.nodes[node];
        if it.running != Some(uid) {
            return;
        }
        if it.promised.is_some_and(|until| it.clock(self.now) < until) {
            return self.arm(node, uid);
        }
        it.refused.insert(uid);
        let delay = self.random.below(SECOND / 2);
        self.after(delay, Event::End(node, uid));
    }

    pub(super) fn fault(&mut self, node: usize) {
        match self.random.below(5) {
            0 => self.nodes[node].stopped_until = self.now + self.random.below(60 * SECOND),
            1 => self.restart_agent(node),
            2 => {
                self.nodes[node].reboot(self.now);
                self.restart_agent(node);
            }
            3 => self.nodes[node].running = None,
            _ => {}
        }
        let pause = self.random.below(60 * SECOND);
        self.after(pause, Event::Fault(node));
    }

    pub(super) fn restart_agent(&mut self, node: usize) {
        let lease = [4, 10, 40][self.random.below(3) as usize];
        let (away, delay) = (self.random.below(30 * SECOND), self.delay());
        let it = &mut self.nodes[node];
        it.agent = it.agent.next(Duration::from_secs(lease));
        it.stopped_until = self.now + away;
        let life = it.agent.life;
        self.after(away, Event::Step(node));
        self.after(away + delay, Event::List(node, life));
    }

    pub(super) fn list(&mut self, node: usize, life: u64) {
        let agent = &mut self.nodes[node].agent;
        if agent.life == life {
            agent.listing = true;
            self.tell_agent(node);
        }
    }

    /// What a watch tells comes in its order.
    pub(super) fn tell_agent(&mut self, node: usize) {
        let delay = self.delay();
        let agent = &mut self.nodes[node].agent;
        if agent.listing {
            agent.told = (self.now + delay).max(agent.told + 1);
            let (at, life) = (agent.told, agent.life);
            let pod = self.server.pod.clone().filter(|pod| pod.node == node);
            self.at(at, Event::Told(node, life, pod));
        }
    }

    pub(super) fn tell_agents(&mut self) {
        (0..NODES).for_each(|node| self.tell_agent(node));
    }
}
