//! kube-rs against a cluster: its Api, watchers of both kinds, a Controller with owned objects and finalizers, an
//! election by Lease, and discovery.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use e2e::Cluster;
use futures::{StreamExt, TryStreamExt, future};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams,
    PropagationPolicy,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event as Finalizing, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher::{self, Event, InitialListStrategy, watcher};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;

const PATIENCE: Duration = e2e::PATIENCE;

async fn client(cluster: &Cluster) -> Client {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("a configuration")).expect("a client")
}

#[test]
fn kube_rs_finds_what_it_expects() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let cluster = Cluster::up(1, 1);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = client(&cluster).await;
        objects(client.clone()).await;
        pages_and_watchers(client.clone()).await;
        pods(client.clone()).await;
        election(client.clone()).await;
        discovered(client.clone()).await;
        controller(client).await;
    });
}

fn config_map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(data.collect::<BTreeMap<_, _>>()),
        ..ConfigMap::default()
    }
}

fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

async fn objects(client: Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let made = maps.create(&PostParams::default(), &config_map("one", &[("a", "1")])).await.expect("created");
    let mut newer = made.clone();
    newer.data.get_or_insert_default().insert("b".to_owned(), "2".to_owned());
    maps.replace("one", &PostParams::default(), &newer).await.expect("replaced");
    let stale = maps.replace("one", &PostParams::default(), &newer).await.expect_err("a stale version");
    assert!(is_status(&stale, 409), "{stale}");
    let merge = Patch::Merge(json!({"data": {"a": null}}));
    let merged = maps.patch("one", &PatchParams::default(), &merge).await.expect("merged");
    assert_eq!(merged.data, config_map("", &[("b", "2")]).data);
    let strategic = Patch::Strategic(json!({"data": {"c": "3"}}));
    maps.patch("one", &PatchParams::default(), &strategic).await.expect("patched");
    let config =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"c": "4"}});
    let apply = PatchParams::apply("kube-rs");
    let conflict =
        maps.patch("one", &apply, &Patch::Apply(&config)).await.expect_err("somebody else's field");
    assert!(is_status(&conflict, 409), "{conflict}");
    let applied = maps.patch("one", &apply.force(), &Patch::Apply(&config)).await.expect("applied");
    assert_eq!(applied.data, config_map("", &[("b", "2"), ("c", "4")]).data);
    let metadata = maps.get_metadata("one").await.expect("metadata alone");
    assert_eq!(metadata.uid(), made.uid());
    assert!(maps.get_opt("none").await.expect("no error").is_none());
    let deleted = maps.delete("one", &DeleteParams::default()).await.expect("deleted");
    assert!(deleted.right().is_some_and(|status| status.is_success()));
}

