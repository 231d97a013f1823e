//! The scheduler against a slow, independent reading of the rules, on random clusters and histories.
//!
//! The oracle knows small model nodes and pods, not the scheduler's types. Checked after every step: a placed pod
//! went to a node that is feasible and scores best by the oracle's own reckoning; who is driven away is less
//! important, frees enough, and nobody leaves in vain or where it would hurt less elsewhere; reserved room is
//! respected; no node is overcommitted; and no pod stays parked that would fit somewhere or might drive others
//! away (the proof that the wake-up rules forget nothing). `PROPTEST_CASES=n` tries n clusters.

use super::{Effect, Event, Scheduler};
use crate::name::{NodeName, PodKey};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

#[derive(Clone, Debug)]
struct ModelNode {
    zone: Option<u8>,
    disk: u8,
    /// Value of taint `t` and whether its effect is NoSchedule, PreferNoSchedule or NoExecute (0, 1, 2).
    taint: Option<(u8, u8)>,
    cordoned: bool,
    cpu: i64,
    gpu: i64,
    pods: i64,
}

#[derive(Clone, Debug)]
struct ModelPod {
    app: u8,
    cpu: i64,
    gpu: i64,
    disk: Option<u8>,
    /// Required affinity: zone is (or isn't) one of these.
    zones: Option<(bool, Vec<u8>)>,
    /// Value of taint `t` that is tolerated; 9 tolerates every taint.
    tolerates: Option<u8>,
    /// Address (0 is every), UDP?, port.
    port: Option<(u8, bool, u8)>,
    spread: Option<ModelSpread>,
    /// Must be near (apart from) pods of this app: by zone or by host, app.
    near: Option<(bool, u8)>,
    apart: Option<(bool, u8)>,
    priority: i32,
}

#[derive(Clone, Debug)]
struct ModelSpread {
    by_zone: bool,
    skew: i64,
    min_domains: i64,
    app: u8,
    honor_affinity: bool,
    honor_taints: bool,
}

#[derive(Clone, Debug)]
enum Step {
    SetNode(u8, ModelNode),
    DropNode(u8),
    AddPod(u8, ModelPod),
    DropPod(u8),
    /// The API server answers the oldest binding.
    Answer(bool),
    /// The watch shows a bound pod on its node.
    Show(u8),
    /// The pod that was asked first to leave is gone, or (false) refuses to.
    Leave(bool),
}

// ---- generation

fn model_node() -> impl Strategy<Value = ModelNode> {
    let taint = prop_oneof![3 => Just(None), 1 => (0..2u8, 0..3u8).prop_map(Some)];
    let zone = prop_oneof![1 => Just(None), 4 => (0..3u8).prop_map(Some)];
    (zone, 0..2u8, taint, prop::bool::weighted(0.1), 0..5i64, 0..3i64, 1..6i64).prop_map(
        |(zone, disk, taint, cordoned, cpu, gpu, pods)| ModelNode {
            zone,
            disk,
            taint,
            cordoned,
            cpu: cpu * 1000,
            gpu,
            pods,
        },
    )
}

fn model_spread() -> impl Strategy<Value = ModelSpread> {
    (any::<bool>(), 1..3i64, 1..4i64, 0..2u8, any::<bool>(), any::<bool>()).prop_map(
        |(by_zone, skew, min_domains, app, honor_affinity, honor_taints)| ModelSpread {
            by_zone,
            skew,
            min_domains,
            app,
            honor_affinity,
            honor_taints,
        },
    )
}

fn others() -> impl Strategy<Value = Option<(bool, u8)>> {
    prop::option::weighted(0.2, (any::<bool>(), 0..2u8))
}

