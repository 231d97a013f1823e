//! Two schedulers of one cluster, each with pods of its own and its own delay: under random interleavings no node is
//! overcommitted when the API server refuses bindings that don't know of another's, everybody who fits gets a node in
//! the end, and without that rule nodes are overcommitted (so that the test would notice).

use super::{Effect, Event, Scheduler};
use crate::name::PodKey;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Instant;

const NAMES: [&str; 2] = ["first", "second"];
const NODES: usize = 3;
const CPU: i64 = 4;

#[derive(Clone, Debug)]
enum Step {
    /// A pod of this scheduler's that asks for so much.
    Create(usize, i64),
    Delete(usize),
    /// The scheduler hears of the next change.
    Hear(usize),
    Decide(usize),
    /// Its oldest binding reaches the API server.
    Arrive(usize),
}

/// A pod as the API server has it.
#[derive(Clone, Debug)]
struct Pod {
    number: usize,
    of: usize,
    cpu: i64,
    node: Option<usize>,
    gone: bool,
}

/// A binding under way, with the last change that its scheduler had heard of.
struct Binding {
    pod: usize,
    node: usize,
    seen: usize,
}

struct Cluster {
    judged: bool,
    pods: Vec<Pod>,
    /// Every state of every pod, in order: the watch.
    log: Vec<Pod>,
    /// By node: at which change somebody bound last, and who.
    rooms: BTreeMap<usize, (usize, usize)>,
    schedulers: [(Scheduler, usize, Vec<Binding>); 2],
    now: Instant,
    refused: usize,
}

impl Cluster {
    fn new(judged: bool) -> Self {
        let now = Instant::now();
        let scheduler = |name: &str| {
            let mut scheduler = Scheduler::new(name);
            (0..NODES).for_each(|number| scheduler.observe(Event::Node(node(number)), now));
            (scheduler, 0, Vec::new())
        };
        let (pods, log, rooms) = (Vec::new(), Vec::new(), BTreeMap::new());
        Cluster { judged, pods, log, rooms, schedulers: NAMES.map(scheduler), now, refused: 0 }
    }

    fn perform(&mut self, step: &Step) {
        match *step {
            Step::Create(of, cpu) => {
                let number = self.pods.len();
                self.write(Pod { number, of, cpu, node: None, gone: false });
            }
            Step::Delete(number) => {
                let known = self.pods.get(number).filter(|pod| !pod.gone).cloned();
                known.into_iter().for_each(|pod| self.write(Pod { gone: true, ..pod }));
            }
            Step::Hear(who) => self.hear(who),
            Step::Decide(who) => self.decide(who),
            Step::Arrive(who) => self.arrive(who),
        }
    }

    fn write(&mut self, pod: Pod) {
        self.log.push(pod.clone());
        match self.pods.get_mut(pod.number) {
            Some(known) => *known = pod,
            None => self.pods.push(pod),
        }
    }

    fn hear(&mut self, who: usize) {
        let (scheduler, heard, _) = &mut self.schedulers[who];
        let Some(pod) = self.log.get(*heard) else { return };
        *heard += 1;
        let event = if pod.gone { Event::PodGone(key(pod.number)) } else { Event::Pod(info(pod)) };
        scheduler.observe(event, self.now);
    }

    fn decide(&mut self, who: usize) {
        let (scheduler, heard, bindings) = &mut self.schedulers[who];
        for effect in scheduler.schedule(1, self.now, &mut || 0) {
            if let Effect::Bind { pod, node, .. } = effect {
                bindings.push(Binding { pod: number(&pod.name), node: number(&node.0), seen: *heard });
            }
        }
    }

    /// The API server's part: the pod must be there and free, and nobody else's binding may be unknown.
    fn arrive(&mut self, who: usize) {
        let bindings = &mut self.schedulers[who].2;
        if bindings.is_empty() {
            return;
        }
        let Binding { pod, node, seen } = bindings.remove(0);
        let known = self.pods[pod].clone();
        let unknown = |(at, by): &(usize, usize)| *by != who && *at > seen;
        let refused = self.judged && self.rooms.get(&node).is_some_and(unknown);
        let accepted = !known.gone && known.node.is_none() && !refused;
        self.refused += usize::from(refused);
        if accepted {
            self.write(Pod { node: Some(node), ..known.clone() });
            self.rooms.insert(node, (self.log.len(), who));
        }
        let event = Event::Bound { pod: key(pod), uid: info(&known).uid, accepted };
        self.schedulers[who].0.observe(event, self.now);
    }

