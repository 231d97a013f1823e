//! The oracle: what the rules say about model nodes and pods, read slowly and without the scheduler's types.

use super::model::{Company, ModelBudget, ModelNode, ModelPod, Whose, namespace};
use super::storage::{ModelClaim, ModelFate, ModelVolume};
use std::collections::{BTreeMap, BTreeSet};

/// The true cluster: nodes, and pods with the node they weigh on.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    /// The profile fills nodes: what is left counts for nothing, and images more.
    pub(super) packs: bool,
    pub(super) nodes: BTreeMap<u8, ModelNode>,
    pub(super) pods: BTreeMap<u8, (u64, ModelPod, Option<u8>)>,
    /// Values of the label `team` of the namespaces that have it.
    pub(super) teams: BTreeMap<u8, u8>,
    pub(super) budgets: BTreeMap<u8, ModelBudget>,
    pub(super) claims: BTreeMap<u8, ModelClaim>,
    pub(super) volumes: BTreeMap<u8, ModelVolume>,
    /// What is meant to become of claims, for which pods.
    pub(super) intents: BTreeMap<u8, (ModelFate, BTreeSet<u8>)>,
}

impl World {
    pub(super) fn on(&self, node: u8) -> impl Iterator<Item = &ModelPod> {
        self.pods.values().filter(move |(_, _, on)| *on == Some(node)).map(|(_, pod, _)| pod)
    }

    /// The same cluster with one more pod on a node.
    pub(super) fn with(&self, name: u8, pod: &ModelPod, on: u8) -> World {
        let mut world = self.clone();
        world.pods.insert(name, (0, pod.clone(), Some(on)));
        world
    }

    fn without(&self, names: &[u8]) -> World {
        let mut world = self.clone();
        world.pods.retain(|name, _| !names.contains(name));
        world
    }

    /// How much it hurts if these leave: broken budgets, highest priority, sum of priorities, number.
    pub(super) fn harm(&self, broken: usize, victims: &[u8]) -> (usize, i64, i64, usize) {
        let priorities = || victims.iter().map(|name| i64::from(self.pods[name].1.priority));
        let raised = priorities().map(|priority| priority + (1 << 31)).sum();
        (broken, priorities().max().unwrap_or(i64::MIN), raised, victims.len())
    }

    /// Whether each of these, if they leave in this order, breaks a budget.
    fn breaks_budget(&self, leaving: &[u8]) -> Vec<bool> {
        let mut left: BTreeMap<u8, i64> =
            self.budgets.iter().map(|(name, one)| (*name, one.allowed)).collect();
        let mut breaks = |name: &u8| {
            let pod = &self.pods[name].1;
            let covering = self.budgets.iter().filter(|(_, one)| pod.namespace == 0 && one.app == pod.app);
            let mut broken = false;
            for (budget, _) in covering {
                let left = left.get_mut(budget).expect("each budget is counted");
                *left -= 1;
                broken |= *left < 0;
            }
            broken
        };
        leaving.iter().map(&mut breaks).collect()
    }

    /// The best nodes of `feasible`: fewest discouraging taints, most left, most even.
    pub(super) fn best(&self, pod: &ModelPod, feasible: &BTreeSet<u8>) -> BTreeSet<u8> {
        let bad = |at: u8| match self.nodes[&at].taint {
            Some((value, 1)) => i64::from(pod.tolerates.is_none_or(|one| one != 9 && one != value)),
            _ => 0,
        };
        let worst = feasible.iter().map(|at| bad(*at)).max().unwrap_or(0);
        let zones = self.wished_zones(pod, feasible);
        let company = self.wished_company(pod, feasible);
        let score = |at: u8| {
            let taints = if worst == 0 { 100 } else { 100 - 100 * bad(at) / worst };
            let wishes = 2 * zones[&at] + 2 * company[&at];
            let images = self.local_images(pod, at);
            let own = match self.packs {
                true => 5 * self.allocated(pod, at) + 3 * images,
                false => self.allocated(pod, at) + self.balance(pod, at) + images,
            };
            wishes + 3 * taints + own
        };
        let most = feasible.iter().map(|at| score(*at)).max();
        feasible.iter().copied().filter(|at| Some(score(*at)) == most).collect()
    }

