//! The scheduler against a slow, independent reading of the rules, on random clusters and histories.
//!
//! The oracle knows small model nodes and pods, not the scheduler's types. Checked after every step: a placed pod
//! went to a node that is feasible and scores best by the oracle's own reckoning; who is driven away is less
//! important, frees enough, and nobody leaves in vain or where it would hurt less elsewhere; reserved room is
//! respected; no node is overcommitted; and no pod stays parked that would fit somewhere or might drive others
//! away (the proof that the wake-up rules forget nothing). `PROPTEST_CASES=n` tries n clusters.

mod model;
mod storage;
mod world;

use self::model::{ModelBudget, ModelPod, Step, node_object, pod_object, step};
use self::storage::{ModelFate, StorageStep};
use self::world::{View, World};
use super::{Effect, Event, Scheduler};
use crate::name::{NodeName, PodKey};
use crate::namespace::NamespaceInfo;
use crate::storage::StorageEvent;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
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
    /// Pods whose claims aren't bound yet.
    preparing: BTreeMap<u8, Prepared>,
    /// Writes for claims that the API server hasn't answered: pod, incarnation.
    writing: Vec<(u8, u64)>,
    counts: Counts,
}

/// A pod on its way: where to, what becomes of its claims, and whether that is written.
#[derive(Clone, Debug)]
struct Prepared {
    at: u8,
    fates: Vec<(u8, ModelFate)>,
    written: bool,
}

/// What was seen over all clusters.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    clusters: usize,
    placed: usize,
    refused: usize,
    evicted: usize,
    /// Of those, how many in spite of a budget.
    broken: usize,
    prepared: usize,
}

impl History {
    fn new() -> Self {
        let mut history = History {
            scheduler: Scheduler::new("default-scheduler"),
            world: World::default(),
            now: Instant::now(),
            random: 7,
            incarnations: 0,
            unanswered: Vec::new(),
            unseen: BTreeMap::new(),
            leaving: Vec::new(),
            nominated: BTreeMap::new(),
            preparing: BTreeMap::new(),
            writing: Vec::new(),
            counts: Counts { clusters: 1, ..Counts::default() },
        };
        storage::classes().for_each(|class| history.observe(Event::Storage(class)));
        history
    }