    fn used(&self, node: usize) -> i64 {
        let here = self.pods.iter().filter(|pod| !pod.gone && pod.node == Some(node));
        here.map(|pod| pod.cpu).sum()
    }

    fn is_overcommitted(&self) -> bool {
        (0..NODES).any(|node| self.used(node) > CPU)
    }

    /// Everything arrives, until nobody has anything left to do.
    fn settle(&mut self) {
        loop {
            let before = (self.log.len(), self.schedulers.each_ref().map(|one| (one.1, one.2.len())));
            for who in 0..NAMES.len() {
                while self.schedulers[who].1 < self.log.len() {
                    self.hear(who);
                }
                self.decide(who);
                self.arrive(who);
            }
            let wakes = self.schedulers.iter().filter_map(|(scheduler, ..)| scheduler.next_wake()).min();
            let after = (self.log.len(), self.schedulers.each_ref().map(|one| (one.1, one.2.len())));
            let active = self.schedulers.iter().any(|(scheduler, ..)| scheduler.queue().lengths().0 > 0);
            match wakes {
                _ if before != after || active => {}
                Some(wake) => self.now = self.now.max(wake),
                None => return,
            }
        }
    }
}

fn node(number: usize) -> NodeInfo {
    let object = json!({
        "metadata": {"name": format!("n{number}")},
        "status": {"allocatable": {"cpu": CPU.to_string(), "memory": "64Gi", "pods": "110"}},
    });
    NodeInfo::of(&serde_json::from_value(object).expect("a node"))
}

fn info(pod: &Pod) -> PodInfo {
    let name = format!("p{}", pod.number);
    let mut object = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"schedulerName": NAMES[pod.of],
            "containers": [{"name": "c", "resources": {"requests": {"cpu": pod.cpu.to_string()}}}]},
    });
    if let Some(node) = pod.node {
        object["spec"]["nodeName"] = json!(format!("n{node}"));
    }
    PodInfo::of(&serde_json::from_value(object).expect("a pod"))
}

fn key(number: usize) -> PodKey {
    PodKey::new("default", &format!("p{number}"))
}

fn number(name: &str) -> usize {
    name[1..].parse().expect("a letter and a number")
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..NAMES.len();
    prop_oneof![
        4 => (who(), 1..4i64).prop_map(|(of, cpu)| Step::Create(of, cpu)),
        1 => (0..20usize).prop_map(Step::Delete),
        6 => who().prop_map(Step::Hear),
        4 => who().prop_map(Step::Decide),
        4 => who().prop_map(Step::Arrive),
    ]
}

/// Prints what was seen; `PROPTEST_CASES=n` tries n interleavings.
#[test]
fn two_schedulers_never_overcommit_a_node_that_they_share() {
    let cases = ProptestConfig::default().cases.max(400);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let (refused, unjudged) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let tried = runner.run(&prop::collection::vec(step(), 1..120), |steps| {
        let mut cluster = Cluster::new(true);
        let mut lawless = Cluster::new(false);
        for step in &steps {
            cluster.perform(step);
            prop_assert!(!cluster.is_overcommitted(), "{:?}", cluster.pods);
            lawless.perform(step);
        }
        unjudged.set(unjudged.get() + usize::from(lawless.is_overcommitted()));
        cluster.settle();
        prop_assert!(!cluster.is_overcommitted());
        for pod in cluster.pods.iter().filter(|pod| !pod.gone && pod.node.is_none()) {
            let fits = (0..NODES).find(|node| cluster.used(*node) + pod.cpu <= CPU);
            prop_assert_eq!(fits, None, "{:?} waits although there is room", pod);
        }
        refused.set(refused.get() + cluster.refused);
        Ok(())
    });
    tried.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{cases} interleavings, {} refused, {} overcommitted without", refused.get(), unjudged.get());
    assert!(refused.get() > 0 && unjudged.get() > 0, "the rule was needed");
}