fn model_pod() -> impl Strategy<Value = ModelPod> {
    let zones = (any::<bool>(), prop::collection::vec(0..3u8, 1..3));
    let rare = |probability| prop::option::weighted(probability, 0..2u8);
    let tolerates = prop_oneof![2 => Just(None), 1 => (0..2u8).prop_map(Some), 1 => Just(Some(9))];
    let port = prop::option::weighted(0.2, (0..3u8, any::<bool>(), 1..3u8));
    (
        (0..2u8, 0..7i64, prop_oneof![4 => Just(0), 1 => 1..3i64]),
        (rare(0.2), prop::option::weighted(0.2, zones), tolerates, port),
        (prop::option::weighted(0.3, model_spread()), others(), others(), 0..2i32),
    )
        .prop_map(
            |((app, cpu, gpu), (disk, zones, tolerates, port), (spread, near, apart, priority))| ModelPod {
                app,
                cpu: cpu * 250,
                gpu,
                disk,
                zones,
                tolerates,
                port,
                spread,
                near,
                apart,
                priority,
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..5u8, model_node()).prop_map(|(name, node)| Step::SetNode(name, node)),
        1 => (0..5u8).prop_map(Step::DropNode),
        6 => (0..12u8, model_pod()).prop_map(|(name, pod)| Step::AddPod(name, pod)),
        3 => (0..12u8).prop_map(Step::DropPod),
        4 => prop::bool::weighted(0.8).prop_map(Step::Answer),
        3 => (0..12u8).prop_map(Step::Show),
        3 => prop::bool::weighted(0.9).prop_map(Step::Leave),
    ]
}

// ---- the models as API objects

fn node_object(name: u8, node: &ModelNode) -> NodeInfo {
    let mut labels = json!({"kubernetes.io/hostname": format!("n{name}"), "disk": node.disk.to_string()});
    if let Some(zone) = node.zone {
        labels["zone"] = json!(zone.to_string());
    }
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let taint = |(value, effect): (u8, u8)| json!({"key": "t", "value": value.to_string(), "effect": effects[usize::from(effect)]});
    let object = json!({
        "metadata": {"name": format!("n{name}"), "labels": labels},
        "spec": {"unschedulable": node.cordoned, "taints": node.taint.map(taint).into_iter().collect::<Vec<_>>()},
        "status": {"allocatable": {
            "cpu": format!("{}m", node.cpu), "memory": "64Gi", "example.com/gpu": node.gpu.to_string(),
            "pods": node.pods.to_string(),
        }},
    });
    NodeInfo::of(&serde_json::from_value(object).expect("a node"))
}

fn pod_object(name: u8, incarnation: u64, pod: &ModelPod, node: Option<u8>) -> PodInfo {
    let mut spec = json!({
        "priority": pod.priority,
        "containers": [{"name": "c", "resources": {"requests": {
            "cpu": format!("{}m", pod.cpu), "example.com/gpu": pod.gpu.to_string(),
        }}}],
    });
    if let Some(disk) = pod.disk {
        spec["nodeSelector"] = json!({"disk": disk.to_string()});
    }
    if let Some((is_in, zones)) = &pod.zones {
        let zones: Vec<String> = zones.iter().map(u8::to_string).collect();
        let operator = if *is_in { "In" } else { "NotIn" };
        spec["affinity"]["nodeAffinity"] = json!({"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": operator, "values": zones}]}],
        }});
    }
    if let Some(value) = pod.tolerates {
        let all = json!({"operator": "Exists"});
        let one = json!({"key": "t", "value": value.to_string()});
        spec["tolerations"] = json!([if value == 9 { all } else { one }]);
    }
    if let Some((address, udp, port)) = pod.port {
        let address = if address == 0 { String::new() } else { format!("127.0.0.{address}") };
        spec["containers"][0]["ports"] = json!([{
            "containerPort": 1, "hostPort": port, "hostIP": address, "protocol": if udp { "UDP" } else { "TCP" },
        }]);
    }
    if let Some(rule) = &pod.spread {
        spec["topologySpreadConstraints"] = json!([spread_object(rule)]);
    }
    for (kind, rule) in [("podAffinity", pod.near), ("podAntiAffinity", pod.apart)] {
        if let Some((by_zone, app)) = rule {
            spec["affinity"][kind] = json!({"requiredDuringSchedulingIgnoredDuringExecution": [{
                "topologyKey": topology_key(by_zone), "labelSelector": {"matchLabels": {"app": app.to_string()}},
            }]});
        }
    }
    if let Some(node) = node {
        spec["nodeName"] = json!(format!("n{node}"));
    }
    let metadata = json!({
        "name": format!("p{name}"), "namespace": "default", "uid": format!("p{name}-{incarnation}"),
        "labels": {"app": pod.app.to_string()},
    });
    PodInfo::of(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod"))
}