    /// How little of CPU and memory is taken, or how much if the profile fills nodes.
    fn allocated(&self, pod: &ModelPod, at: u8) -> i64 {
        let pods = 1 + i64::try_from(self.on(at).count()).expect("a count");
        let cpu = pod.load() + self.on(at).map(|other| other.load()).sum::<i64>();
        let counted = |all: i64, used: i64| if self.packs { used.min(all) } else { (all - used).max(0) };
        let share = |all: i64, used: i64| (all > 0).then(|| counted(all, used) * 100 / all);
        let shares = [share(self.nodes[&at].cpu, cpu), share(64 << 30, pods * (200 << 20))];
        let known: Vec<i64> = shares.into_iter().flatten().collect();
        known.iter().sum::<i64>() / i64::try_from(known.len()).expect("two at most")
    }

    /// Out of 100, what the pod's preferred nodes are worth beside the best of them.
    fn wished_zones(&self, pod: &ModelPod, feasible: &BTreeSet<u8>) -> BTreeMap<u8, i64> {
        let worth = |at: u8| match pod.wishes.zone {
            Some((weight, zone)) if self.nodes[&at].zone == Some(zone) => weight,
            _ => 0,
        };
        let most = feasible.iter().map(|at| worth(*at)).max().unwrap_or(0).max(1);
        feasible.iter().map(|at| (*at, 100 * worth(*at) / most)).collect()
    }

    /// Out of 100, what the pods around are worth to the pod and the pod to them, between the worst and the best.
    fn wished_company(&self, pod: &ModelPod, feasible: &BTreeSet<u8>) -> BTreeMap<u8, i64> {
        let together = |at: u8, on: u8, by_zone: bool| {
            self.domain(by_zone, at).is_some_and(|domain| self.domain(by_zone, on) == Some(domain))
        };
        let value = |at: u8, wish: Option<(i64, Company)>, of: &ModelPod, about: &ModelPod, on: u8| match wish
        {
            Some((weight, company)) if together(at, on, company.by_zone) => {
                weight * i64::from(self.is_meant(of, company, about))
            }
            _ => 0,
        };
        let worth = |at: u8| -> i64 {
            let with = |(other, on): (&ModelPod, u8)| {
                value(at, pod.wishes.company, pod, other, on)
                    + value(at, other.wishes.company, other, pod, on)
                    // What it requires counts as a wish of the least weight.
                    + value(at, other.near.map(|near| (1, near)), other, pod, on)
            };
            self.placed().map(with).sum()
        };
        let all = || feasible.iter().map(|at| worth(*at));
        let (least, most) = (all().min().unwrap_or(0), all().max().unwrap_or(0));
        let range = (most - least).max(1);
        feasible.iter().map(|at| (*at, 100 * (worth(*at) - least) / range)).collect()
    }

    /// The sizes of its images there, by how many nodes have them; between 23 MB and 1000 MB for each container.
    fn local_images(&self, pod: &ModelPod, at: u8) -> i64 {
        const MB: i64 = 1 << 20;
        let share = |image: u8| {
            let having = self.nodes.values().filter(|node| node.images.contains_key(&image)).count();
            having as f64 / self.nodes.len() as f64
        };
        let size = |image: &u8| {
            let size = self.nodes[&at].images.get(image).copied().unwrap_or(0) * MB;
            (size as f64 * share(*image)) as i64
        };
        let most = 1000 * MB * i64::try_from(pod.images.len()).expect("a count");
        let sum = pod.images.iter().map(size).sum::<i64>().max(23 * MB).min(most);
        100 * (sum - 23 * MB) / (most - 23 * MB)
    }

