//! Written cases, what kubectl makes of the same patches, and laws that hold for all of them.

use super::*;
use crate::schema::Definitions;
use crate::testing::{Random, golden, oracle};
use proptest::prelude::*;
use serde_json::json;

fn schema(kind: &str) -> &'static Schema {
    let parts: Vec<&str> = kind.split('/').collect();
    Definitions::builtin().of_kind(parts[0], parts[1], parts[2]).expect("a built-in kind")
}

#[test]
fn cases() {
    golden("strategic/cases.txt", |case| {
        let json = |key: &str| serde_json::from_str(case.get(key)).expect("JSON");
        match strategic_merge(&json("current"), &json("patch"), schema(case.get("kind"))) {
            Ok(value) => value.to_string(),
            Err(error) => format!("error: {error}"),
        }
    });
}

/// The parts of a pod that the cases from kubectl are about.
fn lists(pod: &Value) -> Value {
    let items = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
    let fields = ["env", "image", "name"];
    let pick = |item: &Value| -> Value {
        fields.iter().filter_map(|key| Some((key.to_string(), item.get(key)?.clone()))).collect()
    };
    let containers: Vec<Value> = items.iter().map(pick).collect();
    json!({"containers": containers, "finalizers": pod["metadata"]["finalizers"]})
}

#[test]
fn patches_do_what_they_do_in_kubectl() {
    oracle("strategic/kubectl.txt", |case| {
        let json = |key: &str| serde_json::from_str(case.get(key)).expect("JSON");
        let pod = strategic_merge(&json("current"), &json("patch"), schema("/v1/Pod")).expect("a patch");
        lists(&pod).to_string()
    });
}

fn containers() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::btree_map("[a-e]", "[0-9]", 0..5)
        .prop_map(|map| map.into_iter().collect())
        .prop_shuffle()
}

fn pod(containers: &[(String, String)]) -> Value {
    let list: Vec<Value> =
        containers.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
    json!({"spec": {"containers": list}})
}

proptest! {
    /// The patch that kubectl makes from two lists leads from one to the other.
    #[test]
    fn a_patch_of_all_differences_leads_to_the_goal(from in containers(), to in containers()) {
        let order: Vec<Value> = to.iter().map(|(name, _)| json!({"name": name})).collect();
        let mut items: Vec<Value> = to.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
        let gone = from.iter().filter(|(name, _)| !to.iter().any(|(other, _)| other == name));
        items.extend(gone.map(|(name, _)| json!({"name": name, "$patch": "delete"})));
        let patch = json!({"spec": {"$setElementOrder/containers": order, "containers": items}});
        prop_assert_eq!(strategic_merge(&pod(&from), &patch, schema("/v1/Pod")), Ok(pod(&to)));
    }

    /// Patching twice with the same patch changes nothing more.
    #[test]
    fn patches_are_idempotent(from in containers(), to in containers()) {
        let patch = pod(&to);
        let once = strategic_merge(&pod(&from), &patch, schema("/v1/Pod")).expect("a patch");
        prop_assert_eq!(strategic_merge(&once, &patch, schema("/v1/Pod")), Ok(once.clone()));
    }

    /// What the patch doesn't name keeps its order.
    #[test]
    fn unnamed_items_keep_their_order(from in containers(), named in prop::collection::vec("[a-e]", 0..3)) {
        let order: Vec<Value> = named.iter().map(|name| json!({"name": name})).collect();
        let patch = json!({"spec": {"$setElementOrder/containers": order}});
        let after = strategic_merge(&pod(&from), &patch, schema("/v1/Pod")).expect("a patch");
        let unnamed = |pod: &Value| -> Vec<Value> {
            let list = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
            list.into_iter().filter(|item| !order.iter().any(|each| each["name"] == item["name"])).collect()
        };
        prop_assert_eq!(unnamed(&pod(&from)), unnamed(&after));
    }
}

fn directives(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(directives).sum(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| usize::from(key.starts_with('$')) + directives(value)).sum()
        }
        _ => 0,
    }
}

/// Adds directives to a random object, whether or not they make sense there.
fn sprinkle(value: &mut Value, random: &mut Random) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| sprinkle(item, random)),
        Value::Object(map) => {
            map.values_mut().for_each(|value| sprinkle(value, random));
            let lists: Vec<(String, Value)> = map
                .iter()
                .filter(|(_, value)| value.is_array())
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            for (key, list) in lists {
                match random.below(4) {
                    0 => drop(map.insert(format!("{SET_ORDER}{key}"), list)),
                    1 => drop(map.insert(format!("{DELETE_FROM}{key}"), list)),
                    _ => {}
                }
            }
            match random.below(12) {
                0 => drop(
                    map.insert(PATCH.into(), ["replace", "delete", "merge"][random.below(3) as usize].into()),
                ),
                1 => drop(map.insert(RETAIN_KEYS.into(), map.keys().cloned().collect::<Vec<_>>().into())),
                _ => {}
            }
        }
        _ => {}
    }
}

/// Whatever the patch says, the result is an object that anyone could have sent.
#[test]
fn no_directive_reaches_the_result() {
    let mut applied = 0;
    for kind in ["/v1/Pod", "apps/v1/Deployment", "/v1/Service", "/v1/Node"] {
        for seed in 1..200 {
            let mut random = Random(seed);
            let current = random.value(schema(kind), 0);
            let mut patch = random.value(schema(kind), 0);
            sprinkle(&mut patch, &mut random);
            if let Ok(result) = strategic_merge(&current, &patch, schema(kind)) {
                assert_eq!(directives(&result), 0, "{kind}, seed {seed}: {patch} gave {result}");
                applied += 1;
            }
        }
    }
    assert!(applied > 200, "the generator makes patches that apply; {applied} did");
}

/// An empty patch changes nothing.
#[test]
fn an_empty_patch_changes_nothing() {
    for seed in 1..100 {
        let current = Random(seed).object_of(schema("apps/v1/Deployment"));
        assert_eq!(strategic_merge(&current, &json!({}), schema("apps/v1/Deployment")), Ok(current));
    }
}
