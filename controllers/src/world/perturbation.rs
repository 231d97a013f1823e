//! Every controller under perturbation: it dies after any of its first writes, its caches are late by kind and
//! skip states in between, keys come twice and in any order; the end is that of the undisturbed run.
//!
//! Unlike `convergence`, nothing is looked at unless an event, a retry or a deadline leads to it, so the wiring of
//! events to keys is under test, too. `PERTURBATION_SEEDS=n` runs more seeds, `PERTURBATION_SEED=n`,
//! `PERTURBATION_STORY=name` and `PERTURBATION_CRASH=n` replay one run and tell its plans.

mod more;
mod steps;
mod stories;

use super::{World, convergence::Random, process::Parts, text};
use crate::driver::End;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};
use stories::{STORIES, Story};

/// So many of the first writes are crash points, each with this many seeds of disorder.
const CRASH_POINTS: usize = 200;
const SEEDS: u64 = 2;
/// A run that takes more looks than this goes round in circles.
const MOST_LOOKS: usize = 20_000;

/// One process after another over a world, in an order that a seed chooses.
struct Run {
    world: World,
    random: Random,
    /// Keys to look at, by controller.
    queued: BTreeSet<(&'static str, String)>,
    /// Deadlines that plans have named.
    timers: BTreeMap<(&'static str, String), Timestamp>,
    writes: usize,
    crash: Option<usize>,
    /// Without disorder: all caches are always up to date.
    orderly: bool,
}

impl Run {
    fn new(seed: u64, crash: Option<usize>, orderly: bool) -> Run {
        Run {
            world: World::with(Parts::All),
            random: Random::new(seed),
            queued: BTreeSet::new(),
            timers: BTreeMap::new(),
            writes: 0,
            crash,
            orderly,
        }
    }

    fn play(mut self, story: &Story) -> Run {
        for step in story.steps {
            step(&mut self.world);
            self.settle(story.name);
        }
        self
    }

    /// Until no cache is late, no key is queued and no deadline has passed.
    fn settle(&mut self, story: &str) {
        for _ in 0..MOST_LOOKS {
            self.deliver();
            self.take_events();
            match self.choose() {
                Some((controller, key)) => self.look(controller, &key),
                None if self.world.server.changed.is_empty() => return,
                None => {}
            }
        }
        panic!("{story}: the controllers never agree; queued are {:?}", self.queued);
    }

    /// One kind's cache catches up, whichever it is; what it was in between is never seen.
    fn deliver(&mut self) {
        if self.orderly {
            return self.world.sync();
        }
        let late: Vec<String> = self.world.server.changed.iter().cloned().collect();
        if !late.is_empty() && (self.queued.is_empty() || self.random.below(3) == 0) {
            let plural = late[self.random.below(late.len())].clone();
            self.world.server.changed.remove(&plural);
            self.world.refill(&plural);
        }
    }

    fn take_events(&mut self) {
        for controller in self.world.controllers() {
            match self.world.queued(controller) {
                Some(keys) => self.queued.extend(keys.into_iter().map(|key| (controller, key))),
                // The collector is driven by every change; its own tests are about what it looks at. Others have
                // informers of their own.
                None if self.is_idle() => self.look_at_all(controller),
                None => {}
            }
        }
        let now = self.world.server.now;
        let due: Vec<_> =
            self.timers.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        for key in due {
            self.timers.remove(&key);
            self.queued.insert(key);
        }
    }

    fn is_idle(&self) -> bool {
        self.world.server.changed.is_empty() && self.queued.is_empty()
    }

    fn look_at_all(&mut self, controller: &'static str) {
        for key in self.world.keys(controller) {
            let plan = self.world.look(controller, &key);
            self.perform(controller, &key, &plan);
        }
    }

    /// Any queued key; now and then it stays queued, as if its event had come twice.
    fn choose(&mut self) -> Option<(&'static str, String)> {
        let all: Vec<_> = self.queued.iter().cloned().collect();
        let place = if self.orderly { 0 } else { self.random.below(all.len()) };
        let chosen = all.get(place)?.clone();
        if self.orderly || self.random.below(8) > 0 {
            self.queued.remove(&chosen);
        }
        Some(chosen)
    }

    fn look(&mut self, controller: &'static str, key: &str) {
        let plan = self.world.look(controller, key);
        let again = plan.again;
        let end = self.perform(controller, key, &plan);
        let entry = (controller, key.to_owned());
        match end {
            Some(End::Complete | End::NamespaceEnds) => {
                if let Some(again) = again {
                    self.timers.insert(entry, again);
                }
            }
            Some(_) => {
                self.queued.insert(entry);
            }
            // The process that would have looked again is dead.
            None => {}
        }
    }

    /// None if the process died of it.
    fn perform(&mut self, controller: &'static str, key: &str, plan: &crate::plan::Plan) -> Option<End> {
        let mut left =
            self.crash.filter(|crash| *crash > self.writes).map_or(usize::MAX, |crash| crash - self.writes);
        let before = left;
        if trace() && !plan.actions.is_empty() {
            println!("after write {}, at {}: {controller} {key}\n{plan}", self.writes, self.world.server.now);
        }
        let report = self.world.perform(controller, key, plan, &mut left);
        self.writes += before - left;
        if left == 0 {
            self.world.crash();
            self.queued.clear();
            self.timers.clear();
            return None;
        }
        Some(report.end)
    }
}

/// The end without what may differ between runs: generated names, uids, versions, times.
fn summary(world: &World) -> Vec<String> {
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for (_, pod) in world.server.of_kind("pods") {
        let labels = pod["metadata"]["labels"].to_string();
        let state = format!(
            "pod of {} {labels} {} {} held by {:?}",
            text(pod, "/metadata/ownerReferences/0/name"),
            text(pod, "/status/phase"),
            api::object::is_deleting(pod),
            api::object::finalizers(pod),
        );
        *lines.entry(state).or_default() += 1;
    }
    let named = [
        "jobs",
        "cronjobs",
        "statefulsets",
        "daemonsets",
        "deployments",
        "replicasets",
        "replicationcontrollers",
        "persistentvolumeclaims",
        "persistentvolumes",
        "clusterroles",
        "secrets",
        "poddisruptionbudgets",
        "controllerrevisions",
        "nodes",
        "namespaces",
        "servicecidrs",
        "resourcequotas",
        "certificatesigningrequests",
        "serviceaccounts",
        "configmaps",
    ];
    for line in named.iter().flat_map(|plural| world.show(plural)) {
        *lines.entry(without_times(&line)).or_default() += 1;
    }
    // Which node has which range depends on the order.
    let given = world.server.of_kind("nodes").map(|(_, node)| text(node, "/spec/podCIDR"));
    let given: BTreeSet<String> = given.filter(|range| !range.is_empty()).collect();
    lines.insert(format!("{} ranges of nodes", given.len()), 1);
    for (_, slice) in world.server.of_kind("endpointslices") {
        let mut addresses: Vec<String> = slice["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| format!("{} {} {} {}", it["addresses"], it["conditions"], it["zone"], it["hints"]))
            .collect();
        addresses.sort();
        *lines.entry(format!("slice {addresses:?}")).or_default() += 1;
    }
    lines.into_iter().map(|(line, count)| format!("{count} {line}")).collect()
}

/// Cuts out times and what references copy of other objects.
fn without_times(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(start) = rest.find('"') {
        let end = rest[start + 1..].find('"').map_or(rest.len(), |end| start + end + 2);
        let quoted = &rest[start..end];
        out.push_str(&rest[..start]);
        let varies = quoted.starts_with("\"1970-")
            || quoted.trim_matches('"').parse::<u64>().is_ok()
            || is_uid(quoted);
        out.push_str(if varies { "\"*\"" } else { quoted });
        rest = &rest[end..];
    }
    out + rest
}

fn is_uid(quoted: &str) -> bool {
    quoted.trim_matches('"').strip_prefix('u').is_some_and(|number| number.parse::<u64>().is_ok())
}

/// Whether each plan is to be told; `PERTURBATION_CRASH` is the one crash of the run.
fn trace() -> bool {
    std::env::var_os("PERTURBATION_CRASH").is_some()
}

/// The crashes of a story that takes so many writes: none, and one after each of the first.
fn crashes(writes: usize) -> Vec<Option<usize>> {
    let only = std::env::var("PERTURBATION_CRASH").ok().and_then(|crash| crash.parse().ok());
    match only {
        Some(crash) => vec![Some(crash)],
        None => std::iter::once(None).chain((1..=writes.min(CRASH_POINTS)).map(Some)).collect(),
    }
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match number("PERTURBATION_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("PERTURBATION_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

/// The story's undisturbed end, and how many writes it takes.
fn undisturbed(story: &Story) -> (Vec<String>, usize) {
    let run = Run::new(1, None, true).play(story);
    (summary(&run.world), run.writes)
}

/// What each story comes to when nothing is disturbed: if a story came to nothing, its runs would prove nothing.
#[test]
fn stories_end_as_written() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/stories/ends.txt");
    let told = STORIES.iter().map(|story| format!("{}\n{}\n", story.name, undisturbed(story).0.join("\n")));
    let told = told.collect::<Vec<_>>().join("\n");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &told).expect("writable");
    }
    let expected = fs::read_to_string(&path).expect("readable");
    assert!(told == expected, "UPDATE=1 rewrites {}:\n{told}", path.display());
}

/// Runs `story` with disorder: without a crash and with one after each of its first writes; returns the counts.
fn perturb(story: &Story, seed: u64) -> (usize, usize) {
    let (expected, writes) = undisturbed(story);
    let (mut runs, mut crashed) = (0, 0);
    for crash in crashes(writes) {
        let run = Run::new(seed, crash, false).play(story);
        runs += 1;
        crashed += usize::from(crash.is_some_and(|crash| run.writes >= crash));
        assert_eq!(
            summary(&run.world),
            expected,
            "{}: PERTURBATION_SEED={seed}, crash after write {crash:?} of {writes}",
            story.name
        );
    }
    (runs, crashed)
}

#[test]
fn perturbed_controllers_reach_the_same_end() {
    let only = std::env::var("PERTURBATION_STORY").ok();
    let stories = STORIES.iter().filter(|story| only.as_ref().is_none_or(|only| only == story.name));
    let (mut runs, mut crashes) = (0, 0);
    for story in stories {
        let mut of_story = (0, 0);
        for (more_runs, more_crashes) in seeds().into_iter().map(|seed| perturb(story, seed)) {
            of_story = (of_story.0 + more_runs, of_story.1 + more_crashes);
        }
        println!("{}: {} runs, {} crashes", story.name, of_story.0, of_story.1);
        (runs, crashes) = (runs + of_story.0, crashes + of_story.1);
    }
    println!("{} stories, {runs} runs, {crashes} crashes, 0 divergences", STORIES.len());
}
