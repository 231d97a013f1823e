//! Every controller under perturbation: it dies after any of its first writes, its caches are late by kind and
//! skip states in between, keys come twice and in any order; the end is that of the undisturbed run.
//!
//! Unlike `convergence`, nothing is looked at unless an event, a retry or a deadline leads to it, so the wiring of
//! events to keys is under test, too. `PERTURBATION_SEEDS=n` runs more seeds, `PERTURBATION_SEED=n` replays one.

use super::{CONTROLLERS, World, convergence::Random, object_key, objects::words, text};
use crate::driver::End;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// So many of the first writes are crash points, each with this many seeds of disorder.
const CRASH_POINTS: usize = 200;
const SEEDS: u64 = 2;
/// A run that takes more looks than this goes round in circles.
const MOST_LOOKS: usize = 20_000;

type Step = fn(&mut World);

struct Story {
    name: &'static str,
    steps: &'static [Step],
}

const STORIES: &[Story] = &[
    Story { name: "job", steps: &[cluster, job, live, work, live, work, live] },
    Story {
        name: "indexed job with failures",
        steps: &[cluster, indexed_job, live, work_badly, later, live, work, live],
    },
    Story {
        name: "suspended job",
        steps: &[cluster, job, live, suspend, live, resume, live, work, live, work, live],
    },
    Story { name: "deleted job", steps: &[cluster, job, live, work, delete_job, live] },
    Story {
        name: "statefulset",
        steps: &[
            cluster,
            stateful_set,
            live,
            live,
            live,
            new_image,
            live,
            live,
            live,
            live,
            shrink,
            live,
            live,
        ],
    },
    Story {
        name: "statefulset with claims",
        steps: &[cluster, claiming_set, live, live, shrink_claiming, live, live],
    },
    Story {
        name: "daemonset",
        steps: &[cluster, daemon_set, live, new_daemon_image, live, live, live, live, live],
    },
    Story {
        name: "cronjob",
        steps: &[cluster, cron_job, minutes, live, work, live, minutes, live, work, live],
    },
    Story {
        name: "replication controller",
        steps: &[cluster, replication_controller, live, lose_a_pod, live],
    },
    Story { name: "service", steps: &[cluster, service, pods_with_addresses, lose_p1, live] },
    Story {
        name: "deployment and budget",
        steps: &[cluster, deployment_and_budget, live, roll_deployment, live, live, live, live],
    },
    Story { name: "volumes", steps: &[cluster, volumes, claims, delete_claim, late_volume] },
    Story {
        name: "local path",
        steps: &[cluster, waiting_claim, select_node, live, delete_cache, live, removed, live],
    },
    Story { name: "ephemeral claims", steps: &[cluster, ephemeral_pod, live, lose_ephemeral_claim, live] },
    Story { name: "rights", steps: &[cluster, rights, end_account_and_role] },
];

fn cluster(world: &mut World) {
    for node in ["n1", "n2"] {
        world.make("node", node, &words(&[]));
        world.make("lease", node, &words(&[]));
    }
    world.make("namespace", "default", &words(&[]));
}

fn live(world: &mut World) {
    world.pass(1);
    world.schedule();
    world.kubelets(&[]);
}

fn later(world: &mut World) {
    world.pass(15);
    world.kubelets(&[]);
}

fn minutes(world: &mut World) {
    world.pass(65);
    world.kubelets(&[]);
}

fn work(world: &mut World) {
    world.finish_jobs(|_| true);
}

fn work_badly(world: &mut World) {
    world.finish_jobs(|pod| {
        text(pod, "/metadata/annotations/batch.kubernetes.io~1job-completion-index") != "1"
    });
}

fn job(world: &mut World) {
    world.make("job", "work", &words(&["completions=3", "parallelism=2", "app=work"]));
}

fn indexed_job(world: &mut World) {
    let spec = ["completions=3", "parallelism=3", "indexed", "per-index=2", "app=index"];
    world.make("job", "index", &words(&spec));
}

