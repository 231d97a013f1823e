//! ServiceAccount: whom a pod acts as, and the token that it is given for that.
//!
//! A pod that names no account runs as `default`; the account must be there. Unless pod or account say
//! otherwise, each container finds a token, the cluster's CA and its namespace in a projected volume.

use std::time::Duration;

use api::object;
use api::status::Status;
use serde_json::{Value, json};

use super::mountable_secrets;
use crate::error::Outcome;
use crate::storage::object::Stored;
use crate::storage::{decode, key};
use crate::verbs::Call;

const DEFAULT: &str = "default";
/// How long a pod waits for its namespace's default account, which a controller is about to make.
const PATIENCE: Duration = Duration::from_secs(1);
/// Marks a pod that a node reports, not one that it is given.
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour and seven seconds: upstream tells tokens that it injected by it.
const TOKEN_SECONDS: i64 = 3607;

/// Completes a new pod.
///
/// # Errors
/// 403 if there is no such account, or it doesn't allow what the pod mounts.
pub async fn admit(call: &Call<'_>, pod: &mut Value) -> Outcome<()> {
    let refuse = |pod: &Value, why: &str| Status::forbidden("pods", "", object::name(pod), why);
    if object::annotation(pod, MIRROR).is_some() {
        return Ok(mirror(pod).map_err(|why| refuse(pod, why))?);
    }
    set_default(pod);
    let name = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default().to_owned();
    let Some(account) = find(call, &name).await? else {
        let namespace = call.namespace();
        let why =
            format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(refuse(pod, &why).into());
    };
    let account = decode(&account)?;
    if object::annotation(&account, ENFORCE) == Some("true") {
        mountable_secrets::check(&account, pod).map_err(|why| refuse(pod, &why))?;
    }
    if wants_token(&account, pod) {
        mount_token(pod, || api::name::generate_name(VOLUME_PREFIX, rand::random()));
    }
    if items(&pod["spec"]["imagePullSecrets"]).is_empty() && !items(&account["imagePullSecrets"]).is_empty() {
        pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    Ok(())
}

/// Names the account, in both fields that clients read.
fn set_default(pod: &mut Value) {
    let given = ["serviceAccountName", "serviceAccount"]
        .into_iter()
        .find_map(|field| pod["spec"][field].as_str().filter(|name| !name.is_empty()))
        .unwrap_or(DEFAULT)
        .to_owned();
    pod["spec"]["serviceAccountName"] = json!(given);
    pod["spec"]["serviceAccount"] = json!(given);
}

/// What a node reports acts as nobody.
fn mirror(pod: &Value) -> Result<(), &'static str> {
    let spec = &pod["spec"];
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Err("a mirror pod may not reference service accounts");
    }
    if items(&spec["volumes"]).iter().any(|volume| volume["secret"].is_object()) {
        return Err("a mirror pod may not reference secrets");
    }
    let mut sources =
        items(&spec["volumes"]).iter().flat_map(|volume| items(&volume["projected"]["sources"]));
    match sources.any(|source| source["serviceAccountToken"].is_object()) {
        true => Err("a mirror pod may not use ServiceAccountToken volume projections"),
        false => Ok(()),
    }
}

/// The account, from the cache or, if that may be behind, from the store. A namespace's default one is waited
/// for: who makes a namespace and a pod in it shouldn't be faster than the controller.
async fn find(call: &Call<'_>, name: &str) -> Outcome<Option<std::sync::Arc<Stored>>> {
    let storage = call.storage();
    let key = key::of_core("serviceaccounts", call.namespace(), name);
    if let Some(found) = storage.cache.get(&key) {
        return Ok(Some(found));
    }
    if let Some(found) = storage.read(&key).await? {
        return Ok(Some(std::sync::Arc::new(found)));
    }
    if name != DEFAULT {
        return Ok(None);
    }
    let mut changed = storage.cache.resource(&key::of_core("serviceaccounts", "", "")).subscribe();
    let appears = changed.wait_for(|_| storage.cache.get(&key).is_some());
    let _ = tokio::time::timeout(PATIENCE, appears).await;
    Ok(storage.cache.get(&key))
}

/// The pod has the last word, then the account; both silent means yes.
fn wants_token(account: &Value, pod: &Value) -> bool {
    let said =
        [&pod["spec"], account].into_iter().find_map(|place| place["automountServiceAccountToken"].as_bool());
    said.unwrap_or(true)
}

