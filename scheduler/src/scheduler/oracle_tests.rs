//! The scheduler against a slow, independent reading of the rules, on random clusters and histories.
//!
//! The oracle knows small model nodes and pods, not the scheduler's types. Checked after every step: a placed pod
//! went to a node that is feasible and scores best by the oracle's own reckoning; who is driven away is less
//! important, frees enough, and nobody leaves in vain or where it would hurt less elsewhere; reserved room is
//! respected; no node is overcommitted; and no pod stays parked that would fit somewhere or might drive others
//! away (the proof that the wake-up rules forget nothing). `PROPTEST_CASES=n` tries n clusters.

mod model;
mod world;

use self::model::{ModelPod, Step, node_object, pod_object, step};
use self::world::{View, World};
use super::{Effect, Event, Scheduler};
use crate::name::{NodeName, PodKey};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

struct History {
    scheduler: Scheduler,
    world: World,
    now: Instant,
    random: u64,
    incarnations: u64,
    /// Bindings the API server hasn't answered: pod, incarnation.
    unanswered: Vec<(u8, u64)>,
    /// Bindings it accepted that the watch hasn't shown.
    unseen: BTreeMap<u8, u64>,
    /// Who was asked to leave and is still there: pod, incarnation.
    leaving: Vec<(u8, u64)>,
    /// Where room is reserved, by pod.
    nominated: BTreeMap<u8, u8>,
    counts: Counts,
}

/// What was seen over all clusters.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    clusters: usize,
    placed: usize,
    refused: usize,
    evicted: usize,
}

impl History {
    fn new() -> Self {
        History {
            scheduler: Scheduler::new("default-scheduler"),
            world: World::default(),
            now: Instant::now(),
            random: 7,
            incarnations: 0,
            unanswered: Vec::new(),
            unseen: BTreeMap::new(),
            leaving: Vec::new(),
            nominated: BTreeMap::new(),
            counts: Counts { clusters: 1, ..Counts::default() },
        }
    }