    /// No pod states memory, so what deviates from balance is the share of CPU.
    fn balance(&self, pod: &ModelPod, at: u8) -> i64 {
        let (all, used) =
            (self.nodes[&at].cpu, pod.load() + self.on(at).map(|other| other.load()).sum::<i64>());
        match (pod.load(), all) {
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
        let cpu: i64 = self.on(at).map(|other| other.load()).sum();
        let gpu: i64 = self.on(at).map(|other| other.gpu).sum();
        let cordon = node.cordoned && pod.tolerates != Some(9);
        let room = i64::try_from(self.on(at).count()).expect("a count") < node.pods;
        let resources =
            (pod.load() == 0 || cpu + pod.load() <= node.cpu) && (pod.gpu == 0 || gpu + pod.gpu <= node.gpu);
        let ports = self.on(at).all(|other| !collide(pod.port, other.port));
        !cordon
            && self.stored(pod, at)
            && affine(pod, node)
            && tolerated(pod, node)
            && room
            && resources
            && ports
    }

    /// Whether the node, which has the pod, has shrunk below what is on it, in something that the pod asks for.
    pub(super) fn is_overfull(&self, pod: &ModelPod, at: u8) -> bool {
        let Some(node) = self.nodes.get(&at) else { return false };
        let cpu: i64 = self.on(at).map(|other| other.load()).sum();
        let gpu: i64 = self.on(at).map(|other| other.gpu).sum();
        let count = i64::try_from(self.on(at).count()).expect("a count");
        (pod.load() > 0 && cpu > node.cpu) || (pod.gpu > 0 && gpu > node.gpu) || count > node.pods
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
        pod.near.is_none_or(|wish| {
            let by_zone = wish.by_zone;
            let mut wanted = self.placed().filter(|(other, _)| self.is_meant(pod, wish, other));
            let nobody = !wanted.any(|(_, on)| self.domain(by_zone, on).is_some());
            let first = nobody && self.is_meant(pod, wish, pod);
            let met = || self.meets(by_zone, at, |other| self.is_meant(pod, wish, other));
            self.domain(by_zone, at).is_some() && (first || met())
        })
    }

    /// Whether what a pod says about others is about that one.
    fn is_meant(&self, pod: &ModelPod, company: Company, other: &ModelPod) -> bool {
        let team = |team: u8| self.teams.get(&other.namespace) == Some(&team);
        let of = match company.of {
            Whose::Own => other.namespace == pod.namespace,
            Whose::All => true,
            Whose::Named(name) => other.namespace == name,
            Whose::Team(value) => team(value),
            Whose::NamedOrTeam(name, value) => other.namespace == name || team(value),
        };
        of && other.app == company.app
    }

    fn social(&self, pod: &ModelPod, at: u8) -> bool {
        let bad =
            |company: Company| self.meets(company.by_zone, at, |other| self.is_meant(pod, company, other));
        let refuses = |other: &ModelPod, by_zone: bool| {
            other.apart.is_some_and(|one| one.by_zone == by_zone && self.is_meant(other, one, pod))
        };
        let left_alone = [false, true]
            .into_iter()
            .all(|by_zone| !self.meets(by_zone, at, |other| refuses(other, by_zone)));
        self.accompanied(pod, at) && !pod.apart.is_some_and(bad) && left_alone
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
                let counts = |other: &&ModelPod| other.app == rule.app && other.namespace == pod.namespace;
                let matching = self.on(*name).filter(counts).count();
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
pub(super) struct View {
    pub(super) reserved: World,
    pub(super) bare: World,
}

impl View {
    pub(super) fn feasible(&self, pod: &ModelPod) -> BTreeSet<u8> {
        &self.reserved.feasible(pod) & &self.bare.feasible(pod)
    }

    fn with(&self, name: u8, pod: &ModelPod, on: u8) -> View {
        View { reserved: self.reserved.with(name, pod, on), bare: self.bare.with(name, pod, on) }
    }

    fn without(&self, names: &[u8]) -> View {
        View { reserved: self.reserved.without(names), bare: self.bare.without(names) }
    }

    /// Who would have to leave `at` for `pod`, and how many of them break a budget; `None` if that wouldn't help.
    pub(super) fn victims(&self, pod: &ModelPod, at: u8) -> Option<(usize, Vec<u8>)> {
        let pods = &self.bare.pods;
        let lower =
            pods.iter().filter(|(_, (_, other, on))| *on == Some(at) && other.priority < pod.priority);
        let mut lower: Vec<u8> = lower.map(|(name, _)| *name).collect();
        lower.sort_by_key(|name| (-pods[name].1.priority, namespace(*name), format!("p{name}")));
        // What a node lacks when room is reserved is asked before what it lacks otherwise.
        let otherwise = || self.reserved.feasible(pod).contains(&at) && self.bare.is_lonely(pod, at);
        if self.reserved.is_lonely(pod, at) || otherwise() {
            return None;
        }
        let mut view = self.without(&lower);
        if lower.is_empty() || !view.feasible(pod).contains(&at) {
            return None;
        }
        // Whoever would break a budget is let back first, then the more important before the less important.
        let breaks = self.bare.breaks_budget(&lower);
        let mut order: Vec<(bool, u8)> = breaks.into_iter().zip(lower).collect();
        order.sort_by_key(|(breaks, _)| !breaks);
        order.retain(|(_, name)| {
            let back = view.with(*name, &pods[name].1, at);
            let leaves = !back.feasible(pod).contains(&at);
            if !leaves {
                view = back;
            }
            leaves
        });
        let broken = order.iter().filter(|(breaks, _)| *breaks).count();
        Some((broken, order.into_iter().map(|(_, name)| name).collect()))
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
