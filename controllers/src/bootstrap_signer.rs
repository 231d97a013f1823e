//! Publishes how the cluster is reached and recognised, signed with each bootstrap token: the ConfigMap
//! `kube-public/cluster-info`. A new machine, which knows a token and nothing else, believes what is signed with it.
//!
//! Upstream's bootstrapsigner signs what kubeadm has made; here there is nobody else to make it.

use crate::plan::{Action, Part, Plan, Target, to_value};
use api::bootstrap_token::{
    BootstrapToken, INFO_KUBECONFIG, INFO_NAME, INFO_NAMESPACE, INFO_SIGNATURE, TokenTerms,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Secret};
use kube::core::ApiResource;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// The URLs of the living API servers, as the Endpoints of `default/kubernetes` name them.
pub fn servers(endpoints: &Endpoints) -> Vec<String> {
    let subsets = endpoints.subsets.iter().flatten();
    let of_subset = |subset: &k8s_openapi::api::core::v1::EndpointSubset| {
        let port = subset.ports.iter().flatten().map(|port| port.port).next().unwrap_or(6443);
        let addresses = subset.addresses.iter().flatten();
        let url = move |ip: &str| match ip.contains(':') {
            true => format!("https://[{ip}]:{port}"),
            false => format!("https://{ip}:{port}"),
        };
        addresses.map(|address| url(&address.ip)).collect::<Vec<_>>()
    };
    subsets.flat_map(of_subset).collect()
}

/// A kubeconfig that names the cluster and no user; `None` if no server is known.
pub fn kubeconfig(servers: &[String], ca_pem: &str) -> Option<String> {
    let (first, others) = servers.split_first()?;
    let mut cluster = json!({"certificate-authority-data": STANDARD.encode(ca_pem), "server": first});
    if !others.is_empty() {
        cluster["extensions"] = json!([{"name": client::config::SERVERS_EXTENSION, "extension": others}]);
    }
    Some(api::yaml::to_yaml(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "", "cluster": cluster}],
        "contexts": null,
        "current-context": "",
        "preferences": {},
        "users": null,
    })))
}

/// What to do so that `info` says `kubeconfig`, signed with each of `tokens` that is for it.
pub fn reconcile(info: Option<&ConfigMap>, tokens: &[Arc<Secret>], kubeconfig: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let mut wanted = BTreeMap::from([(INFO_KUBECONFIG.to_owned(), kubeconfig.to_owned())]);
    for secret in tokens {
        let secret = to_value(&**secret);
        let terms = TokenTerms::of_secret(&secret);
        let token = BootstrapToken::of_secret(&secret).filter(|_| terms.signing && !terms.has_ended(now));
        let Some(token) = token else { continue };
        wanted.insert(format!("{INFO_SIGNATURE}{}", token.id), token.sign(kubeconfig));
        terms.expiration.into_iter().for_each(|end| plan.look_again(end));
    }
    match info {
        None => plan.push(create(&wanted)),
        Some(info) => repair(info, &wanted, &mut plan),
    }
    plan
}

fn create(data: &BTreeMap<String, String>) -> Action {
    Action::Create {
        kind: ApiResource::erase::<ConfigMap>(&()),
        object: json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"namespace": INFO_NAMESPACE, "name": INFO_NAME},
            "data": data,
        }),
        announce: None,
        reason: "new machines look for the cluster there".to_owned(),
    }
}