    fn observe(&mut self, event: Event) {
        self.scheduler.observe(event, self.now);
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::SetNode(name, node) => {
                self.observe(Event::Node(node_object(name, &node)));
                self.observe(Event::Storage(storage::limits(name, node.limit)));
                self.world.nodes.insert(name, node);
            }
            Step::DropNode(name) => {
                self.world.nodes.remove(&name);
                self.nominated.retain(|_, on| *on != name);
                self.observe(Event::NodeGone(node_name(name)));
            }
            Step::AddPod(name, pod) => self.add_pod(name, pod),
            Step::DropPod(name) => self.drop_pod(name),
            Step::SetNamespace(number, team) => self.set_namespace(number, team),
            Step::SetBudget(name, budget) => self.set_budget(name, budget),
            Step::Leave(gone) => self.leave(gone),
            Step::Answer(accepted) => self.answer(accepted),
            Step::Show(name) => self.show(name),
            Step::Storage(step) => self.store(step),
            Step::Written(accepted) => self.written(accepted),
            Step::Bind => self.bind_claims(),
        }
    }

    fn set_budget(&mut self, name: u8, budget: Option<ModelBudget>) {
        let key = PodKey::new(&model::namespace_name(0), &format!("b{name}"));
        match budget {
            Some(budget) => {
                self.world.budgets.insert(name, budget);
                self.observe(Event::Budget(model::budget_object(name, budget)));
            }
            None => {
                self.world.budgets.remove(&name);
                self.observe(Event::BudgetGone(key));
            }
        }
    }

    fn set_namespace(&mut self, number: u8, team: Option<u8>) {
        let name = model::namespace_name(number);
        let Some(team) = team else {
            self.world.teams.remove(&number);
            return self.observe(Event::NamespaceGone(name.as_str().into()));
        };
        self.world.teams.insert(number, team);
        let labels = [("team".to_owned(), team.to_string())].into();
        self.observe(Event::Namespace(NamespaceInfo { name: name.as_str().into(), labels }));
    }

    fn store(&mut self, step: StorageStep) {
        self.observe(Event::Storage(match &step {
            StorageStep::SetClaim(name, claim) => storage::claim_event(*name, claim),
            StorageStep::DropClaim(name) => StorageEvent::ClaimGone(storage::claim_key(*name)),
            StorageStep::SetVolume(name, volume) => storage::volume_event(*name, volume),
            StorageStep::DropVolume(name) => StorageEvent::VolumeGone(storage::volume_name(*name)),
        }));
        match step {
            StorageStep::SetClaim(name, claim) => drop(self.world.claims.insert(name, claim)),
            StorageStep::DropClaim(name) => drop(self.world.claims.remove(&name)),
            StorageStep::SetVolume(name, volume) => drop(self.world.volumes.insert(name, volume)),
            StorageStep::DropVolume(name) => drop(self.world.volumes.remove(&name)),
        }
    }

    fn written(&mut self, accepted: bool) {
        if self.writing.is_empty() {
            return;
        }
        let (name, incarnation) = self.writing.remove(0);
        self.observe(Event::Prepared { pod: key(name), uid: uid(name, incarnation), accepted });
        let is_present = self.world.pods.get(&name).is_some_and(|(uid, ..)| *uid == incarnation);
        let Some(prepared) = self.preparing.get_mut(&name).filter(|_| is_present) else { return };
        if !accepted {
            return self.give_up(name);
        }
        prepared.written = true;
        for (claim, fate) in prepared.fates.clone() {
            if let (ModelFate::Node(node), Some(known)) = (fate, self.world.claims.get(&claim)) {
                let selected = storage::ModelClaim { selected: Some(node), ..known.clone() };
                self.store(StorageStep::SetClaim(claim, selected));
            }
        }
    }

    /// The first pod whose choice is written gets its claims bound as chosen.
    fn bind_claims(&mut self) {
        let written = self.preparing.values().find(|one| one.written).cloned();
        for (claim, fate) in written.map(|one| one.fates).unwrap_or_default() {
            let Some(known) = self.world.claims.get(&claim).filter(|claim| claim.bound.is_none()).cloned()
            else {
                continue;
            };
            let (number, volume) = match fate {
                ModelFate::Node(node) => storage::made(claim, known.size, node),
                ModelFate::Volume(number) => match self.world.volumes.get(&number).cloned() {
                    Some(volume) => (number, storage::ModelVolume { of: Some(claim), ..volume }),
                    None => continue,
                },
            };
            self.store(StorageStep::SetVolume(number, volume));
            self.store(StorageStep::SetClaim(claim, storage::ModelClaim { bound: Some(number), ..known }));
        }
    }

    /// Nothing is meant to become of the pod's claims any more.
    fn end_preparing(&mut self, name: u8) -> Option<Prepared> {
        let prepared = self.preparing.remove(&name)?;
        for (claim, _) in &prepared.fates {
            if let Some((_, pods)) = self.world.intents.get_mut(claim) {
                pods.remove(&name);
            }
        }
        self.world.intents.retain(|_, (_, pods)| !pods.is_empty());
        Some(prepared)
    }

    fn give_up(&mut self, name: u8) {
        self.end_preparing(name);
        if let Some((_, _, on)) = self.world.pods.get_mut(&name) {
            *on = None;
        }
    }

    fn drop_pod(&mut self, name: u8) {
        self.end_preparing(name);
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
        self.end_preparing(name);
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
        for round in 0.. {
            assert!(round < MOST_ROUNDS, "the scheduler comes to an end with what it has");
            let before = self.random;
            let random = &mut || before.wrapping_mul(6_364_136_223_846_793_005) >> 33;
            let effects = self.scheduler.schedule(1, self.now, random);
            self.random = before.wrapping_add(1);
            self.check_given_up(&effects);
            self.check_effects(effects);
            self.check_preparing();
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
                Effect::Prepare { pod, claims, .. } => {
                    let name = number(&pod.name);
                    assert!(!claims.is_empty(), "a write that writes nothing");
                    self.writing.push((name, self.world.pods[&name].0));
                }
                Effect::ReportGroup { .. } => unreachable!("there are no groups"),
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

    /// Pods that aren't on their way any more, and weren't bound, are tried anew.
    fn check_given_up(&mut self, effects: &[Effect]) {
        let bound = |name: u8| {
            effects.iter().any(|effect| matches!(effect, Effect::Bind { pod, .. } if *pod == key(name)))
        };
        let known = &self.scheduler.preparing;
        let ended = self.preparing.keys().filter(|name| !known.contains_key(&key(**name)) && !bound(**name));
        for name in ended.copied().collect::<Vec<u8>>() {
            let at = self.preparing[&name].at;
            let overfull = self.world.is_overfull(&self.world.pods[&name].1, at);
            assert!(overfull || !self.is_prepared(name), "p{name} is given up although its claims are bound");
            self.give_up(name);
        }
    }

    /// Whether the claims of a pod on its way are bound to volumes that its node reaches.
    fn is_prepared(&self, name: u8) -> bool {
        let Prepared { at, fates, written } = &self.preparing[&name];
        let host = |volume: u8| {
            let volume = self.world.volumes.get(&volume);
            volume.is_some_and(|one| one.hosts.as_ref().is_none_or(|hosts| hosts.contains(at)))
        };
        let is_bound =
            |claim: &u8| self.world.claims.get(claim).and_then(|claim| claim.bound).is_some_and(host);
        *written && self.world.nodes.contains_key(at) && fates.iter().all(|(claim, _)| is_bound(claim))
    }

    /// Pods that are on their way now: their node is the right one, and so is what becomes of their claims.
    fn check_preparing(&mut self) {
        let new = self.scheduler.preparing.iter().map(|(pod, one)| {
            let fates =
                one.claims.iter().map(|one| (number(&one.claim.name), storage::model_fate(&one.fate)));
            let prepared = Prepared { at: number(&one.node.0), fates: fates.collect(), written: one.written };
            (number(&pod.name), prepared)
        });
        let new: Vec<_> = new.filter(|(name, _)| !self.preparing.contains_key(name)).collect();
        for (name, prepared) in new {
            let model = self.world.pods[&name].1.clone();
            assert_eq!(self.world.fates(&model, prepared.at), Some(prepared.fates.clone()), "p{name}");
            self.check_choice(name, prepared.at);
            for (claim, fate) in &prepared.fates {
                let intent = self.world.intents.entry(*claim).or_insert((*fate, BTreeSet::new()));
                assert_eq!(intent.0, *fate, "a claim has one fate");
                intent.1.insert(name);
            }
            self.preparing.insert(name, prepared);
            self.counts.prepared += 1;
        }
        for name in self.preparing.keys() {
            assert!(!self.is_prepared(*name), "p{name} isn't bound although its claims are");
        }
    }

    fn check_binding(&mut self, name: u8, at: u8) {
        if self.preparing.contains_key(&name) {
            assert!(self.is_prepared(name), "p{name} is bound before its claims");
            let prepared = self.end_preparing(name).expect("it is on its way");
            assert_eq!(prepared.at, at, "p{name} goes where its volumes are");
        } else {
            let model = &self.world.pods[&name].1;
            assert_eq!(self.world.fates(model, at), Some(Vec::new()), "p{name} has claims that wait");
            self.check_choice(name, at);
        }
        self.unanswered.push((name, self.world.pods[&name].0));
        self.counts.placed += 1;
    }

    /// The pod goes to the best node that is right for it, or where room is reserved for it.
    fn check_choice(&mut self, name: u8, at: u8) {
        let (incarnation, model, on) = self.world.pods[&name].clone();
        assert_eq!(on, None, "p{name} is placed once");
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
    }

    fn check_evictions(&mut self, evictions: &[(u8, crate::name::PodUid, u8)]) {
        let Some((_, preemptor, at)) = evictions.first().cloned() else { return };
        let name = number(preemptor.0.split('-').next().expect("a name and a number"));
        let model = self.world.pods[&name].1.clone();
        let view = self.view(name);
        let mut victims: Vec<u8> = evictions.iter().map(|(victim, ..)| *victim).collect();
        assert_eq!(view.feasible(&model), BTreeSet::new(), "p{name} drives others away although it fits");
        let least = view.bare.nodes.keys().filter_map(|node| view.victims(&model, *node));
        let least = least.map(|(broken, all)| self.world.harm(broken, &all)).min();
        let (broken, mut expected) = view.victims(&model, at).expect("their leaving helps");
        let harm = self.world.harm(broken, &victims);
        assert_eq!(Some(harm), least, "p{name} at {at}: {victims:?} hurts more than needed");
        self.counts.broken += broken;
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

/// Decisions after which nothing that happens is news any more.
const MOST_ROUNDS: usize = 5000;

fn uid(name: u8, incarnation: u64) -> crate::name::PodUid {
    crate::name::PodUid(format!("p{name}-{incarnation}").into())
}

fn node_name(name: u8) -> NodeName {
    NodeName(format!("n{name}").into())
}

fn key(name: u8) -> PodKey {
    PodKey::new(&model::namespace_name(model::namespace(name)), &format!("p{name}"))
}

fn number(name: &str) -> u8 {
    name[1..].parse().expect("a letter and a number")
}

/// Prints how much was checked. The same clusters each time; `PROPTEST_CASES=10000` for other ones, and more.
#[test]
fn every_decision_is_the_oracles_and_nobody_is_forgotten() {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(
            ProptestConfig { cases: 400, ..config },
            TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        ),
    };
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
            broken: sum.broken + one.broken,
            prepared: sum.prepared + one.prepared,
        });
        Ok(())
    });
    tried.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{:?}", total.get());
}
