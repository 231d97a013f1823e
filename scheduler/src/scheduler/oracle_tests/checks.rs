//! What must hold of every decision, and of whoever is left waiting when all is quiet.

use super::storage;
use super::world::View;
use super::{History, Prepared, key, number};
use crate::scheduler::Effect;
use std::collections::BTreeSet;

impl History {
    pub(super) fn check_effects(&mut self, effects: Vec<Effect>) {
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
    pub(super) fn check_given_up(&mut self, effects: &[Effect]) {
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
    pub(super) fn check_preparing(&mut self) {
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

    pub(super) fn check_parked(&mut self) {
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
