//! What holds when requests overlap: one winner, nothing lost, nothing in a namespace that is going, and
//! one order for all watchers.

use std::sync::Arc;
use std::time::Duration;

use api::k8s::api::core::v1::{ConfigMap, Event, Namespace};
use apiserver::pki::Pki;
use apiserver::{ApiServer, Config, Identity};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
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
