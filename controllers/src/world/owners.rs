//! Random owner graphs against a slow oracle: the collector deletes exactly what nobody living holds.

use super::{World, object_key, objects::words};
use std::collections::{BTreeMap, BTreeSet};

/// Owner uids by the uid of the object; an owner that isn't a key doesn't exist.
type Owners = BTreeMap<String, BTreeSet<String>>;

/// What remains after `deleted` is gone: again and again, whatever has owners but no living one goes, too.
fn oracle(mut owners: Owners, deleted: &str) -> BTreeSet<String> {
    owners.remove(deleted);
    loop {
        let alive: BTreeSet<String> = owners.keys().cloned().collect();
        owners.retain(|_, own| own.is_empty() || own.iter().any(|owner| alive.contains(owner)));
        if owners.len() == alive.len() {
            return alive;
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// Up to eight objects, each with up to two owners among earlier, later, dead and reused ones.
fn random_graph(random: &mut Random) -> Owners {
    let count = 2 + random.below(7);
    let owner = |random: &mut Random| match random.below(6) {
        // The name of a living object with the uid of its predecessor.
        0 => format!("dead-{}", random.below(count)),
        _ => format!("u-{}", random.below(count)),
    };
    (0..count)
        .map(|n| {
            let wanted = random.below(3);
            let own: BTreeSet<String> = (0..wanted).map(|_| owner(random)).collect();
            (format!("u-{n}"), own.into_iter().filter(|owner| *owner != format!("u-{n}")).collect())
        })
        .collect()
}

fn build(owners: &Owners) -> World {
    let mut world = World::new();
    for (uid, own) in owners {
        let reference = |owner: &String| {
            let number = owner.rsplit('-').next().unwrap_or_default();
            format!("configmaps/c{number}:{owner}")
        };
        let name = uid.replace("u-", "c");
        let list = own.iter().map(reference).collect::<Vec<_>>().join(",");
        let (uid, list) = (format!("uid={uid}"), format!("owner={list}"));
        let mut line = vec![uid.as_str()];
        line.extend((!own.is_empty()).then_some(list.as_str()));
        world.make("configmap", &name, &words(&line));
    }
    world
}

#[test]
fn exactly_what_nobody_holds_is_collected() {
    for seed in 1..400u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let owners = random_graph(&mut random);
        let deleted = format!("u-{}", random.below(owners.len()));
        let mut world = build(&owners);
        let key = object_key(&format!("default/{}", deleted.replace("u-", "c")));
        let policy = [None, Some(kube::api::PropagationPolicy::Foreground)][random.below(2)].clone();
        world.server.delete(&("configmaps".to_owned(), key), policy.as_ref(), None);
        world.settle(&mut usize::MAX.clone());
        let left: BTreeSet<String> = world.keys("garbage").into_iter().collect();
        assert_eq!(
            left,
            oracle(owners.clone(), &deleted),
            "seed {seed}: {deleted} deleted ({policy:?}) from {owners:?}"
        );
    }
}
