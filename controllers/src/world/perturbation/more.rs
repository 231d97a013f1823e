//! The steps of stories about nodes, ends, addresses, tokens, and what goes wrong.

use super::steps::{cluster, live};
use crate::world::{World, object_key, objects::words, text};
use kube::api::PropagationPolicy;
use serde_json::{Value, json};

const CLIENT_REQUEST: &str = include_str!("../../../testdata/node.csr");

fn slot(plural: &str, key: &str) -> (String, client::informer::ObjectKey) {
    (plural.to_owned(), object_key(key))
}

fn delete(world: &mut World, plural: &str, key: &str, policy: Option<PropagationPolicy>) {
    world.server.delete(&slot(plural, key), policy.as_ref(), None);
}

fn annotated(pairs: Value) -> Value {
    json!({"metadata": {"annotations": pairs}})
}

/// Time passes, and the living kubelets say so.
fn pass(world: &mut World, seconds: i64, dead: &[&str]) {
    world.pass(seconds);
    world.kubelets(dead);
}

pub fn ten_seconds(world: &mut World) {
    pass(world, 10, &[]);
}

pub fn ten_minutes(world: &mut World) {
    pass(world, 601, &[]);
}

pub fn year(world: &mut World) {
    pass(world, 366 * 24 * 3600, &[]);
}

/// Pods get nodes, but their kubelets can't start them.
pub fn bind(world: &mut World) {
    world.schedule();
    world.end_deleted_pods(&[]);
}

pub fn minutes_in_vain(world: &mut World) {
    world.pass(121);
    world.heartbeats(&[]);
}

pub fn short_job(world: &mut World) {
    world.make("job", "short", &words(&["completions=2", "parallelism=2", "ttl=30", "app=short"]));
}

pub fn slow_job(world: &mut World) {
    let spec = ["completions=4", "parallelism=4", "indexed", "app=slow"];
    world.make_with("job", "slow", &words(&spec), &annotated(json!({"amoeba.dev/straggler-factor": "2"})));
}

/// Running pods say since when.
pub fn started(world: &mut World) {
    let now = world.server.now.to_string();
    let running: Vec<String> = world
        .server
        .of_kind("pods")
        .filter(|(_, pod)| text(pod, "/status/phase") == "Running" && pod["status"]["startTime"].is_null())
        .map(|(key, _)| key.to_string())
        .collect();
    for key in running {
        world.edit("pods", &object_key(&key), &json!({"status": {"startTime": now}}));
    }
}

pub fn work_but_one(world: &mut World) {
    let index = "/metadata/annotations/batch.kubernetes.io~1job-completion-index";
    let done: Vec<String> = world
        .server
        .of_kind("pods")
        .filter(|(_, pod)| text(pod, index) != "3")
        .map(|(key, _)| key.to_string())
        .collect();
    done.iter().for_each(|key| world.end(&object_key(key), "Succeeded", 0));
}

pub fn old_image(world: &mut World) {
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    world.edit("statefulsets", &object_key("default/db"), &image);
}

pub fn careful_deployment(world: &mut World) {
    let asks = annotated(json!({"amoeba.dev/rollback-on-failure": "true"}));
    world.make_with("deployment", "web", &words(&["replicas=3", "image=a", "deadline=60"]), &asks);
}

pub fn three_nodes(world: &mut World) {
    cluster(world);
    world.make("node", "n3", &words(&[]));
    world.make("lease", "n3", &words(&[]));
}

pub fn spread_pods(world: &mut World) {
    world.make("deployment", "web", &words(&["replicas=3", "image=a"]));
    world.make("pod", "patient", &words(&["node=n1", "app=patient", "ready", "tolerates=30"]));
    world.make("pod", "stubborn", &words(&["node=n1", "app=stubborn", "ready", "tolerates=forever"]));
}

pub fn n1_is_silent(world: &mut World) {
    pass(world, 20, &["n1"]);
    world.schedule();
    world.kubelets(&["n1"]);
}

pub fn remove_n1(world: &mut World) {
    delete(world, "nodes", "n1", None);
    delete(world, "leases", "kube-node-lease/n1", None);
}

/// The Service that pods ask for names; the nodes answer.
pub fn names(world: &mut World) {
    for node in ["n1", "n2"] {
        delete(world, "nodes", node, None);
    }
    let alone = json!({"spec": {"selector": null}});
    world.make_with("service", "kube-dns", &words(&["ns=kube-system"]), &alone);
}

fn with_range(world: &mut World, node: &str, range: &str) {
    let spec = json!({"spec": {"podCIDR": range, "podCIDRs": [range]}});
    world.make_with("node", node, &words(&[]), &spec);
}

pub fn node_with_range(world: &mut World) {
    with_range(world, "n3", "10.244.3.0/24");
}

pub fn another_node_with_range(world: &mut World) {
    with_range(world, "n4", "10.244.4.0/24");
}

pub fn remove_n3(world: &mut World) {
    delete(world, "nodes", "n3", None);
}

pub fn without_names(world: &mut World) {
    delete(world, "services", "kube-system/kube-dns", None);
}

pub fn full_namespace(world: &mut World) {
    world.make("deployment", "web", &words(&["replicas=2", "image=a"]));
    world.make("service", "web", &words(&[]));
    world.make("configmap", "held", &words(&["finalizer=else.where/held"]));
}

pub fn end_namespace(world: &mut World) {
    delete(world, "namespaces", "default", None);
    let free = json!({"metadata": {"finalizers": []}});
    world.edit("configmaps", &object_key("default/held"), &free);
}

