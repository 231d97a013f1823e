//! Effects, carried out on a runtime in which nothing runs and beside an API server that isn't there.

use super::*;
use crate::runtime::RuntimeEvent;
use crate::runtime::fake::{FakeRuntime, FakeScript};

/// On this runtime, below this directory.
fn performer(runtime: Arc<dyn Runtime>, dir: &std::path::Path) -> Performer {
    let nowhere = kube::Config::new("http://127.0.0.1:1/".parse().expect("an address"));
    let client = kube::Client::try_from(nowhere).expect("a client");
    let (references, node) = (References::new(client.clone()), Arc::new(NodeFacts::default()));
    Performer {
        runtime,
        checkpoints: Checkpoints::open(dir).expect("a directory"),
        volumes: Volumes::new(dir, client.clone(), references.clone(), node.clone()),
        references,
        node,
        network: None,
        classes: RuntimeClasses::new(client.clone()),
        recorder: client::recorder::start(client.clone(), "kubelet", "n1").0,
        promised: watch::channel(Duration::ZERO).1,
        operations: Operations::default(),
        services: Services::new(client, dir),
        pod_max_pids: None,
    }
}

#[tokio::test]
async fn who_is_asked_to_end_while_the_runtime_is_deaf_ends_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = Arc::new(FakeRuntime::new(FakeScript { unheard_stops: 3, ..FakeScript::default() }));
    let mut events = runtime.events().expect("the first reader");
    let pod: Pod = serde_yaml::from_str(
        "{metadata: {name: web, namespace: shop, uid: u}, spec: {containers: [{name: main, image: i}]}}",
    )
    .expect("a pod");
    let config = ContainerConfig { pod: PodRef::of(&pod), ..ContainerConfig::default() };
    let id = runtime.create_container(config).await.expect("made");
    runtime.start_container(&id).await.expect("started");
    // It is asked once: a pod's life counts on being heard.
    let effect = Effect::StopContainer { id: id.clone(), grace: Duration::from_secs(1) };
    assert!(performer(runtime.clone(), dir.path()).perform(Arc::new(pod), effect).await.is_none());
    let ended = tokio::time::timeout(Duration::from_secs(60), events.recv()).await.expect("in time");
    assert!(matches!(ended, Some(RuntimeEvent { id: of, exit, .. }) if of == id && exit.code == 143));
}