/// Other fields than the kubeconfig and its signatures are somebody else's.
fn repair(info: &ConfigMap, wanted: &BTreeMap<String, String>, plan: &mut Plan) {
    let data = info.data.clone().unwrap_or_default();
    let stale = |name: &&String| name.starts_with(INFO_SIGNATURE) && !wanted.contains_key(*name);
    let mut patch: BTreeMap<&String, Value> =
        data.keys().filter(stale).map(|name| (name, Value::Null)).collect();
    let differs = |(name, value): &(&String, &String)| data.get(*name) != Some(*value);
    patch.extend(wanted.iter().filter(differs).map(|(name, value)| (name, json!(value))));
    if !patch.is_empty() {
        plan.patch(Target::of(info), Part::Whole, json!({"data": patch}), "servers or tokens have changed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "the cluster";

    fn token(id: &str, end: Option<i64>, signing: bool) -> Arc<Secret> {
        let token: BootstrapToken = format!("{id}.0123456789abcdef").parse().expect("a token");
        let expiration = end.map(|end| Timestamp::from_second(end).expect("a time"));
        let terms = TokenTerms { expiration, signing, ..TokenTerms::default() };
        Arc::new(serde_json::from_value(token.to_secret(&terms)).expect("a Secret"))
    }

    fn info(data: Value) -> ConfigMap {
        let metadata =
            json!({"namespace": INFO_NAMESPACE, "name": INFO_NAME, "uid": "u", "resourceVersion": "1"});
        serde_json::from_value(json!({"metadata": metadata, "data": data})).expect("a ConfigMap")
    }

    fn plan(info: Option<&ConfigMap>, tokens: &[Arc<Secret>]) -> Plan {
        reconcile(info, tokens, KUBECONFIG, Timestamp::from_second(1_000).expect("a time"))
    }

    /// The ConfigMap that a plan makes of an empty one.
    fn made(tokens: &[Arc<Secret>]) -> Value {
        match plan(None, tokens).actions.as_slice() {
            [Action::Create { object, .. }] => object["data"].clone(),
            other => panic!("one create, not {other:?}"),
        }
    }

    #[test]
    fn each_token_that_is_for_it_signs_until_it_ends() {
        let tokens =
            [token("aaaaaa", None, true), token("bbbbbb", Some(1_000), true), token("cccccc", None, false)];
        let data = made(&tokens);
        let names: Vec<&String> = data.as_object().expect("data").keys().collect();
        assert_eq!(names, ["jws-kubeconfig-aaaaaa", "kubeconfig"]);
        let known: BootstrapToken = "aaaaaa.0123456789abcdef".parse().expect("a token");
        assert!(known.verifies(KUBECONFIG, data["jws-kubeconfig-aaaaaa"].as_str().expect("a signature")));
        let later =
            plan(Some(&info(data)), &[token("aaaaaa", None, true), token("dddddd", Some(2_000), true)]);
        assert_eq!(later.again, Some(Timestamp::from_second(2_000).expect("a time")));
    }

    #[test]
    fn what_is_right_stays_and_what_is_others_is_left_alone() {
        let tokens = [token("aaaaaa", None, true)];
        let mut data = made(&tokens);
        data["mine"] = json!("x");
        assert_eq!(plan(Some(&info(data.clone())), &tokens), Plan::nothing());
        data["jws-kubeconfig-eeeeee"] = json!("old");
        data["kubeconfig"] = json!("another");
        let text = plan(Some(&info(data)), &tokens).to_string();
        assert!(
            text.contains(r#"{"data":{"jws-kubeconfig-eeeeee":null,"kubeconfig":"the cluster"}}"#),
            "{text}"
        );
    }

    #[test]
    fn all_servers_are_named() {
        let endpoints: Endpoints = serde_json::from_value(json!({"metadata": {}, "subsets": [
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"port": 6443}]}]}))
        .expect("Endpoints");
        let servers = servers(&endpoints);
        assert_eq!(servers, ["https://10.0.0.1:6443", "https://10.0.0.2:6443"]);
        let text = kubeconfig(&servers, "pem").expect("a kubeconfig");
        let read = kube::config::Kubeconfig::from_yaml(&text).expect("kube reads it");
        let cluster = read.clusters[0].cluster.as_ref().expect("a cluster");
        assert_eq!(cluster.server.as_deref(), Some("https://10.0.0.1:6443"));
        assert!(text.contains("https://10.0.0.2:6443"), "{text}");
        assert_eq!(kubeconfig(&[], "pem"), None);
    }
}
