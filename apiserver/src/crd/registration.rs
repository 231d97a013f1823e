//! APIServices of the groups and versions that definitions serve, so that who lists APIServices sees all of the API.
//!
//! What upstream's crd-registration and autoregister controllers do together: an APIService of ours carries a label,
//! is kept as it must be, and goes with the last definition that serves its version. One without the label is
//! somebody's own, who serves the version elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::controller::{is_settled, objects, send};
use crate::aggregation;
use crate::handle::ApiServer;

/// The label by which upstream's tools know APIServices that a controller keeps, and its value for those of definitions.
const MANAGED: (&str, &str) = ("kube-aggregator.kubernetes.io/automanaged", "true");
/// The place of their groups among groups, and of each version in its group, as upstream has them.
const PRIORITIES: (i64, i64) = (1000, 100);

/// What is to be done about one APIService.
#[derive(Debug, PartialEq)]
enum Step {
    Create(Value),
    Update(Value),
    Delete(Value),
}

/// Makes the APIServices what these definitions want; false if one could not be written.
pub async fn keep(server: &Arc<ApiServer>, definitions: &[Value]) -> bool {
    let Ok(services) = objects(server, aggregation::GROUP, "apiservices").await else { return false };
    let mut settled = true;
    for step in plan(definitions, &services) {
        settled &= perform(server, &step).await;
    }
    settled
}

async fn perform(server: &Arc<ApiServer>, step: &Step) -> bool {
    let all = format!("/apis/{}/v1/apiservices", aggregation::GROUP);
    let one = |object: &Value| format!("{all}/{}", api::object::name(object));
    let code = match step {
        Step::Create(object) => send(server, Method::POST, &all, object.to_string()).await,
        Step::Update(object) => send(server, Method::PUT, &one(object), object.to_string()).await,
        Step::Delete(object) => {
            let only = json!({"preconditions": {"uid": api::object::uid(object)}});
            send(server, Method::DELETE, &one(object), only.to_string()).await
        }
    };
    is_settled(code)
}

fn plan(definitions: &[Value], services: &[Value]) -> Vec<Step> {
    let served: BTreeSet<(&str, &str)> = definitions.iter().flat_map(served_by).collect();
    let mut wanted: BTreeMap<String, Value> =
        served.into_iter().map(api_service).map(|one| (api::object::name(&one).to_owned(), one)).collect();
    let mut steps = Vec::new();
    for there in services {
        let wanted = wanted.remove(api::object::name(there));
        if api::object::labels(there).get(MANAGED.0).is_none_or(|value| value != MANAGED.1) {
            continue;
        }
        match wanted {
            None => steps.push(Step::Delete(there.clone())),
            Some(wanted) if wanted["spec"] == there["spec"] => {}
            Some(wanted) => {
                let mut next = there.clone();
                next["spec"] = wanted["spec"].clone();
                steps.push(Step::Update(next));
            }
        }
    }
    steps.extend(wanted.into_values().map(Step::Create));
    steps
}

/// The groups and versions that a definition says are served.
fn served_by(definition: &Value) -> impl Iterator<Item = (&str, &str)> {
    let spec = &definition["spec"];
    let versions = spec["versions"].as_array().into_iter().flatten();
    let served = versions.filter(|version| version["served"] == true);
    served.filter_map(|version| Some((spec["group"].as_str()?, version["name"].as_str()?)))
}

fn api_service((group, version): (&str, &str)) -> Value {
    json!({
        "apiVersion": format!("{}/v1", aggregation::GROUP), "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED.0: MANAGED.1}},
        "spec": {
            "group": group, "version": version,
            "groupPriorityMinimum": PRIORITIES.0, "versionPriority": PRIORITIES.1,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(group: &str, versions: &[(&str, bool)]) -> Value {
        let versions: Vec<Value> =
            versions.iter().map(|(name, served)| json!({"name": name, "served": served})).collect();
        json!({"spec": {"group": group, "versions": versions}})
    }

    #[test]
    fn each_served_version_has_one() {
        let two = [
            definition("a.example", &[("v1", true), ("v0", false)]),
            definition("a.example", &[("v1", true), ("v2", true)]),
        ];
        let (v1, v2) = (api_service(("a.example", "v1")), api_service(("a.example", "v2")));
        assert_eq!(plan(&two, &[]), [Step::Create(v1.clone()), Step::Create(v2.clone())]);
        assert_eq!(plan(&two, &[v1.clone(), v2.clone()]), []);
        assert_eq!(plan(&two[..1], &[v1.clone(), v2.clone()]), [Step::Delete(v2.clone())]);
        assert_eq!(plan(&[], &[v1.clone(), v2.clone()]), [Step::Delete(v1.clone()), Step::Delete(v2)]);
    }

    #[test]
    fn ours_are_kept_and_others_left_alone() {
        let one = [definition("a.example", &[("v1", true)])];
        let ours = api_service(("a.example", "v1"));
        let mut changed = ours.clone();
        changed["spec"]["versionPriority"] = json!(7);
        changed["metadata"]["resourceVersion"] = json!("3");
        let mut back = ours.clone();
        back["metadata"]["resourceVersion"] = json!("3");
        assert_eq!(plan(&one, &[changed]), [Step::Update(back)]);

        let mut theirs = ours.clone();
        theirs["metadata"]["labels"] = json!({});
        theirs["spec"]["service"] = json!({"name": "s", "namespace": "n"});
        let mut built_in = ours;
        built_in["metadata"]["labels"][MANAGED.0] = json!("onstart");
        for other in [theirs, built_in] {
            assert_eq!(plan(&one, std::slice::from_ref(&other)), []);
            assert_eq!(plan(&[], &[other]), []);
        }
    }
}