fn topology_key(by_zone: bool) -> &'static str {
    if by_zone { "zone" } else { "kubernetes.io/hostname" }
}

fn spread_object(rule: &ModelSpread) -> Value {
    let policy = |honor: bool| if honor { "Honor" } else { "Ignore" };
    json!({
        "topologyKey": topology_key(rule.by_zone),
        "maxSkew": rule.skew, "minDomains": rule.min_domains, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": rule.app.to_string()}},
        "nodeAffinityPolicy": policy(rule.honor_affinity), "nodeTaintsPolicy": policy(rule.honor_taints),
    })
}

// ---- the oracle

/// The true cluster: nodes, and pods with the node they weigh on.
#[derive(Clone, Debug, Default)]
struct World {
    nodes: BTreeMap<u8, ModelNode>,
    pods: BTreeMap<u8, (u64, ModelPod, Option<u8>)>,
}

impl World {
    fn on(&self, node: u8) -> impl Iterator<Item = &ModelPod> {
        self.pods.values().filter(move |(_, _, on)| *on == Some(node)).map(|(_, pod, _)| pod)
    }

    /// The same cluster with one more pod on a node.
    fn with(&self, name: u8, pod: &ModelPod, on: u8) -> World {
        let mut world = self.clone();
        world.pods.insert(name, (0, pod.clone(), Some(on)));
        world
    }

    fn without(&self, names: &[u8]) -> World {
        let mut world = self.clone();
        world.pods.retain(|name, _| !names.contains(name));
        world
    }

    /// How much it hurts if these leave: highest priority, sum of priorities, number.
    fn harm(&self, victims: &[u8]) -> (i64, i64, usize) {
        let priorities = || victims.iter().map(|name| i64::from(self.pods[name].1.priority));
        let raised = priorities().map(|priority| priority + (1 << 31)).sum();
        (priorities().max().unwrap_or(i64::MIN), raised, victims.len())
    }

    /// The best nodes of `feasible`: fewest discouraging taints, most left, most even.
    fn best(&self, pod: &ModelPod, feasible: &BTreeSet<u8>) -> BTreeSet<u8> {
        let bad = |at: u8| match self.nodes[&at].taint {
            Some((value, 1)) => i64::from(pod.tolerates.is_none_or(|one| one != 9 && one != value)),
            _ => 0,
        };
        let worst = feasible.iter().map(|at| bad(*at)).max().unwrap_or(0);
        let score = |at: u8| {
            let taints = if worst == 0 { 100 } else { 100 - 100 * bad(at) / worst };
            3 * taints + self.least_allocated(pod, at) + self.balance(pod, at)
        };
        let most = feasible.iter().map(|at| score(*at)).max();
        feasible.iter().copied().filter(|at| Some(score(*at)) == most).collect()
    }

    fn least_allocated(&self, pod: &ModelPod, at: u8) -> i64 {
        let pods = 1 + i64::try_from(self.on(at).count()).expect("a count");
        let cpu = pod.cpu + self.on(at).map(|other| other.cpu).sum::<i64>();
        let share = |all: i64, used: i64| (all > 0).then(|| (all - used).max(0) * 100 / all);
        let shares = [share(self.nodes[&at].cpu, cpu), share(64 << 30, pods * (200 << 20))];
        let known: Vec<i64> = shares.into_iter().flatten().collect();
        known.iter().sum::<i64>() / i64::try_from(known.len()).expect("two at most")
    }

