//! What holds when requests overlap: one winner, nothing lost, nothing in a namespace that is going, and
//! one order for all watchers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::k8s::api::core::v1::{ConfigMap, Event, Namespace, ResourceQuota, Service};
use apiserver::pki::Pki;
use apiserver::{ApiServer, Config, Identity};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use store::kv::{KeyRange, Kv, RangeRequest};
use store::model::Model;

struct Cluster {
    client: Client,
    store: Model,
    _server: Arc<ApiServer>,
    _dir: tempfile::TempDir,
}

async fn cluster() -> Cluster {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Model::new();
    let mut config = Config::new(Arc::new(Pki::load_or_create(dir.path()).expect("a new authority")));
    config.limits.patch_tries = 50;
    config.event_ttl = Duration::from_secs(60);
    let server = ApiServer::start(Arc::new(store.clone()), config).await.expect("the server starts");
    let client = Client::new(server.in_process(Identity::new("admin", &["system:masters"])), "default");
    Cluster { client, store, _server: server, _dir: dir }
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).expect("typed")
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("no answer of the API: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_creations_one_wins() {
    let cluster = cluster().await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    let (one, params) = (config_map("one"), PostParams::default());
    let results = join_all((0..20).map(|_| api.create(&params, &one))).await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|result| result.as_ref().is_err_and(|error| code(error) == 409)));
}