async fn pages_and_watchers(client: Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    for number in 0..7 {
        let mut map = config_map(&format!("page-{number}"), &[]);
        map.labels_mut().insert("kind".to_owned(), "page".to_owned());
        maps.create(&PostParams::default(), &map).await.expect("created");
    }
    let mut params = ListParams::default().labels("kind=page").limit(3);
    let mut sizes = Vec::new();
    loop {
        let page = maps.list(&params).await.expect("a page");
        sizes.push(page.items.len());
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(sizes, [3, 3, 1]);
    let paged = watcher::Config::default().labels("kind=page").page_size(2);
    let mut streamed = watcher::Config::default().labels("kind=page");
    streamed.initial_list_strategy = InitialListStrategy::StreamingList;
    for (way, config) in [("list and watch", paged), ("streaming list", streamed)] {
        let seen = seen_by(&maps, config, way).await;
        let names: Vec<String> = (0..7).map(|number| format!("init page-{number}")).collect();
        let mut initial = seen[..7].to_vec();
        initial.sort();
        assert_eq!(initial, names, "{way}");
        assert_eq!(seen[7..], ["done", "applied page-new", "deleted page-new"], "{way}");
    }
    let all = ListParams::default().labels("kind=page");
    maps.delete_collection(&DeleteParams::default(), &all).await.expect("all deleted");
    assert!(maps.list(&all).await.expect("a list").items.is_empty());
}

/// What a watcher tells: of what there was, and of an object that comes and goes when that is done.
async fn seen_by(maps: &Api<ConfigMap>, config: watcher::Config, way: &str) -> Vec<String> {
    let mut events = watcher(maps.clone(), config).boxed();
    let mut seen = Vec::new();
    while !seen.last().is_some_and(|last: &String| last.starts_with("deleted")) {
        let next = tokio::time::timeout(PATIENCE, events.try_next()).await;
        match next.expect(way).expect(way).expect("a watcher has no end") {
            Event::Init => {}
            Event::InitApply(map) => seen.push(format!("init {}", map.name_any())),
            Event::InitDone => {
                seen.push("done".to_owned());
                let mut map = config_map("page-new", &[]);
                map.labels_mut().insert("kind".to_owned(), "page".to_owned());
                maps.create(&PostParams::default(), &map).await.expect("created");
                maps.delete("page-new", &DeleteParams::default()).await.expect("deleted");
            }
            Event::Apply(map) => seen.push(format!("applied {}", map.name_any())),
            Event::Delete(map) => seen.push(format!("deleted {}", map.name_any())),
        }
    }
    seen
}

async fn pods(client: Client) {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let web = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers":
                    [{"name": "web", "image": "busybox", "command": ["sh", "-c", "echo here; exec sleep 3600"]}]},
            },
        },
    }));
    deployments.create(&PostParams::default(), &web.expect("a Deployment")).await.expect("created");
    let pods: Api<Pod> = Api::default_namespaced(client);
    let ours = ListParams::default().labels("app=web");
    let mut running = watcher(pods.clone(), watcher::Config::default().labels("app=web"))
        .try_filter_map(|event| future::ready(Ok(running(event))))
        .boxed();
    let name = tokio::time::timeout(PATIENCE, running.try_next())
        .await
        .expect("in time")
        .expect("no error")
        .expect("a pod");
    let log = pods.logs(&name, &LogParams::default()).await.expect("a log");
    assert_eq!(log, "here\n");
    let scale = deployments.get_scale("web").await.expect("a scale");
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(1));
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    deployments.patch_scale("web", &PatchParams::default(), &none).await.expect("scaled");
    let uid = pods.get(&name).await.map(|pod| pod.uid().expect("a uid"));
    if let Ok(uid) = uid {
        let gone = await_condition(pods.clone(), &name, conditions::is_deleted(&uid));
        tokio::time::timeout(PATIENCE, gone).await.expect("in time").expect("no error");
    }
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..Default::default() };
    deployments.delete("web", &foreground).await.expect("deleted");
    assert!(pods.list(&ours).await.expect("a list").items.is_empty());
}

/// The pod's name once it runs.
fn running(event: Event<Pod>) -> Option<String> {
    let (Event::InitApply(pod) | Event::Apply(pod)) = event else { return None };
    let phase = pod.status.as_ref()?.phase.as_deref()?;
    (phase == "Running").then(|| pod.name_any())
}

/// Two candidates hold a Lease one after the other; who writes on an old version loses.
async fn election(client: Client) {
    let leases: Api<Lease> = Api::default_namespaced(client);
    let held_by = |holder: &str| -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": "leader"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000001Z"},
        }))
        .expect("a Lease")
    };
    let post = PostParams::default();
    let (a, b) = (held_by("a"), held_by("b"));
    let (first, second) = tokio::join!(leases.create(&post, &a), leases.create(&post, &b));
    assert_eq!([&first, &second].iter().filter(|made| made.is_ok()).count(), 1, "one of them leads");
    let lease = leases.get("leader").await.expect("the lease");
    let takeover = |holder: &str| {
        let mut lease = lease.clone();
        lease.spec.get_or_insert_default().holder_identity = Some(holder.to_owned());
        lease
    };
    let (c, d) = (takeover("c"), takeover("d"));
    let (third, fourth) =
        tokio::join!(leases.replace("leader", &post, &c), leases.replace("leader", &post, &d));
    let lost = [third, fourth].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert!(matches!(lost.as_slice(), [error] if is_status(error, 409)), "{lost:?}");
}