    /// No pod states memory, so what deviates from balance is the share of CPU.
    fn balance(&self, pod: &ModelPod, at: u8) -> i64 {
        let (all, used) = (self.nodes[&at].cpu, pod.cpu + self.on(at).map(|other| other.cpu).sum::<i64>());
        match (pod.cpu, all) {
            (0, _) => 0,
            (_, 0) => 100,
            _ => 100 - (50 * used.min(all) + all - 1) / all,
        }
    }

    fn feasible(&self, pod: &ModelPod) -> BTreeSet<u8> {
        self.nodes
            .keys()
            .copied()
            .filter(|node| self.fits(pod, *node) && self.even(pod, *node) && self.social(pod, *node))
            .collect()
    }

    /// Whether all that the node lacks for the pod is company, which nobody's leaving brings.
    fn is_lonely(&self, pod: &ModelPod, at: u8) -> bool {
        self.fits(pod, at) && self.even(pod, at) && !self.accompanied(pod, at)
    }

    fn fits(&self, pod: &ModelPod, at: u8) -> bool {
        let node = &self.nodes[&at];
        let cpu: i64 = self.on(at).map(|other| other.cpu).sum();
        let gpu: i64 = self.on(at).map(|other| other.gpu).sum();
        let cordon = node.cordoned && pod.tolerates != Some(9);
        let room = i64::try_from(self.on(at).count()).expect("a count") < node.pods;
        let resources =
            (pod.cpu == 0 || cpu + pod.cpu <= node.cpu) && (pod.gpu == 0 || gpu + pod.gpu <= node.gpu);
        let ports = self.on(at).all(|other| !collide(pod.port, other.port));
        !cordon && affine(pod, node) && tolerated(pod, node) && room && resources && ports
    }

    fn domain(&self, by_zone: bool, node: u8) -> Option<u8> {
        if by_zone { self.nodes[&node].zone } else { Some(100 + node) }
    }

    /// Pods that are placed on known nodes, with their node.
    fn placed(&self) -> impl Iterator<Item = (&ModelPod, u8)> {
        let placed = self.pods.values().filter_map(|(_, pod, on)| Some((pod, (*on)?)));
        placed.filter(|(_, on)| self.nodes.contains_key(on))
    }

    fn accompanied(&self, pod: &ModelPod, at: u8) -> bool {
        pod.near.is_none_or(|(by_zone, app)| {
            let mut wanted = self.placed().filter(|(other, _)| other.app == app);
            let first = !wanted.any(|(_, on)| self.domain(by_zone, on).is_some()) && pod.app == app;
            self.domain(by_zone, at).is_some() && (first || self.meets(by_zone, at, |other| other.app == app))
        })
    }

    fn social(&self, pod: &ModelPod, at: u8) -> bool {
        let apart = pod.apart.is_none_or(|(by_zone, app)| !self.meets(by_zone, at, |other| other.app == app));
        let left_alone = [false, true]
            .into_iter()
            .all(|by_zone| !self.meets(by_zone, at, |other| other.apart == Some((by_zone, pod.app))));
        self.accompanied(pod, at) && apart && left_alone
    }

    fn meets(&self, by_zone: bool, at: u8, whom: impl Fn(&ModelPod) -> bool) -> bool {
        let domain = self.domain(by_zone, at);
        let mut placed = self.placed();
        domain.is_some() && placed.any(|(other, on)| whom(other) && self.domain(by_zone, on) == domain)
    }

