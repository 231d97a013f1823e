//! What an API server behind ours says that it has, in the form in which ours lists it. No I/O.

use std::sync::Arc;

use serde_json::{Value, json};

use super::swagger::Swagger;

/// What was learned of a group and version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Learned {
    /// Its resources as aggregated discovery lists them.
    pub resources: Vec<Value>,
    /// Where its OpenAPI document is, with its hash, if it has one.
    pub openapi: Option<String>,
    /// What its document of version 2 says of it, if it has one.
    pub swagger: Option<Arc<Swagger>>,
}

impl Learned {
    /// From its APIResourceList, the list of its OpenAPI documents, and that of version 2.
    pub fn of(
        group: &str,
        version: &str,
        list: &Value,
        index: &Value,
        swagger: Option<Arc<Swagger>>,
    ) -> Self {
        let path = format!("apis/{group}/{version}");
        let openapi = index["paths"][&path]["serverRelativeURL"].as_str().map(str::to_owned);
        Self { resources: resources(group, version, list), openapi, swagger }
    }
}

fn resources(group: &str, version: &str, list: &Value) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for entry in list["resources"].as_array().into_iter().flatten() {
        let name = entry["name"].as_str().unwrap_or_default();
        match name.split_once('/') {
            None => all.push(resource(group, version, entry)),
            Some((parent, sub)) => {
                let Some(parent) = all.iter_mut().find(|known| known["resource"] == parent) else { continue };
                let sub = json!({
                    "subresource": sub,
                    "responseKind": kind(group, version, entry),
                    "verbs": entry["verbs"],
                });
                match parent["subresources"].as_array_mut() {
                    Some(subs) => subs.push(sub),
                    None => parent["subresources"] = json!([sub]),
                }
            }
        }
    }
    all
}

fn resource(group: &str, version: &str, entry: &Value) -> Value {
    let mut made = json!({
        "resource": entry["name"],
        "responseKind": kind(group, version, entry),
        "scope": if entry["namespaced"] == true { "Namespaced" } else { "Cluster" },
        "singularResource": entry["singularName"],
        "verbs": entry["verbs"],
    });
    for list in ["shortNames", "categories"] {
        if entry[list].as_array().is_some_and(|list| !list.is_empty()) {
            made[list] = entry[list].clone();
        }
    }
    made
}

/// A list says a group and version only where they aren't its own.
fn kind(group: &str, version: &str, entry: &Value) -> Value {
    let or = |field: &str, own: &str| {
        entry[field].as_str().filter(|text| !text.is_empty()).unwrap_or(own).to_owned()
    };
    json!({"group": or("group", group), "version": or("version", version), "kind": entry["kind"]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_becomes_what_aggregated_discovery_lists() {
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
             "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/scale", "singularName": "", "namespaced": true, "kind": "Scale",
             "group": "autoscaling", "version": "v1", "verbs": ["update"]},
            {"name": "lost/status", "kind": "Lost", "verbs": []},
        ]});
        let index = json!({"paths": {"apis/w.example/v1": {"serverRelativeURL": "/openapi/v3/apis/w.example/v1?hash=A"}}});
        let learned = Learned::of("w.example", "v1", &list, &index, None);
        assert_eq!(learned.openapi.as_deref(), Some("/openapi/v3/apis/w.example/v1?hash=A"));
        let scale = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
        assert_eq!(
            learned.resources,
            [json!({
                "resource": "flunders", "singularResource": "flunder", "scope": "Namespaced",
                "responseKind": {"group": "w.example", "version": "v1", "kind": "Flunder"},
                "verbs": ["get"], "shortNames": ["fl"],
                "subresources": [{"subresource": "scale", "responseKind": scale, "verbs": ["update"]}],
            })]
        );
    }
}
