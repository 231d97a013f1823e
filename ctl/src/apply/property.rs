//! Properties of three-way patches, with the API server's own strategic merge as the judge.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::rules;
use super::three_way::patch;
use crate::cluster::kinds::testing::kind;

/// A container: a name that lists are merged by, and fields that come and go.
fn container() -> impl Strategy<Value = Value> {
    let command = proptest::option::of(proptest::collection::vec("[ab]", 0..3));
    let env = proptest::collection::btree_map("[XYZ]", "[01]", 0..3);
    ("[abc]", proptest::option::of("[xy]"), command, env).prop_map(|(name, image, command, env)| {
        let mut container = json!({"name": name});
        if let Some(image) = image {
            container["image"] = json!(image);
        }
        if let Some(command) = command {
            container["command"] = json!(command);
        }
        if !env.is_empty() {
            let entry = |(name, value): (String, String)| json!({"name": name, "value": value});
            container["env"] = env.into_iter().map(entry).collect();
        }
        container
    })
}

/// A Deployment with a few fields of every merge strategy.
fn deployment() -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[klm]", "[01]", 0..3);
    let containers = proptest::collection::vec(container(), 0..4);
    (proptest::option::of(0..3u8), labels, containers).prop_map(|(replicas, labels, containers)| {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}});
        if !labels.is_empty() {
            object["metadata"]["labels"] = json!(labels);
        }
        if let Some(replicas) = replicas {
            object["spec"]["replicas"] = json!(replicas);
        }
        let mut names = std::collections::BTreeSet::new();
        let distinct: Vec<Value> =
            containers.into_iter().filter(|item| names.insert(item["name"].to_string())).collect();
        if !distinct.is_empty() {
            object["spec"]["template"]["spec"]["containers"] = json!(distinct);
        }
        object
    })
}

/// Everything that `wanted` says is in `live`; lists of named items may hold more, in any order.
fn says(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| says(live.get(name).unwrap_or(&Value::Null), value))
        }
        (Value::Array(live), Value::Array(wanted)) if wanted.iter().all(|item| item["name"].is_string()) => {
            let find = |name: &Value| live.iter().find(|item| item["name"] == *name);
            wanted.iter().all(|item| find(&item["name"]).is_some_and(|found| says(found, item)))
        }
        (live, wanted) => live == wanted,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_patched_object_says_what_is_wanted_and_needs_no_further_patch(
        last in deployment(), live in deployment(), wanted in deployment(),
    ) {
        let (rules, _) = rules::of(&kind("deploy"));
        let schema = api::schema::Definitions::builtin().of_kind("apps", "v1", "Deployment").expect("built in");
        let change = patch(Some(&last), &live, &wanted, &rules);
        let patched = api::patch::strategic_merge(&live, &change, schema).expect("a well-formed patch");
        prop_assert!(says(&patched, &wanted), "{} patched by {} is {}", live, change, patched);
        let again = patch(Some(&wanted), &patched, &wanted, &rules);
        prop_assert_eq!(again, Value::Object(Map::new()));
    }

    #[test]
    fn what_nobody_applied_is_left_alone(live in deployment()) {
        let (rules, _) = rules::of(&kind("deploy"));
        let bare = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}});
        prop_assert_eq!(patch(Some(&bare), &live, &bare, &rules), Value::Object(Map::new()));
    }
}