    fn even(&self, pod: &ModelPod, at: u8) -> bool {
        let Some(rule) = &pod.spread else { return true };
        let domain = |node: u8| self.domain(rule.by_zone, node);
        let Some(mine) = domain(at) else { return false };
        let mut pods: BTreeMap<u8, i64> = BTreeMap::new();
        for (name, node) in &self.nodes {
            let counts =
                (!rule.honor_affinity || affine(pod, node)) && (!rule.honor_taints || tolerated(pod, node));
            if let Some(domain) = domain(*name).filter(|_| counts) {
                let matching = self.on(*name).filter(|other| other.app == rule.app).count();
                *pods.entry(domain).or_default() += i64::try_from(matching).expect("a count");
            }
        }
        let enough = i64::try_from(pods.len()).expect("a count") >= rule.min_domains;
        let fewest = if enough { pods.values().copied().min().unwrap_or(0) } else { 0 };
        let after = pods.get(&mine).copied().unwrap_or(0) + i64::from(pod.app == rule.app);
        after - fewest <= rule.skew
    }
}

/// The cluster as a pod must see it: a node is right if it is so with the pods that room is reserved for, and
/// without them.
struct View {
    reserved: World,
    bare: World,
}

impl View {
    fn feasible(&self, pod: &ModelPod) -> BTreeSet<u8> {
        &self.reserved.feasible(pod) & &self.bare.feasible(pod)
    }

    fn with(&self, name: u8, pod: &ModelPod, on: u8) -> View {
        View { reserved: self.reserved.with(name, pod, on), bare: self.bare.with(name, pod, on) }
    }

    fn without(&self, names: &[u8]) -> View {
        View { reserved: self.reserved.without(names), bare: self.bare.without(names) }
    }

    /// Who would have to leave `at` for `pod`, the more important first; `None` if that wouldn't help.
    fn victims(&self, pod: &ModelPod, at: u8) -> Option<Vec<u8>> {
        let pods = &self.bare.pods;
        let lower =
            pods.iter().filter(|(_, (_, other, on))| *on == Some(at) && other.priority < pod.priority);
        let mut lower: Vec<u8> = lower.map(|(name, _)| *name).collect();
        lower.sort_by_key(|name| (-pods[name].1.priority, format!("p{name}")));
        // What a node lacks when room is reserved is asked before what it lacks otherwise.
        let otherwise = || self.reserved.feasible(pod).contains(&at) && self.bare.is_lonely(pod, at);
        if self.reserved.is_lonely(pod, at) || otherwise() {
            return None;
        }
        let mut view = self.without(&lower);
        if lower.is_empty() || !view.feasible(pod).contains(&at) {
            return None;
        }
        lower.retain(|name| {
            let back = view.with(*name, &pods[name].1, at);
            let leaves = !back.feasible(pod).contains(&at);
            if !leaves {
                view = back;
            }
            leaves
        });
        Some(lower)
    }
}

fn affine(pod: &ModelPod, node: &ModelNode) -> bool {
    let zone = match &pod.zones {
        None => true,
        Some((true, zones)) => node.zone.is_some_and(|zone| zones.contains(&zone)),
        Some((false, zones)) => node.zone.is_none_or(|zone| !zones.contains(&zone)),
    };
    zone && pod.disk.is_none_or(|disk| disk == node.disk)
}

fn tolerated(pod: &ModelPod, node: &ModelNode) -> bool {
    match node.taint {
        None | Some((_, 1)) => true,
        Some((value, _)) => pod.tolerates.is_some_and(|tolerates| tolerates == 9 || tolerates == value),
    }
}

fn collide(a: Option<(u8, bool, u8)>, b: Option<(u8, bool, u8)>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return false };
    a.2 == b.2 && a.1 == b.1 && (a.0 == b.0 || a.0 == 0 || b.0 == 0)
}

// ---- the history

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
            let reserved_for_others = !self.nominated.is_empty();
            let all_refuse = explained.iter().all(|node| !node.rejections.is_empty());
            assert!(all_refuse || reserved_for_others, "each node says why not");
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
