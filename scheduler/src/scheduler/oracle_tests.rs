//! The scheduler against a slow, independent reading of the rules, on random clusters and histories.
//!
//! The oracle knows small model nodes and pods, not the scheduler's types. Checked after every step: a placed pod
//! went to a node that is feasible and scores best by the oracle's own reckoning; who is driven away is less
//! important, frees enough, and nobody leaves in vain or where it would hurt less elsewhere; reserved room is
//! respected; no node is overcommitted; and no pod stays parked that would fit somewhere or might drive others
//! away (the proof that the wake-up rules forget nothing). `PROPTEST_CASES=n` tries n clusters.

mod checks;
mod model;
mod objects;
mod storage;
mod world;

use self::model::{ModelBudget, ModelPod, Step, step};
use self::objects::{budget_object, node_object, pod_object};
use self::storage::{ModelFate, StorageStep};
use self::world::World;
use super::{Event, Scheduler};
use crate::name::{NodeName, PodKey};
use crate::namespace::NamespaceInfo;
use crate::plugins::Plugin;
use crate::profile::{Profile, Profiles, Strategy as Scoring};
use crate::queue::Backoff;
use crate::storage::StorageEvent;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;
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
    /// With upstream's profile, or one that fills nodes.
    fn new(packs: bool) -> Self {
        let profile = if packs { packing() } else { Profile::default() };
        let profiles = Profiles::new([("default-scheduler".into(), profile)]);
        let mut history = History {
            scheduler: Scheduler::with(profiles, Backoff::default()),
            world: World { packs, ..World::default() },
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
                self.observe(Event::Budget(budget_object(name, budget)));
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
}

fn packing() -> Profile {
    let mut profile = Profile::default();
    profile.scoring.strategy = Scoring::MostAllocated;
    profile.weights.remove(&Plugin::NodeResourcesBalancedAllocation);
    profile.weights.extend([(Plugin::NodeResourcesFit, 5), (Plugin::ImageLocality, 3)]);
    profile
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
    let histories = (prop::bool::weighted(0.2), prop::collection::vec(step(), 1..60));
    let tried = runner.run(&histories, |(packs, steps)| {
        let mut history = History::new(packs);
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
