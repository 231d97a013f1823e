//! Crash after every write, and caches as late as they like: the end is the same, and nothing is overdone.

use super::{World, object_key, objects::words, text};
use serde_json::json;
use std::collections::BTreeMap;

/// A story in steps; between them everything settles.
struct Story {
    name: &'static str,
    steps: &'static [fn(&mut World)],
}

fn cluster(world: &mut World) {
    for node in ["n1", "n2", "n3"] {
        world.make("node", node, &words(&[]));
        world.make("lease", node, &words(&[]));
    }
    world.make("namespace", "default", &words(&[]));
}

fn deploy(world: &mut World) {
    world.make("deployment", "web", &words(&["replicas=4", "image=a", "history=1"]));
}

fn edit_image(world: &mut World, image: &str) {
    let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    world.edit("deployments", &object_key("default/web"), &template);
}

fn live(world: &mut World) {
    world.pass(1);
    world.schedule();
    world.kubelets(&[]);
}

fn kill_node(world: &mut World) {
    world.pass(30);
    world.kubelets(&["n1"]);
    world.pass(30);
    world.kubelets(&["n1"]);
    world.sync();
}

fn delete(world: &mut World, plural: &str, key: &str, policy: Option<kube::api::PropagationPolicy>) {
    world.server.delete(&(plural.to_owned(), object_key(key)), policy.as_ref(), None);
}

const STORIES: &[Story] = &[
    Story {
        name: "rollout",
        steps: &[cluster, deploy, live, live, |world| edit_image(world, "b"), live, live, live, live],
    },
    Story {
        name: "history",
        steps: &[
            cluster,
            deploy,
            live,
            |world| edit_image(world, "b"),
            live,
            live,
            live,
            |world| edit_image(world, "c"),
            live,
            live,
            live,
            |world| edit_image(world, "b"),
            live,
            live,
            live,
        ],
    },
    Story {
        name: "scaling",
        steps: &[
            cluster,
            deploy,
            live,
            |world| world.edit("deployments", &object_key("default/web"), &json!({"spec": {"replicas": 9}})),
            live,
            |world| world.edit("deployments", &object_key("default/web"), &json!({"spec": {"replicas": 2}})),
            live,
        ],
    },
    Story {
        name: "dead node",
        steps: &[cluster, deploy, live, kill_node, |world| world.schedule(), |world| world.kubelets(&["n1"])],
    },
    Story {
        name: "foreground deletion",
        steps: &[
            cluster,
            deploy,
            live,
            |world| {
                delete(world, "deployments", "default/web", Some(kube::api::PropagationPolicy::Foreground))
            },
            live,
            live,
        ],
    },
    Story {
        name: "orphaning deletion",
        steps: &[
            cluster,
            deploy,
            live,
            |world| delete(world, "deployments", "default/web", Some(kube::api::PropagationPolicy::Orphan)),
            live,
        ],
    },
    Story {
        name: "background deletion",
        steps: &[
            cluster,
            deploy,
            live,
            |world| delete(world, "deployments", "default/web", None),
            live,
            live,
        ],
    },
    Story {
        name: "namespace",
        steps: &[cluster, deploy, live, |world| delete(world, "namespaces", "default", None), live, live],
    },
];

/// Plays `story` with a crash after the `crash`th write; returns the world and how many writes it took.
fn play(story: &Story, crash: Option<usize>) -> (World, usize) {
    let mut world = World::new();
    let mut writes = 0;
    for step in story.steps {
        step(&mut world);
        let mut left = match crash {
            Some(crash) if crash > writes => crash - writes,
            _ => usize::MAX,
        };
        let before = left;
        world.settle(&mut left);
        writes += before - left;
        if left == 0 {
            world.crash();
            let mut left = usize::MAX;
            world.settle(&mut left);
            writes += usize::MAX - left;
        }
    }
    (world, writes)
}

/// The end of a story without what differs between runs: names and uids of pods, versions, times.
fn summary(world: &World) -> Vec<String> {
    let mut pods: BTreeMap<String, usize> = BTreeMap::new();
    for (_, pod) in world.server.of_kind("pods") {
        let owner = text(pod, "/metadata/ownerReferences/0/name");
        let state =
            format!("pod of {owner} {} {}", text(pod, "/status/phase"), api::object::is_deleting(pod));
        *pods.entry(state).or_default() += 1;
    }
    let mut lines: Vec<String> = pods.into_iter().map(|(state, count)| format!("{count} {state}")).collect();
    for plural in ["deployments", "replicasets", "nodes", "namespaces", "serviceaccounts", "configmaps"] {
        lines.extend(world.show(plural));
    }
    lines
}

#[test]
fn a_crash_after_any_write_leads_to_the_same_end() {
    for story in STORIES {
        let (undisturbed, writes) = play(story, None);
        let expected = summary(&undisturbed);
        assert!(writes > 5, "{}: the story has writes", story.name);
        // Every write of a short story, a good sample of a long one's.
        for crash in (1..=writes).step_by(1 + writes / 40) {
            let (world, _) = play(story, Some(crash));
            assert_eq!(summary(&world), expected, "{}: crash after write {crash} of {writes}", story.name);
        }
    }
}

/// Numbers that a seed decides.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// Controllers act in random order on caches of random age; after each step the limits hold.
fn simulate(seed: u64) {
    let mut random = Random::new(seed);
    let mut world = World::new();
    cluster(&mut world);
    deploy(&mut world);
    for step in 0..400 {
        disturb(&mut world, &mut random);
        let controllers = world.controllers();
        let controller = controllers[random.below(controllers.len())];
        let keys = world.keys(controller);
        if keys.is_empty() || controller == "garbage" || controller == "namespaces" {
            continue;
        }
        let key = &keys[random.below(keys.len())];
        let plan = world.look(controller, key);
        world.perform(controller, key, &plan, &mut usize::MAX.clone());
        invariant_no_surplus(&world, seed, step);
    }
    world.sync();
    world.settle(&mut usize::MAX.clone());
    live(&mut world);
    world.settle(&mut usize::MAX.clone());
}

fn disturb(world: &mut World, random: &mut Random) {
    match random.below(40) {
        0..=9 => world.sync(),
        10..=13 => world.schedule(),
        14..=17 => world.kubelets(&[]),
        18 => edit_image(world, ["a", "b", "c"][random.below(3)]),
        19 => {
            let replicas = json!({"spec": {"replicas": random.below(7)}});
            world.edit("deployments", &object_key("default/web"), &replicas);
        }
        20 => world.crash(),
        21 => world.pass(1),
        22 => {
            let pods: Vec<String> = world.keys("podgc");
            if !pods.is_empty() {
                delete(world, "pods", &pods[random.below(pods.len())], None);
            }
        }
        _ => {}
    }
}

/// A ReplicaSet never has more active pods than the largest size it has had since the last crash or edit
/// could ask for: the story's sizes stay below 7, plus the surge of 2.
fn invariant_no_surplus(world: &World, seed: u64, step: usize) {
    let mut active: BTreeMap<String, i64> = BTreeMap::new();
    for (_, pod) in world.server.of_kind("pods").filter(|(_, pod)| !api::object::is_deleting(pod)) {
        *active.entry(text(pod, "/metadata/ownerReferences/0/name")).or_default() += 1;
    }
    for (set, count) in active {
        assert!(count <= 7, "seed {seed} step {step}: {set} has {count} active pods");
    }
}

#[test]
fn late_caches_never_lead_to_too_many_pods() {
    for seed in 0..40 {
        simulate(seed);
    }
}
