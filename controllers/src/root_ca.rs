//! Root CA publisher: the ConfigMap `kube-root-ca.crt` of every active namespace holds the cluster's CA.
//!
//! Pods verify the API server with it; who edits or deletes it gets it back.

use crate::{
    plan::{Action, Part, Plan, Target},
    service_account::is_active,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{ResourceExt, core::ApiResource};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

/// Upstream's name.
pub const NAME: &str = "kube-root-ca.crt";
const FIELD: &str = "ca.crt";
const DESCRIPTION: &str =
    "The certificate authority of this cluster's API server, for clients inside the cluster.";

/// What to do for `namespace`, given its ConfigMap called [`NAME`] and the CA as PEM.
pub fn reconcile(namespace: &Namespace, map: Option<Arc<ConfigMap>>, ca: &str) -> Plan {
    let mut plan = Plan::nothing();
    if !is_active(namespace) {
        return plan;
    }
    let wanted = BTreeMap::from([(FIELD.to_owned(), ca.to_owned())]);
    match map {
        None => plan.push(Action::Create {
            kind: ApiResource::erase::<ConfigMap>(&()),
            object: json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "namespace": namespace.name_any(),
                    "name": NAME,
                    "annotations": {"kubernetes.io/description": DESCRIPTION},
                },
                "data": wanted,
            }),
            announce: None,
            reason: "every namespace has the root CA".to_owned(),
        }),
        Some(map) => repair(&map, &wanted, &mut plan),
    }
    plan
}

fn repair(map: &ConfigMap, wanted: &BTreeMap<String, String>, plan: &mut Plan) {
    let data = map.data.clone().unwrap_or_default();
    if data == *wanted && map.binary_data.is_none() {
        return;
    }
    let extra = data.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.clone(), json!(null)));
    let mut patch: serde_json::Map<String, serde_json::Value> = extra.collect();
    patch.extend(wanted.iter().map(|(key, value)| (key.clone(), json!(value))));
    plan.patch(
        Target::of(map),
        Part::Whole,
        json!({"data": patch, "binaryData": null}),
        "its data isn't the root CA",
    );
}
