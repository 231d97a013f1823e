//! Conversations with the scheduler, in `testdata/*.txt`: commands, a line `----`, and the answer.
//!
//! `UPDATE=1 cargo test -p scheduler` rewrites the answers; the diff is the review.

mod objects;
mod storage;

use self::objects::{budget, group, key, namespace, node, option, pod, pod_info, spread, term};
use super::{ClaimWrite, Effect, Event, Scheduler};
use crate::name::NodeName;
use crate::profile::{Profile, Profiles, Strategy};
use crate::queue::Backoff;
use crate::selector::NodeTerm;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn scripts() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut names: Vec<_> = std::fs::read_dir(&directory)
        .expect("testdata")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "there are scripts");
    for path in names {
        let script = std::fs::read_to_string(&path).expect("a readable script");
        let answered = run(&script);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &answered).expect("a writable script");
        } else {
            assert_eq!(script, answered, "{} (UPDATE=1 rewrites it)", path.display());
        }
    }
}

/// The script with the answers it gets now.
fn run(script: &str) -> String {
    let mut world = World::new();
    let mut answered = String::new();
    for block in script.trim_end().split("\n\n") {
        let commands = block.split("\n----").next().expect("split yields at least one part");
        if commands.lines().all(|line| line.starts_with('#')) {
            writeln!(answered, "{commands}\n").expect("a string takes everything");
            continue;
        }
        let answer: String = commands.lines().map(|line| world.command(line)).collect();
        writeln!(answered, "{commands}\n----\n{answer}").expect("a string takes everything");
    }
    format!("{}\n", answered.trim_end())
}

struct World {
    scheduler: Scheduler,
    now: Instant,
    pods: BTreeMap<String, Value>,
    binding: BTreeMap<String, NodeName>,
    profiles: Vec<(Arc<str>, Profile)>,
}

impl World {
    fn new() -> Self {
        World {
            scheduler: Scheduler::new("default-scheduler"),
            now: Instant::now(),
            pods: BTreeMap::new(),
            binding: BTreeMap::new(),
            profiles: Vec::new(),
        }
    }

