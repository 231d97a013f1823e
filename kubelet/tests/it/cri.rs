//! Containers at a real containerd, without a cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use e2e::containerd::Containerd;
use e2e::image;
use k8s_openapi::api::core::v1::Pod;
use kubelet::LogLimits;
use kubelet::node::images::NodeImage;
use kubelet::pod::sandbox::{HostFiles, sandbox};
use kubelet::pod::{ContainerId, ContainerName, PodRef};
use kubelet::runtime::cri::CriRuntime;
use kubelet::runtime::native::log_path;
use kubelet::runtime::{
    Asked, ContainerConfig, Fetch, FoundState, PullPolicy, Runtime, RuntimeError, Streams,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::native::PATIENCE;

/// Says what it sees, and ends when it is asked to.
const SCRIPT: &str = "cat /etc/hosts; echo hello $WHO; echo words > /dev/termination-log; trap 'exit 3' TERM; \
                      while :; do sleep 0.1; done";

fn pod(uid: &str) -> Pod {
    let text = format!(
        "{{metadata: {{name: web-{uid}, namespace: shop, uid: {uid}}}, spec: {{containers: [{{name: main, image: 'box:1'}}]}}}}"
    );
    serde_yaml::from_str(&text).expect("a pod")
}

async fn sandboxed(runtime: &CriRuntime, pod: &Pod, handler: &str) -> Result<(), RuntimeError> {
    let who = PodRef::of(pod);
    runtime.assign(&who, handler)?;
    runtime.run_sandbox(&sandbox(pod, &HostFiles::default(), "", None).expect("a name")).await?;
    runtime.set_hosts(&who, "1.2.3.4\tneighbour\n").await
}

async fn started(runtime: &CriRuntime, pod: Pod) -> ContainerId {
    let bare = ContainerConfig {
        pod: PodRef::of(&pod),
        container: ContainerName("main".to_owned()),
        image: "box:1".to_owned(),
        command: ["sh", "-c", SCRIPT].map(str::to_owned).to_vec(),
        env: [("WHO".to_owned(), "you".to_owned()), ("PATH".to_owned(), "/bin".to_owned())].into(),
        termination_message_path: Some(PathBuf::from("/dev/termination-log")),
        oom_score_adj: 1000,
        ..ContainerConfig::default()
    };
    let fetch = Fetch { policy: PullPolicy::Never, logins: Vec::new() };
    let found = runtime.ensure_image(&bare, &fetch, &|| {}).await.expect("the image");
    let image = Box::new(found.image().expect("an image").clone());
    let asked = Some(Asked { pod: Arc::new(pod), image, mounts: Vec::new() });
    let id = runtime.create_container(ContainerConfig { asked, ..bare }).await.expect("made");
    runtime.start_container(&id).await.expect("started");
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_live_at_containerd_beyond_their_agent() {
    let Some(containerd) = Containerd::start() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    containerd.import(&image::busybox(dir.path(), "box:1", "exec sleep 1000"));
    let before = containerd.containers().len();
    let socket = containerd.socket();
    let connect = || CriRuntime::connect(&socket, dir.path(), "me".to_owned(), LogLimits::default());
    let runtime = connect().await.expect("it answers");
    assert_eq!(runtime.name(), "containerd");
    assert!(runtime.troubles().await.expect("it answers").is_empty());
    let images = runtime.images().await.expect("listed");
    let named = |image: &&NodeImage| image.names.iter().any(|name| name == "docker.io/library/box:1");
    let sized = images.iter().find(named).is_some_and(|image| image.size > 100_000);
    assert!(sized, "{images:?}");
    assert!(runtime.lacks_image_volumes(&PodRef::default()).is_some(), "Debian's is older than 2.1");
    let who = PodRef::of(&pod("u1"));
    sandboxed(&runtime, &pod("u1"), "").await.expect("a sandbox");
    let address = runtime.address(&who).await.expect("known").expect("its own");
    assert!(address.starts_with("172."), "{address}");
    let id = started(&runtime, pod("u1")).await;
    commands_run(&runtime, &id).await;

    // The next agent finds it, and hears of its end.
    let next = connect().await.expect("it answers");
    let mut events = next.events().expect("the first reader");
    let found = next.list_containers().await.expect("listed");
    assert!(
        matches!(found.as_slice(), [one] if one.id == id && matches!(one.state, FoundState::Running { .. })),
        "{found:?}"
    );
    assert_eq!(next.address(&who).await.expect("known"), Some(address));
    assert!(!next.has_lost(&who).await);
    next.stop_container(&id, Duration::from_secs(20)).await.expect("asked to end");
    let end = tokio::time::timeout(PATIENCE, events.recv()).await.expect("in time").expect("an end");
    assert_eq!((end.id, end.exit.code, end.exit.message.as_deref()), (id, 3, Some("words\n")));
    let log = std::fs::read_to_string(log_path(dir.path(), &who, &ContainerName("main".to_owned()), 0))
        .expect("a log");
    for line in ["stdout F 1.2.3.4\tneighbour", "stdout F hello you"] {
        assert!(log.contains(line), "{line:?} is not in\n{log}");
    }

    next.stop_sandbox(&who).await.expect("stopped");
    assert!(next.has_lost(&who).await);
    next.remove_sandbox(&who).await.expect("removed");
    assert_eq!(containerd.containers().len(), before, "nothing is left at containerd");
    assert!(!dir.path().join("cri/u1").exists());
    let refused = sandboxed(&next, &pod("u2"), "gvisor").await.expect_err("no such runtime").to_string();
    let want = "rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for \"gvisor\" is configured";
    assert_eq!(refused, want);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_over_tls_to_who_is_believed() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let certificate = certificate.self_signed(&key).expect("a certificate").pem();
    let [certificate_file, key_file] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    std::fs::write(&certificate_file, certificate).expect("written");
    std::fs::write(&key_file, key.serialize_pem()).expect("written");
    let Some(containerd) = Containerd::start_with_tls(&certificate_file, &key_file) else { return };
    containerd.import(&image::busybox(dir.path(), "box:1", "exec sleep 1000"));
    let socket = containerd.socket();
    let connect = async || {
        let connected = CriRuntime::connect(&socket, dir.path(), "me".to_owned(), LogLimits::default());
        connected.await.expect("it answers")
    };
    let runtime = connect().await.trusting(&certificate_file).expect("an authority");
    sandboxed(&runtime, &pod("u1"), "").await.expect("a sandbox");
    let id = started(&runtime, pod("u1")).await;
    commands_run(&runtime, &id).await;
    let streams = Streams { stdin: false, stdout: true, stderr: true, tty: false };
    let refused = connect().await.exec(&id, &["true".to_owned()], streams).await;
    let refused = refused.expect_err("the machine doesn't believe it").chain();
    assert!(refused.contains("https://127.0.0.1") && refused.contains("certificate"), "{refused}");
    runtime.remove_sandbox(&PodRef::of(&pod("u1"))).await.expect("removed");
}

async fn commands_run(runtime: &CriRuntime, id: &ContainerId) {
    let words = |script: &str| ["sh", "-c", script].map(str::to_owned);
    let done = runtime.exec_sync(id, &words("echo out; exit 4"), PATIENCE).await.expect("run");
    assert_eq!((done.code, String::from_utf8_lossy(&done.output).into_owned()), (4, "out\n".to_owned()));
    let late = runtime.exec_sync(id, &words("sleep 60"), Duration::from_secs(1)).await;
    assert!(matches!(late, Err(RuntimeError::ExecTimeout(_))), "{late:?}");

    // More than the pipes on the way hold, both ways at once; and the end of the input arrives.
    let streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
    let session = runtime.exec(id, &words("cat; exit 5"), streams).await.expect("streams");
    let (mut stdin, mut stdout) = (session.stdin.expect("stdin"), session.stdout.expect("stdout"));
    let text = "amoeba\n".repeat(100_000);
    let said = text.clone();
    let typing = tokio::spawn(async move {
        stdin.write_all(said.as_bytes()).await.expect("taken");
        stdin.shutdown().await.expect("ended");
    });
    let hearing = tokio::spawn(async move {
        let mut heard = String::new();
        stdout.read_to_string(&mut heard).await.expect("text");
        heard
    });
    let code = tokio::time::timeout(PATIENCE, session.end).await.expect("in time").expect("an end");
    typing.await.expect("typed");
    assert_eq!((code, hearing.await.expect("heard") == text), (5, true));
}