/// Gives the token's volume to all containers that mount nothing at its place.
fn mount_token(pod: &mut Value, new_name: impl FnOnce() -> String) {
    let volumes = items(&pod["spec"]["volumes"]).iter().filter_map(|volume| volume["name"].as_str());
    let present = volumes.into_iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let is_new = present.is_none();
    let name = present.unwrap_or_else(new_name);
    let mut used = false;
    for list in ["initContainers", "containers"] {
        // Not by index, which would leave a null where there is no list.
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if items(&container["volumeMounts"]).iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            push(
                container,
                "volumeMounts",
                json!({ "name": name, "readOnly": true, "mountPath": MOUNT_PATH }),
            );
            used = true;
        }
    }
    if is_new && used {
        push(&mut pod["spec"], "volumes", json!({ "name": name, "projected": token_projection() }));
    }
}

/// The volume's content, complete with defaults.
fn token_projection() -> Value {
    json!({
        "defaultMode": 0o644,
        "sources": [
            { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
            { "configMap": {
                "name": "kube-root-ca.crt",
                "items": [{ "key": "ca.crt", "path": "ca.crt" }],
            } },
            { "downwardAPI": { "items": [{
                "path": "namespace",
                "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
            }] } },
        ],
    })
}

pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn push(object: &mut Value, list: &str, item: Value) {
    match object[list].as_array_mut() {
        Some(items) => items.push(item),
        None => object[list] = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_agree() {
        for (spec, expected) in [
            (json!({}), "default"),
            (json!({"serviceAccountName": "builder"}), "builder"),
            (json!({"serviceAccount": "old"}), "old"),
        ] {
            let mut pod = json!({"spec": spec});
            set_default(&mut pod);
            assert_eq!(pod["spec"], json!({"serviceAccountName": expected, "serviceAccount": expected}));
        }
    }

    #[test]
    fn each_container_gets_one_mount_and_the_pod_one_volume() {
        let own = json!([{"name": "mine", "mountPath": MOUNT_PATH}]);
        let mut pod = json!({"spec": {
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b", "volumeMounts": own}],
        }});
        mount_token(&mut pod, || "kube-api-access-x".to_owned());
        let spec = &pod["spec"];
        assert_eq!(spec["initContainers"][0]["volumeMounts"][0]["name"], "kube-api-access-x");
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-x");
        assert_eq!(spec["containers"][1]["volumeMounts"], own);
        assert_eq!(spec["volumes"][0]["name"], "kube-api-access-x");
        let once = pod.clone();
        mount_token(&mut pod, || "kube-api-access-y".to_owned());
        assert_eq!(pod, once, "a pod that has it keeps it");
        let spec = pod["spec"].as_object().expect("a spec");
        assert_eq!(spec.keys().collect::<Vec<_>>(), ["containers", "initContainers", "volumes"]);
        let mut plain = json!({"spec": {"containers": [{"name": "a"}]}});
        mount_token(&mut plain, || "kube-api-access-x".to_owned());
        assert!(!plain["spec"].as_object().expect("a spec").contains_key("initContainers"));
        let mut all_own = json!({"spec": {"containers": [{"name": "b", "volumeMounts": own}]}});
        mount_token(&mut all_own, || "kube-api-access-x".to_owned());
        assert_eq!(all_own["spec"]["volumes"], Value::Null, "nobody needs it");
    }

    #[test]
    fn the_projection_is_complete() {
        let mut pod = json!({"spec": {"volumes": [{}], "containers": [{"name": "a", "image": "i"}]}});
        pod["spec"]["volumes"][0] = json!({"name": "x", "projected": token_projection()});
        let before = pod["spec"]["volumes"].clone();
        api::defaults::apply("", "Pod", &mut pod);
        assert_eq!(pod["spec"]["volumes"], before, "no default is missing");
    }

    #[test]
    fn pod_and_account_may_decline() {
        let wants = |pod: Value, account: Value| {
            let said = |value: Value| json!({"automountServiceAccountToken": value});
            wants_token(&said(account), &json!({"spec": said(pod)}))
        };
        assert!(wants(Value::Null, Value::Null));
        assert!(!wants(Value::Null, json!(false)));
        assert!(wants(json!(true), json!(false)));
        assert!(!wants(json!(false), json!(true)));
    }
}