fn spec(world: &mut World, plural: &str, name: &str, spec: Value) {
    world.edit(plural, &object_key(&format!("default/{name}")), &json!({ "spec": spec }));
}

fn suspend(world: &mut World) {
    spec(world, "jobs", "work", json!({"suspend": true}));
}

fn resume(world: &mut World) {
    spec(world, "jobs", "work", json!({"suspend": false}));
}

fn delete_job(world: &mut World) {
    world.server.delete(&("jobs".to_owned(), object_key("default/work")), None, None);
}

fn image(name: &str) -> Value {
    json!({"template": {"spec": {"containers": [{"name": "c", "image": name}]}}})
}

fn stateful_set(world: &mut World) {
    world.make("statefulset", "db", &words(&["replicas=3", "app=db"]));
}

fn new_image(world: &mut World) {
    spec(world, "statefulsets", "db", image("b"));
}

fn shrink(world: &mut World) {
    spec(world, "statefulsets", "db", json!({"replicas": 1}));
}

fn claiming_set(world: &mut World) {
    let claims = json!({"spec": {
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}}});
    world.make_with("statefulset", "db", &words(&["replicas=2", "parallel", "app=db"]), &claims);
}

fn shrink_claiming(world: &mut World) {
    spec(world, "statefulsets", "db", json!({"replicas": 1}));
}

fn daemon_set(world: &mut World) {
    world.make("daemonset", "log", &words(&["app=log"]));
}

fn new_daemon_image(world: &mut World) {
    spec(world, "daemonsets", "log", image("b"));
}

fn cron_job(world: &mut World) {
    world.make("cronjob", "tick", &words(&["every=1", "app=tick", "policy=Forbid"]));
}

fn replication_controller(world: &mut World) {
    world.make("rc", "old", &words(&["replicas=3", "app=old"]));
}

fn lose_a_pod(world: &mut World) {
    let pod = world.keys("podgc").into_iter().next().expect("a pod");
    world.server.delete(&("pods".to_owned(), object_key(&pod)), None, None);
}

fn service(world: &mut World) {
    world.make("service", "web", &words(&[]));
}

fn pods_with_addresses(world: &mut World) {
    for number in 1..=3 {
        let status = json!({"status": {"podIP": format!("10.0.0.{number}")}});
        world.make_with("pod", &format!("p{number}"), &words(&["node=n1", "ready"]), &status);
    }
}

fn lose_p1(world: &mut World) {
    world.server.delete(&("pods".to_owned(), object_key("default/p1")), None, None);
}

fn deployment_and_budget(world: &mut World) {
    world.make("deployment", "web", &words(&["replicas=3", "image=a"]));
    world.make("budget", "web", &words(&["max=1"]));
}

fn roll_deployment(world: &mut World) {
    spec(world, "deployments", "web", image("b"));
}

fn volumes(world: &mut World) {
    world.make("volume", "small", &words(&["size=1Gi"]));
    world.make("volume", "large", &words(&["size=10Gi"]));
}

fn claims(world: &mut World) {
    world.make("claim", "data", &words(&["size=5Gi"]));
    world.make("claim", "more", &words(&["size=20Gi"]));
}

fn delete_claim(world: &mut World) {
    world.server.delete(&("persistentvolumeclaims".to_owned(), object_key("default/data")), None, None);
}

fn late_volume(world: &mut World) {
    world.make("volume", "huge", &words(&["size=30Gi"]));
}

fn waiting_claim(world: &mut World) {
    world.make("class", "local", &words(&["waits"]));
    world.make("claim", "cache", &words(&["uid=u-cache", "size=1Gi", "class=local"]));
}

fn select_node(world: &mut World) {
    let chosen = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n1"}}});
    world.edit("persistentvolumeclaims", &object_key("default/cache"), &chosen);
}