    fn command(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [first, ..] if first.starts_with('#') => {}
            ["node", name, options @ ..] => self.observe(Event::Node(node(name, options))),
            ["pod", name, options @ ..] => self.apply(name, pod(name, options)),
            ["budget", name, options @ ..] => self.observe(Event::Budget(budget(name, options))),
            ["group", name, options @ ..] => self.observe(Event::Group(group(name, options))),
            ["profile", name, options @ ..] => self.profile(name, options),
            ["namespace", name, labels @ ..] => self.observe(Event::Namespace(namespace(name, labels))),
            ["delete", "namespace", name] => self.observe(Event::NamespaceGone((*name).into())),
            ["delete", "budget", name] => self.observe(Event::BudgetGone(key(name))),
            ["delete", "group", name] => self.observe(Event::GroupGone(key(name))),
            ["claim" | "volume" | "class" | "limits", ..] => self.observe(storage::event(&words)),
            ["delete", "claim" | "volume" | "class" | "limits", ..] => {
                self.observe(storage::gone(&words[1..]))
            }
            ["prepared", name] => self.prepared(name, true),
            ["unprepared", name] => self.prepared(name, false),
            ["stays", name] => {
                let uid = pod_info(self.pods[*name].clone()).uid;
                self.observe(Event::NotEvicted(uid));
            }
            ["delete", "node", name] => self.observe(Event::NodeGone((*name).into())),
            ["delete", "pod", name] => self.observe(Event::PodGone(key(name))),
            ["bound", name] => self.answer(name, true),
            ["refused", name] => self.answer(name, false),
            ["seen", name] => self.seen(name),
            ["advance", seconds] => self.now += Duration::from_secs_f64(seconds.parse().expect("seconds")),
            ["schedule"] => return self.schedule(),
            ["wake"] => drop(self.scheduler.schedule(0, self.now, &mut || 0)),
            ["queue"] => return self.queue(),
            ["explain", name] => return self.explain(name),
            _ => panic!("unknown command: {line}"),
        }
        String::new()
    }

    /// Begins anew with one profile more. `NAME=weight` scores, `NAME` isn't asked, `most` packs, and `list=…` is a
    /// default constraint as in `spread`, without labels.
    fn profile(&mut self, name: &str, options: &[&str]) {
        let mut profile = Profile::default();
        for (option, value) in options.iter().map(|word| option(word)) {
            match (option, value) {
                ("most", _) => profile.scoring.strategy = Strategy::MostAllocated,
                ("list", rule) => {
                    let mut rule = spread(&format!("{rule}:x=y"));
                    rule["labelSelector"] = Value::Null;
                    let rule = serde_json::from_value(rule).expect("a constraint");
                    profile.spread.get_or_insert_default().push(rule);
                }
                ("added", rule) => {
                    let term = serde_json::from_value(term(rule)).expect("a term");
                    profile.added.required.get_or_insert_default().push(NodeTerm::of(&term));
                }
                ("DefaultPreemption", _) => profile.preemption = None,
                (plugin, "") => {
                    profile.filters.remove(&plugin.parse().expect("a plugin"));
                }
                (plugin, weight) => {
                    let weight = weight.parse().expect("a weight");
                    profile.weights.insert(plugin.parse().expect("a plugin"), weight);
                }
            }
        }
        self.profiles.push((name.into(), profile));
        let all = self.profiles.clone().into_iter().chain([("default-scheduler".into(), Profile::default())]);
        self.scheduler = Scheduler::with(Profiles::new(all), Backoff::default());
    }

    fn observe(&mut self, event: Event) {
        self.scheduler.observe(event, self.now);
    }

    fn apply(&mut self, name: &str, pod: Value) {
        self.pods.insert(name.to_owned(), pod.clone());
        self.observe(Event::Pod(pod_info(pod)));
    }

    fn answer(&mut self, name: &str, accepted: bool) {
        let uid = pod_info(self.pods[name].clone()).uid;
        self.observe(Event::Bound { pod: key(name), uid, accepted });
    }

    fn prepared(&mut self, name: &str, accepted: bool) {
        let uid = pod_info(self.pods[name].clone()).uid;
        self.observe(Event::Prepared { pod: key(name), uid, accepted });
    }

    /// The watch shows the pod on the node it was bound to.
    fn seen(&mut self, name: &str) {
        let mut pod = self.pods[name].clone();
        pod["spec"]["nodeName"] = json!(self.binding[name].to_string());
        self.apply(name, pod);
    }

    fn schedule(&mut self) -> String {
        let mut text = String::new();
        loop {
            let effects = self.scheduler.schedule(4, self.now, &mut || 0);
            if effects.is_empty() {
                return text;
            }
            for effect in effects {
                text += &self.effect(effect);
            }
        }
    }

    fn effect(&mut self, effect: Effect) -> String {
        match effect {
            Effect::Bind { pod, node, .. } => {
                self.binding.insert(pod.name.to_string(), node.clone());
                format!("{} -> {node}\n", pod.name)
            }
            Effect::Prepare { pod, node, claims, .. } => {
                let claims: String = claims.iter().map(claim_write).collect();
                format!("{} will go to {node}:{claims}\n", pod.name)
            }
            Effect::ReportGroup { group, said, .. } => {
                let state = if said.scheduled { "scheduled" } else { "unschedulable" };
                format!("group {} is {state}: {}\n", group.name, said.message)
            }
            Effect::Report { pod, message, nominated, .. } => {
                let nominated = nominated.map(|node| format!(" (nominated to {node})")).unwrap_or_default();
                format!("{}: {message}{nominated}\n", pod.name)
            }
            Effect::Evict { pod, preemptor, node, .. } => {
                format!("{} leaves {node} for {preemptor}\n", pod.name)
            }
        }
    }

    fn queue(&self) -> String {
        let place = |name: &String| Some(format!("{name} {}\n", self.scheduler.queue().place(&key(name))?));
        let text: String = self.pods.keys().filter_map(place).collect();
        let wake = self.scheduler.next_wake().map(|at| format!("next wake in {:?}\n", at - self.now));
        if text.is_empty() { "empty\n".to_owned() } else { text + &wake.unwrap_or_default() }
    }

    fn explain(&mut self, name: &str) -> String {
        let nodes = self.scheduler.explain(&key(name)).unwrap_or_default();
        nodes.iter().map(|node| format!("{node}\n")).collect()
    }
}

fn claim_write(write: &ClaimWrite) -> String {
    match write {
        ClaimWrite::Select { claim, node, .. } => format!(" {} is for {node}", claim.name),
        ClaimWrite::Give { volume, claim, ours, .. } => {
            format!(" {} gets {volume}{}", claim.0.name, if *ours { "" } else { ", which named it" })
        }
    }
}
