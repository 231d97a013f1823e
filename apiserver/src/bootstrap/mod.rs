//! Objects that every cluster has: namespaces, the system's priority classes, priority and fairness, and the roles and bindings that make RBAC usable.
//!
//! They are data (`namespaces.yaml`, `service_accounts.yaml`, `priority_classes.yaml`, `flow_control.yaml`,
//! `cluster_roles.yaml`, `cluster_role_bindings.yaml`, and in lines `controller_roles.txt` and `roles.txt`). The
//! server creates those that are missing at each start. Roles and bindings are also given back what they have lost
//! ([`reconcile`]); anything else that is there stays as an administrator changed it.

mod lines;
pub mod reconcile;

use serde::Deserialize;
use serde_json::{Value, json};

const DOCUMENTS: [(&str, &str); 6] = [
    ("namespaces.yaml", include_str!("namespaces.yaml")),
    ("service_accounts.yaml", include_str!("service_accounts.yaml")),
    ("priority_classes.yaml", include_str!("priority_classes.yaml")),
    ("flow_control.yaml", include_str!("flow_control.yaml")),
    ("cluster_roles.yaml", include_str!("cluster_roles.yaml")),
    ("cluster_role_bindings.yaml", include_str!("cluster_role_bindings.yaml")),
];

/// The objects, namespaces first. Complete but for what the server sets in every new object.
pub fn objects() -> Vec<Value> {
    let documents = DOCUMENTS.iter().flat_map(|(file, text)| documents(file, text));
    documents.chain(lines::controller_roles()).chain(lines::roles()).map(with_label).collect()
}

/// An APIService for each group and version that is built in, the core group first, as upstream lists them.
pub fn api_services(groups: &[(String, Vec<String>)]) -> Vec<Value> {
    let service = |group: &str, version: &str, place: usize| {
        let minimum = if group.is_empty() { 18_000 } else { 17_900 - 10 * place };
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {
                "name": format!("{version}.{group}"),
                "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
            },
            "spec": {"group": group, "version": version, "groupPriorityMinimum": minimum, "versionPriority": 15},
        })
    };
    let all = groups.iter().enumerate();
    all.flat_map(|(place, (group, versions))| {
        versions.iter().map(move |version| service(group, version, place))
    })
    .collect()
}

fn documents(file: &str, text: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(text).map(Value::deserialize);
    documents
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("embedded {file} is valid YAML: {error}"))
}

/// Upstream marks the roles and bindings that it makes; tools leave marked ones alone.
fn with_label(mut object: Value) -> Value {
    if object["apiVersion"] == "flowcontrol.apiserver.k8s.io/v1" {
        // Upstream's: the server itself keeps the object as it ships it until an administrator changes it.
        object["metadata"]["annotations"]["apf.kubernetes.io/autoupdate-spec"] = "true".into();
    }
    if object["apiVersion"] == "rbac.authorization.k8s.io/v1" {
        object["metadata"]["labels"]["kubernetes.io/bootstrapping"] = "rbac-defaults".into();
        object["metadata"]["annotations"][reconcile::AUTOUPDATE] = "true".into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binding_binds_a_role_that_exists() {
        let objects = objects();
        let names_of = |kind: &str| -> Vec<String> {
            let ours = objects.iter().filter(|object| object["kind"] == kind);
            ours.map(|object| object["metadata"]["name"].as_str().expect("name").to_owned()).collect()
        };
        let roles = names_of("ClusterRole");
        assert!(roles.contains(&"system:controller:job-controller".to_owned()));
        for binding in objects.iter().filter(|object| object["kind"] == "ClusterRoleBinding") {
            let role = binding["roleRef"]["name"].as_str().expect("role").to_owned();
            assert!(roles.contains(&role), "{} binds {role}", binding["metadata"]["name"]);
        }
        assert_eq!(names_of("Namespace"), ["default", "kube-node-lease", "kube-public", "kube-system"]);
    }

    #[test]
    fn objects_are_typed_and_named_once() {
        let mut keys: Vec<String> = objects()
            .iter()
            .map(|object| {
                let metadata = &object["metadata"];
                format!(
                    "{} {} {} {}",
                    object["apiVersion"],
                    object["kind"],
                    metadata["namespace"].as_str().unwrap_or_default(),
                    metadata["name"]
                )
            })
            .collect();
        assert!(keys.iter().all(|key| !key.contains("null")), "{keys:?}");
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn rules_name_verbs_and_something_to_do_them_on() {
        let objects = objects();
        let roles =
            objects.iter().filter(|object| object["kind"] == "ClusterRole" || object["kind"] == "Role");
        for role in roles {
            for rule in role["rules"].as_array().expect("rules") {
                let has = |field: &str| rule[field].as_array().is_some_and(|list| !list.is_empty());
                let on_something = has("nonResourceURLs") || (has("apiGroups") && has("resources"));
                assert!(has("verbs") && on_something, "{}: {rule}", role["metadata"]["name"]);
            }
        }
    }
}