async fn discovered(client: Client) {
    let definition: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {"name": "parrots.kube-rs.example.com"},
        "spec": {
            "group": "kube-rs.example.com",
            "scope": "Namespaced",
            "names": {"plural": "parrots", "singular": "parrot", "kind": "Parrot"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {"type": "object", "properties": {"colour": {"type": "string"}}}},
            }}}],
        },
    }))
    .expect("a definition");
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &definition).await.expect("created");
    let established =
        await_condition(definitions, "parrots.kube-rs.example.com", conditions::is_crd_established());
    tokio::time::timeout(PATIENCE, established).await.expect("in time").expect("no error");
    let discovery = Discovery::new(client.clone()).run().await.expect("discovered");
    let aggregated = Discovery::new(client.clone()).run_aggregated().await.expect("discovered at once");
    for found in [&discovery, &aggregated] {
        let kinds: Vec<_> =
            found.groups().flat_map(kube::discovery::ApiGroup::recommended_resources).collect();
        let of =
            |kind: &str| kinds.iter().find(|(resource, _)| resource.kind == kind).expect("the kind is found");
        assert_eq!(of("Node").1.scope, Scope::Cluster);
        assert!(of("Pod").1.supports_operation(verbs::WATCH));
        let (resource, _) = of("Parrot");
        assert_eq!(resource.plural, "parrots");
        dynamic(client.clone(), resource).await;
    }
}

async fn dynamic(client: Client, resource: &kube::api::ApiResource) {
    let parrots: Api<DynamicObject> = Api::default_namespaced_with(client, resource);
    let polly =
        DynamicObject::new("polly", resource).data(json!({"spec": {"colour": "green", "unknown": 1}}));
    let made = parrots.create(&PostParams::default(), &polly).await.expect("created");
    assert_eq!(made.data["spec"], json!({"colour": "green"}), "what the schema doesn't know is pruned");
    parrots.delete("polly", &DeleteParams::default()).await.expect("deleted");
}

/// A controller that keeps a Secret of each ConfigMap that asks for one, and cleans up behind it.
async fn controller(client: Client) {
    const FINALIZER: &str = "kube-rs.example.com/cleanup";
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let reconcile = |map: Arc<ConfigMap>, client: Arc<Client>| async move {
        let maps: Api<ConfigMap> = Api::default_namespaced((*client).clone());
        finalizer(&maps, FINALIZER, map, |event| keep(event, client)).await
    };
    let selected = watcher::Config::default().labels("owner=controller");
    let running = Controller::new(maps.clone(), selected.clone())
        .owns(secrets.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(100)), Arc::new(client))
        .for_each(|_| future::ready(()));
    let running = tokio::spawn(running);
    let mut map = config_map("owner", &[("password", "swordfish")]);
    map.labels_mut().insert("owner".to_owned(), "controller".to_owned());
    maps.create(&PostParams::default(), &map).await.expect("created");
    let there = |secret: Option<&Secret>| secret.is_some();
    let made = await_condition(secrets.clone(), "owner", there);
    let secret =
        tokio::time::timeout(PATIENCE, made).await.expect("in time").expect("no error").expect("a Secret");
    // An owned object that goes comes back.
    secrets.delete("owner", &DeleteParams::default()).await.expect("deleted");
    let another = |found: Option<&Secret>| found.is_some_and(|found| found.uid() != secret.uid());
    let again = await_condition(secrets.clone(), "owner", another);
    tokio::time::timeout(PATIENCE, again).await.expect("in time").expect("no error");
    let held = maps.get("owner").await.expect("the owner");
    assert_eq!(held.finalizers(), [FINALIZER]);
    maps.delete("owner", &DeleteParams::default()).await.expect("marked");
    let uid = held.uid().expect("a uid");
    let gone = await_condition(maps.clone(), "owner", conditions::is_deleted(&uid));
    tokio::time::timeout(PATIENCE, gone).await.expect("in time").expect("no error");
    assert!(secrets.get_opt("owner").await.expect("no error").is_none(), "the clean-up came first");
    running.abort();
}

async fn keep(event: Finalizing<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let secrets: Api<Secret> = Api::default_namespaced((*client).clone());
    match event {
        Finalizing::Apply(map) => {
            let secret = json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": map.name_any(), "ownerReferences": [map.controller_owner_ref(&())]},
                "stringData": map.data,
            });
            secrets
                .patch(&map.name_any(), &PatchParams::apply("controller").force(), &Patch::Apply(secret))
                .await?;
        }
        Finalizing::Cleanup(map) => {
            secrets.delete(&map.name_any(), &DeleteParams::default()).await?;
        }
    }
    Ok(Action::await_change())
}