/// Two servers over one store, as in a cluster of several members.
async fn two_servers() -> (Cluster, Cluster) {
    let one = cluster().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config::new(Arc::new(Pki::load_or_create(dir.path()).expect("a new authority")));
    config.limits.patch_tries = 50;
    let server = ApiServer::start(Arc::new(one.store.clone()), config).await.expect("the server starts");
    let client = Client::new(server.in_process(Identity::new("admin", &["system:masters"])), "default");
    let two = Cluster { client, store: one.store.clone(), _server: server, _dir: dir };
    (one, two)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_address_or_node_port_is_given_twice() {
    let (one, two) = two_servers().await;
    let service = |name: String, spec: Value| -> Service {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("typed")
    };
    let apis: Vec<Api<Service>> =
        [&one, &two].map(|cluster| Api::default_namespaced(cluster.client.clone())).into();
    let params = PostParams::default();
    let ports = json!([{"port": 80}]);
    let services: Vec<Service> =
        (0..40).map(|n| service(format!("s{n}"), json!({"type": "NodePort", "ports": ports}))).collect();
    let created = services.iter().enumerate().map(|(n, service)| apis[n % 2].create(&params, service));
    let specs = join_all(created).await.into_iter().map(|made| made.expect("created").spec.expect("a spec"));
    let (addresses, node_ports): (BTreeSet<_>, BTreeSet<_>) =
        specs.map(|spec| (spec.cluster_ip, spec.ports.expect("ports")[0].node_port)).unzip();
    assert_eq!((addresses.len(), node_ports.len()), (40, 40));
    let fixed = json!({"clusterIP": "10.96.0.20", "ports": ports});
    let rivals: Vec<Service> = (0..10).map(|n| service(format!("r{n}"), fixed.clone())).collect();
    let created = rivals.iter().enumerate().map(|(n, rival)| apis[n % 2].create(&params, rival));
    let (won, lost): (Vec<_>, Vec<_>) = join_all(created).await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|result| result.as_ref().is_err_and(|error| code(error) == 422)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_never_exceeded() {
    let (one, two) = two_servers().await;
    let quotas: Api<ResourceQuota> = Api::default_namespaced(one.client.clone());
    let hard = json!({"count/configmaps": "10"});
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    let quota = serde_json::from_value(quota).expect("typed");
    quotas.create(&PostParams::default(), &quota).await.expect("created");
    let counted = Patch::Merge(json!({"status": {"hard": hard, "used": {"count/configmaps": "0"}}}));
    quotas.patch_status("q", &PatchParams::default(), &counted).await.expect("counted");
    let apis: Vec<Api<ConfigMap>> =
        [&one, &two].map(|cluster| Api::default_namespaced(cluster.client.clone())).into();
    // The other server hears of the quota a moment later, as of everything.
    apis[1].list(&ListParams::default()).await.expect("a list waits for the newest revision");
    let params = PostParams::default();
    let maps: Vec<ConfigMap> = (0..30).map(|n| config_map(&format!("m{n}"))).collect();
    let created = maps.iter().enumerate().map(|(n, map)| apis[n % 2].create(&params, map));
    let (won, lost): (Vec<_>, Vec<_>) = join_all(created).await.into_iter().partition(Result::is_ok);
    let codes: BTreeSet<u16> = lost.iter().filter_map(|lost| lost.as_ref().err().map(code)).collect();
    assert_eq!((won.len(), codes), (10, BTreeSet::from([403])));
    let used = quotas.get("q").await.expect("there").status.and_then(|status| status.used).expect("used");
    assert_eq!(used["count/configmaps"].0, "10");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_of_different_fields_are_all_kept() {
    let cluster = cluster().await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    api.create(&PostParams::default(), &config_map("one")).await.expect("created");
    let patches = (0..20).map(|n| {
        let api = api.clone();
        let patch = Patch::Merge(json!({"data": {format!("k{n}"): "v"}}));
        async move { api.patch("one", &PatchParams::default(), &patch).await.expect("patched") }
    });
    join_all(patches).await;
    let object = api.get("one").await.expect("there");
    assert_eq!(object.data.map_or(0, |data| data.len()), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_created_in_a_namespace_after_its_deletion_began() {
    let cluster = cluster().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let team: Namespace = serde_json::from_value(json!({"metadata": {"name": "team"}})).expect("typed");
    namespaces.create(&PostParams::default(), &team).await.expect("created");
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "team");
    let create = |n: usize| {
        let api = api.clone();
        async move { api.create(&PostParams::default(), &config_map(&format!("c{n}"))).await }
    };
    let params = DeleteParams::default();
    let delete = namespaces.delete("team", &params);
    let (before, deleted, after) =
        tokio::join!(join_all((0..20).map(create)), delete, join_all((20..40).map(create)));
    let deleted = deleted.expect("deletion begins").left().expect("the namespace is finalized first");
    let end: u64 = revision(&deleted);
    for result in before.into_iter().chain(after) {
        match result {
            Ok(created) => assert!(revision(&created) < end, "{} came after the end", created.name_any()),
            Err(error) => assert_eq!(code(&error), 403),
        }
    }
}

fn revision(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).expect("a decimal resourceVersion")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_watchers_see_one_order() {
    let cluster = cluster().await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    let start =
        api.list(&Default::default()).await.expect("a list").metadata.resource_version.expect("a version");
    let watch = || {
        let (api, start) = (api.clone(), start.clone());
        tokio::spawn(async move {
            let events = api.watch(&WatchParams::default(), &start).await.expect("a watch");
            let seen = events.take(60).map_ok(|event| match event {
                WatchEvent::Added(object) => format!("+{} {}", object.name_any(), revision(&object)),
                WatchEvent::Modified(object) => format!("~{} {}", object.name_any(), revision(&object)),
                WatchEvent::Deleted(object) => format!("-{} {}", object.name_any(), revision(&object)),
                other => panic!("unexpected {other:?}"),
            });
            seen.try_collect::<Vec<String>>().await.expect("events")
        })
    };
    let early: Vec<_> = (0..5).map(|_| watch()).collect();
    let lives = (0..20).map(|n| {
        let api = api.clone();
        async move {
            let name = format!("c{n}");
            api.create(&PostParams::default(), &config_map(&name)).await.expect("created");
            let patch = Patch::Merge(json!({"data": {"k": "v"}}));
            api.patch(&name, &PatchParams::default(), &patch).await.expect("patched");
            api.delete(&name, &DeleteParams::default()).await.expect("deleted");
        }
    });
    join_all(lives).await;
    let late: Vec<_> = (0..5).map(|_| watch()).collect();
    let seen: Vec<Vec<String>> = join_all(early.into_iter().chain(late))
        .await
        .into_iter()
        .map(|seen| seen.expect("no panic"))
        .collect();
    let revisions: Vec<u64> =
        seen[0].iter().filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:#?}");
}

#[tokio::test]
async fn events_end_by_themselves_and_share_a_lease() {
    let cluster = cluster().await;
    let api: Api<Event> = Api::default_namespaced(cluster.client.clone());
    for name in ["a", "b"] {
        let event = json!({"metadata": {"name": name}, "involvedObject": {"namespace": "default"}});
        let event: Event = serde_json::from_value::<Event>(event).expect("typed");
        api.create(&PostParams::default(), &event).await.expect("created");
    }
    let stored = cluster.store.range(RangeRequest::new(KeyRange::prefix("/registry/core/events/"))).await;
    let leases: Vec<_> = stored.expect("the model reads").kvs.iter().map(|kv| kv.lease).collect();
    assert_eq!(leases.len(), 2);
    assert!(leases[0].is_some() && leases[0] == leases[1], "{leases:?}");
}

#[tokio::test]
async fn what_is_stored_is_canonical_and_without_version() {
    let cluster = cluster().await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    api.create(&PostParams::default(), &config_map("one")).await.expect("created");
    let stored =
        cluster.store.range(RangeRequest::new(KeyRange::key("/registry/core/configmaps/default/one"))).await;
    let value = stored.expect("the model reads").kvs[0].value.clone();
    assert!(value.starts_with(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"#));
    let value: Value = serde_json::from_slice(&value).expect("JSON");
    assert!(value["metadata"].get("resourceVersion").is_none());
}