    fn observe(&mut self, event: Event) {
        self.scheduler.observe(event, self.now);
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::SetNode(name, node) => {
                self.observe(Event::Node(node_object(name, &node)));
                self.world.nodes.insert(name, node);
            }
            Step::DropNode(name) => {
                self.world.nodes.remove(&name);
                self.nominated.retain(|_, on| *on != name);
                self.observe(Event::NodeGone(node_name(name)));
            }
            Step::AddPod(name, pod) => self.add_pod(name, pod),
            Step::DropPod(name) => self.drop_pod(name),
            Step::Leave(gone) => self.leave(gone),
            Step::Answer(accepted) => self.answer(accepted),
            Step::Show(name) => self.show(name),
        }
    }

    fn drop_pod(&mut self, name: u8) {
        self.world.pods.remove(&name);
        self.unseen.remove(&name);
        self.nominated.remove(&name);
        self.leaving.retain(|(one, _)| *one != name);
        self.observe(Event::PodGone(key(name)));
    }

    fn leave(&mut self, gone: bool) {
        if self.leaving.is_empty() {
            return;
        }
        let (name, incarnation) = self.leaving.remove(0);
        if gone {
            self.drop_pod(name);
        } else {
            self.observe(Event::NotEvicted(uid(name, incarnation)));
        }
    }

    fn add_pod(&mut self, name: u8, pod: ModelPod) {
        self.incarnations += 1;
        self.unseen.remove(&name);
        self.nominated.remove(&name);
        self.leaving.retain(|(one, _)| *one != name);
        self.observe(Event::Pod(pod_object(name, self.incarnations, &pod, None)));
        self.world.pods.insert(name, (self.incarnations, pod, None));
    }

    fn answer(&mut self, accepted: bool) {
        if self.unanswered.is_empty() {
            return;
        }
        let (name, incarnation) = self.unanswered.remove(0);
        if let Some((_, _, on)) = self.world.pods.get_mut(&name).filter(|(uid, ..)| *uid == incarnation) {
            if accepted {
                self.unseen.insert(name, incarnation);
            } else {
                *on = None;
            }
        }
        self.observe(Event::Bound { pod: key(name), uid: uid(name, incarnation), accepted });
    }

    fn show(&mut self, name: u8) {
        if self.unseen.remove(&name).is_some() {
            let (incarnation, pod, on) = self.world.pods[&name].clone();
            self.observe(Event::Pod(pod_object(name, incarnation, &pod, on)));
        }
    }

    /// Lets the scheduler decide, one pod at a time, until it has nothing left to do, whatever back-off
    /// that takes; each decision is checked against the world as it is then.
    fn settle(&mut self) {
        loop {
            let before = self.random;
            let random = &mut || before.wrapping_mul(6_364_136_223_846_793_005) >> 33;
            let effects = self.scheduler.schedule(1, self.now, random);
            self.random = before.wrapping_add(1);
            self.check_effects(effects);
            let (active, backoff, _) = self.scheduler.queue().lengths();
            match self.scheduler.next_wake() {
                _ if active > 0 => {}
                Some(wake) if backoff > 0 => self.now = self.now.max(wake),
                _ if self.scheduler.changes.is_empty() => return,
                _ => {}
            }
        }
    }

    fn check_effects(&mut self, effects: Vec<Effect>) {
        let (mut victims, mut reports) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Bind { pod, node, .. } => self.check_binding(number(&pod.name), number(&node.0)),
                Effect::Evict { pod, preemptor, node, .. } => {
                    victims.push((number(&pod.name), preemptor, number(&node.0)));
                }
                Effect::Report { pod, nominated, .. } => reports.push((number(&pod.name), nominated)),
            }
        }
        self.check_evictions(&victims);
        for (name, nominated) in reports {
            self.counts.refused += 1;
            match nominated {
                Some(node) => self.nominate(name, number(&node.0)),
                None => drop(self.nominated.remove(&name)),
            }
        }
    }

    /// Room is made there for the pod; the less important give up their reservation of it.
    fn nominate(&mut self, name: u8, node: u8) {
        let pods = &self.world.pods;
        let priority = pods[&name].1.priority;
        self.nominated.retain(|other, on| *on != node || pods[other].1.priority >= priority);
        self.nominated.insert(name, node);
    }

    /// The cluster as `name` must see it: room is reserved for pods of at least its priority.
    fn view(&self, name: u8) -> View {
        let priority = self.world.pods[&name].1.priority;
        let mut world = self.world.clone();
        for (other, on) in self.nominated.iter().filter(|(other, _)| **other != name) {
            let (_, pod, at) = self.world.pods[other].clone();
            if at.is_none() && pod.priority >= priority {
                world = world.with(*other, &pod, *on);
            }
        }
        View { reserved: world, bare: self.world.clone() }
    }

    fn check_binding(&mut self, name: u8, at: u8) {
        let (incarnation, model, on) = self.world.pods[&name].clone();
        assert_eq!(on, None, "p{name} is bound once");
        let view = self.view(name);
        let feasible = view.feasible(&model);
        assert!(feasible.contains(&at), "p{name} went to {at}, but only {feasible:?} are feasible");
        if let Some(nominated) = self.nominated.remove(&name).filter(|one| feasible.contains(one)) {
            assert_eq!(at, nominated, "p{name} goes where room was made for it");
        } else {
            let best = view.reserved.best(&model, &feasible);
            assert!(best.contains(&at), "p{name} went to {at}, but {best:?} are better of {feasible:?}");
        }
        self.world.pods.insert(name, (incarnation, model, Some(at)));
        self.unanswered.push((name, incarnation));
        self.counts.placed += 1;
    }

    fn check_evictions(&mut self, evictions: &[(u8, crate::name::PodUid, u8)]) {
        let Some((_, preemptor, at)) = evictions.first().cloned() else { return };
        let name = number(preemptor.0.split('-').next().expect("a name and a number"));
        let model = self.world.pods[&name].1.clone();
        let view = self.view(name);
        let mut victims: Vec<u8> = evictions.iter().map(|(victim, ..)| *victim).collect();
        assert_eq!(view.feasible(&model), BTreeSet::new(), "p{name} drives others away although it fits");
        let least = view.bare.nodes.keys().filter_map(|node| view.victims(&model, *node));
        let least = least.map(|all| self.world.harm(&all)).min();
        assert_eq!(
            Some(self.world.harm(&victims)),
            least,
            "p{name} at {at}: {victims:?} hurts more than needed"
        );
        let mut expected = view.victims(&model, at).expect("their leaving helps");
        victims.sort_unstable();
        expected.sort_unstable();
        assert_eq!(victims, expected, "p{name} at {at}");
        // A pod that had lost its room there, and whose status tells it still, isn't reported again.
        self.nominate(name, at);
        for victim in victims {
            self.leaving.push((victim, self.world.pods[&victim].0));
            self.counts.evicted += 1;
        }
    }

    fn check_parked(&mut self) {
        let waiting: Vec<u8> =
            self.world.pods.iter().filter(|(_, (_, _, on))| on.is_none()).map(|(name, _)| *name).collect();
        let parked: BTreeSet<u8> =
            self.scheduler.queue().parked().iter().map(|pod| number(&pod.key.name)).collect();
        assert_eq!(parked, waiting.iter().copied().collect(), "whoever waits is parked when all is quiet");
        for name in waiting {
            let (view, model) = (self.view(name), &self.world.pods[&name].1);
            let free = view.feasible(model);
            assert_eq!(free, BTreeSet::new(), "p{name} is parked although nodes would take it");
            // Whoever has a nomination waits for its victims.
            if !self.nominated.contains_key(&name) {
                let helps = self.world.nodes.keys().find(|node| view.victims(model, **node).is_some());
                assert_eq!(helps, None, "p{name} is parked although others could leave");
            }
            let explained = self.scheduler.explain(&key(name)).expect("a parked pod is known");
            assert_eq!(explained.len(), self.world.nodes.len());
            assert!(explained.iter().all(|node| !node.rejections.is_empty()), "each node says why not");
        }
    }
}

fn uid(name: u8, incarnation: u64) -> crate::name::PodUid {
    crate::name::PodUid(format!("p{name}-{incarnation}").into())
}

fn node_name(name: u8) -> NodeName {
    NodeName(format!("n{name}").into())
}

fn key(name: u8) -> PodKey {
    PodKey::new("default", &format!("p{name}"))
}

fn number(name: &str) -> u8 {
    name[1..].parse().expect("a letter and a number")
}

/// Prints how much was checked; `PROPTEST_CASES=10000` for more.
#[test]
fn every_decision_is_the_oracles_and_nobody_is_forgotten() {
    let cases = ProptestConfig::default().cases.max(400);
    let mut runner =
        TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let total = std::cell::Cell::new(Counts::default());
    let tried = runner.run(&prop::collection::vec(step(), 1..60), |steps| {
        let mut history = History::new();
        for step in steps {
            history.perform(step);
            history.settle();
            history.check_parked();
        }
        let (sum, one) = (total.get(), history.counts);
        total.set(Counts {
            clusters: sum.clusters + one.clusters,
            placed: sum.placed + one.placed,
            refused: sum.refused + one.refused,
            evicted: sum.evicted + one.evicted,
        });
        Ok(())
    });
    tried.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{:?}", total.get());
}
