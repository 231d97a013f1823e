//! Thousands of nodes fall silent at once: what each of them costs doesn't depend on how many they are. Work is
//! counted, not time.

use super::{World, objects::words};
use serde_json::json;

/// Looks and visited nodes until all `nodes` nodes, which fall silent together, are marked and nobody wants more.
fn outage(nodes: usize) -> (usize, usize) {
    let mut world = World::new();
    for number in 0..nodes {
        let name = format!("n{number}");
        world.make("node", &name, &words(&[]));
        world.make("lease", &name, &words(&[]));
    }
    drive(&mut world);
    world.process.census.visits();
    world.pass(60);
    // By the clock.
    let queue = world.process.controller("nodes").queue.clone().expect("changes lead there");
    (0..nodes).for_each(|number| queue.add(super::object_key(&format!("n{number}"))));
    let looks = drive(&mut world);
    let marked = world.server.of_kind("nodes").filter(|(_, node)| {
        node["status"]["conditions"][0]["status"] == json!("Unknown")
            && node["spec"]["taints"][0]["effect"] == json!("NoSchedule")
            && node["spec"]["taints"][1].is_null()
    });
    assert_eq!(marked.count(), nodes, "marked and not evicted, for all are silent");
    (looks, world.process.census.visits())
}

/// Lets the node controller look at what changes lead to; returns how often it looked.
fn drive(world: &mut World) -> usize {
    let mut looks = 0;
    loop {
        world.sync();
        let keys = world.queued("nodes").unwrap_or_default();
        if keys.is_empty() {
            return looks;
        }
        for key in keys {
            looks += 1;
            let plan = world.look("nodes", &key);
            world.perform("nodes", &key, &plan, &mut usize::MAX.clone());
        }
    }
}

#[test]
fn an_outage_costs_each_node_the_same_however_many_there_are() {
    for nodes in [50, 400] {
        let (looks, visits) = outage(nodes);
        assert!(looks <= 5 * nodes, "{looks} looks at {nodes} nodes");
        assert!(visits <= 12 * nodes, "{visits} visits of {nodes} nodes");
    }
}