fn delete_cache(world: &mut World) {
    world.server.delete(&("persistentvolumeclaims".to_owned(), object_key("default/cache")), None, None);
}

fn removed(world: &mut World) {
    world.end(&object_key("kube-system/remove-pvc-u-cache"), "Succeeded", 0);
}

fn ephemeral_pod(world: &mut World) {
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"]}});
    let volume = json!({"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}});
    world.make_with("pod", "p", &words(&[]), &json!({"spec": {"volumes": [volume]}}));
}

fn lose_ephemeral_claim(world: &mut World) {
    let claim = object_key("default/p-scratch");
    world.server.delete(&("persistentvolumeclaims".to_owned(), claim), None, None);
}

fn rights(world: &mut World) {
    let rule = |resource: &str| json!([{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]);
    let selectors = json!([{"matchLabels": {"to": "all"}}]);
    let sum = json!({"aggregationRule": {"clusterRoleSelectors": selectors}});
    world.make_with("clusterrole", "all", &words(&[]), &sum);
    for (name, resource) in [("a", "pods"), ("b", "services")] {
        let part = json!({"metadata": {"labels": {"to": "all"}}, "rules": rule(resource)});
        world.make_with("clusterrole", name, &words(&[]), &part);
    }
    world.make("account", "builder", &words(&["uid=u-b"]));
    let names =
        json!({"kubernetes.io/service-account.name": "builder", "kubernetes.io/service-account.uid": "u-b"});
    let token = json!({"type": "kubernetes.io/service-account-token", "metadata": {"annotations": names}});
    world.make_with("secret", "token", &words(&[]), &token);
}

fn end_account_and_role(world: &mut World) {
    world.server.delete(&("serviceaccounts".to_owned(), object_key("default/builder")), None, None);
    world.server.delete(&("clusterroles".to_owned(), object_key("a")), None, None);
}

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
            world: World::new(),
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
        for (controller, _) in CONTROLLERS {
            let keys = match controller {
                // The collector is driven by every change; its own tests are about what it looks at.
                "garbage" => self.world.keys("garbage"),
                controller => {
                    let queue = self.world.process.queue(controller);
                    queue.take_ready().into_iter().map(|key| key.to_string()).collect()
                }
            };
            if controller != "garbage" {
                self.queued.extend(keys.into_iter().map(|key| (controller, key)));
            } else if self.world.server.changed.is_empty() && self.queued.is_empty() {
                let idle: Vec<String> = keys;
                for key in idle {
                    let plan = self.world.look("garbage", &key);
                    self.perform("garbage", &key, &plan);
                }
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
    ];
    for line in named.iter().flat_map(|plural| world.show(plural)) {
        *lines.entry(without_times(&line)).or_default() += 1;
    }
    for (_, slice) in world.server.of_kind("endpointslices") {
        let mut addresses: Vec<String> = slice["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| it["addresses"].to_string() + &it["conditions"].to_string())
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

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match number("PERTURBATION_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("PERTURBATION_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

#[test]
fn perturbed_controllers_reach_the_same_end() {
    let (mut runs, mut crashes) = (0, 0);
    for story in STORIES {
        let undisturbed = Run::new(1, None, true).play(story);
        let expected = summary(&undisturbed.world);
        for seed in seeds() {
            for crash in std::iter::once(None).chain((1..=undisturbed.writes.min(CRASH_POINTS)).map(Some)) {
                let run = Run::new(seed, crash, false).play(story);
                runs += 1;
                crashes += usize::from(crash.is_some_and(|crash| run.writes >= crash));
                assert_eq!(
                    summary(&run.world),
                    expected,
                    "{}: PERTURBATION_SEED={seed}, crash after write {crash:?} of {}",
                    story.name,
                    undisturbed.writes
                );
            }
        }
    }
    println!("{} stories, {runs} runs, {crashes} crashes, 0 divergences", STORIES.len());
}