pub fn owners(world: &mut World) {
    world.make("deployment", "web", &words(&["replicas=2", "image=a"]));
    world.make("deployment", "other", &words(&["replicas=2", "image=a", "app=other"]));
    world.make("configmap", "two", &words(&["owner=deployments/web,deployments/other"]));
}

pub fn end_owner_in_foreground(world: &mut World) {
    delete(world, "deployments", "default/web", Some(PropagationPolicy::Foreground));
}

pub fn end_owner_leaving_pods(world: &mut World) {
    delete(world, "deployments", "default/other", Some(PropagationPolicy::Orphan));
}

fn address(ip: &str) -> Value {
    json!({"subsets": [{"addresses": [{"ip": ip}], "ports": [{"port": 5432}]}]})
}

pub fn outside(world: &mut World) {
    world.make_with("service", "outside", &words(&[]), &json!({"spec": {"selector": null}}));
    world.make_with("endpoints", "outside", &words(&[]), &address("192.0.2.1"));
}

pub fn another_address(world: &mut World) {
    world.edit("endpoints", &object_key("default/outside"), &address("192.0.2.2"));
}

pub fn without_service(world: &mut World) {
    delete(world, "services", "default/outside", None);
}

pub fn with_service_again(world: &mut World) {
    world.make_with("service", "outside", &words(&[]), &json!({"spec": {"selector": null}}));
}

pub fn near_service(world: &mut World) {
    let near = json!({"spec": {"trafficDistribution": "PreferSameZone"}});
    world.make_with("service", "near", &words(&[]), &near);
}

fn zone(world: &mut World, node: &str, zone: &str) {
    let labels = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
    world.edit("nodes", &object_key(node), &labels);
}

pub fn zones(world: &mut World) {
    zone(world, "n1", "a");
    zone(world, "n2", "b");
}

pub fn another_zone(world: &mut World) {
    zone(world, "n1", "c");
    world.make_with("pod", "p4", &words(&["node=n2", "ready"]), &json!({"status": {"podIP": "10.0.0.4"}}));
}

pub fn ranges(world: &mut World) {
    world.make("range", "kubernetes", &words(&["of=10.96.0.0/16"]));
    world.make("range", "more", &words(&["of=10.97.0.0/16"]));
    world.make("range", "spare", &words(&["of=10.97.0.0/24"]));
    world.make("address", "10.96.0.7", &words(&[]));
    world.make("address", "10.97.3.7", &words(&[]));
}

pub fn end_range(world: &mut World) {
    delete(world, "servicecidrs", "more", None);
    delete(world, "servicecidrs", "spare", None);
}

pub fn free_address(world: &mut World) {
    delete(world, "ipaddresses", "10.97.3.7", None);
}

pub fn old_tokens(world: &mut World) {
    let listed = json!({"secrets": [{"name": "unused"}, {"name": "mounted"}, {"name": "revived"}]});
    world.make_with("account", "builder", &words(&["uid=u-b"]), &listed);
    for name in ["unused", "mounted", "revived", "manual"] {
        let token = json!({"type": "kubernetes.io/service-account-token",
            "metadata": {"annotations": {"kubernetes.io/service-account.name": "builder"}}});
        world.make_with("secret", name, &words(&[]), &token);
    }
    let volumes = json!({"spec": {"volumes": [{"name": "t", "secret": {"secretName": "mounted"}}]}});
    world.make_with("pod", "reader", &words(&["node=n1", "ready"]), &volumes);
    let since = json!({"data": {"since": "1970-01-01"}});
    world.make_with("configmap", crate::legacy_tokens::TRACKING, &words(&["ns=kube-system"]), &since);
}

pub fn use_a_token(world: &mut World) {
    let used = json!({"metadata": {"labels": {
        "kubernetes.io/legacy-token-last-used": "1971-12-30",
        "kubernetes.io/legacy-token-invalid-since": null}}});
    world.edit("secrets", &object_key("default/revived"), &used);
}

pub fn quota(world: &mut World) {
    let hard = json!({"spec": {"hard": {"pods": "5", "count/replicationcontrollers": "2"}}});
    world.make_with("quota", "few", &words(&[]), &hard);
}

pub fn autoscaler(world: &mut World) {
    let load = annotated(json!({"load": "900000"}));
    world.make_with("deployment", "web", &words(&["replicas=1", "image=a"]), &load);
    let spec = json!({"spec": {
        "minReplicas": 1, "maxReplicas": 5,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "metrics": [{"type": "Pods", "pods": {"metric": {"name": "load"},
            "target": {"type": "AverageValue", "averageValue": "300"}}}],
    }});
    world.make_with("autoscaler", "web", &words(&[]), &spec);
}

pub fn less_load(world: &mut World) {
    live(world);
    world.edit("deployments", &object_key("default/web"), &annotated(json!({"load": "300000"})));
}

pub fn certificate_request(world: &mut World) {
    let spec = json!({"spec": {
        "request": k8s_openapi::ByteString(CLIENT_REQUEST.as_bytes().to_vec()),
        "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
        "username": "system:node:n1",
        "usages": ["digital signature", "client auth"],
    }});
    world.make_with("request", "n1", &words(&[]), &spec);
}

pub fn joining(world: &mut World) {
    let token: api::bootstrap_token::BootstrapToken = "abcdef.0123456789abcdef".parse().expect("a token");
    let end = world.server.now + jiff::SignedDuration::from_secs(300);
    let terms =
        api::bootstrap_token::TokenTerms { expiration: Some(end), signing: true, ..Default::default() };
    let secret = token.to_secret(&terms);
    world.make_with("secret", &token.secret_name(), &words(&["ns=kube-system"]), &secret);
    let servers = json!({"subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"name": "https", "port": 6443}]}]});
    world.make_with("endpoints", "kubernetes", &words(&[]), &servers);
}
