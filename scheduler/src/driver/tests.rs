//! The loop against an API server of a few lines: what it reads, what it writes, and that it ends.

use super::*;
use crate::profile::Profile;
use bytes::Bytes;
use client::recorder::RecorderTask;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Lists what it was given, streams what it is told, and passes every write on to the test.
struct FakeApi {
    lists: HashMap<&'static str, Value>,
    watches: Mutex<HashMap<String, mpsc::Receiver<Value>>>,
    writes: mpsc::Sender<(String, Value)>,
    /// Bindings that will be refused.
    refusals: Mutex<u32>,
}

impl FakeApi {
    async fn handle(self: Arc<Self>, request: Request<Body>) -> Result<Answer, Infallible> {
        let path = request.uri().path().to_owned();
        let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let answer = match *request.method() {
            Method::GET if watch => self.stream(&path),
            Method::GET => ok(&self.lists[path.as_str()]),
            _ => {
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let body: Value = serde_json::from_slice(&body).expect("JSON");
                self.write(path, body).await
            }
        };
        Ok(answer)
    }

    fn stream(&self, path: &str) -> Answer {
        let events = self.watches.lock().remove(path).expect("one watch per kind");
        let frames = stream::unfold(events, |mut events| async move {
            let event = events.recv().await?;
            Some((Ok(Frame::data(Bytes::from(format!("{event}\n")))), events))
        });
        Response::new(StreamBody::new(frames).boxed_unsync())
    }

    async fn write(&self, path: String, body: Value) -> Answer {
        let refused = path.ends_with("/binding") && {
            let mut left = self.refusals.lock();
            let refused = *left > 0;
            *left = left.saturating_sub(1);
            refused
        };
        self.writes.send((path, body.clone())).await.expect("the test listens");
        if refused {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 409, "reason": "Conflict"});
            let mut answer = ok(&status);
            *answer.status_mut() = StatusCode::CONFLICT;
            return answer;
        }
        ok(&body)
    }
}

fn ok(value: &Value) -> Answer {
    Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync())
}

fn pod(name: &str, version: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "resourceVersion": version.to_string()},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "600m"}}}]},
    })
}

/// The same for another scheduler.
fn pod_for(scheduler: &str, name: &str, version: u32) -> Value {
    let mut pod = pod(name, version);
    pod["spec"]["schedulerName"] = json!(scheduler);
    pod
}

struct World {
    writes: mpsc::Receiver<(String, Value)>,
    pods: mpsc::Sender<Value>,
    _nodes: mpsc::Sender<Value>,
    stop: client::shutdown::Trigger,
    term: tokio::task::JoinHandle<()>,
    _recorder: RecorderTask,
}

impl World {
    /// One node with room for one of two pods.
    fn start(refusals: u32) -> Self {
        World::with(Profiles::upstream(DEFAULT_SCHEDULER), json!([pod("a", 2), pod("b", 3)]), refusals)
    }

    /// One node with room for one pod of the fake size.
    fn with(profiles: Profiles, pods: Value, refusals: u32) -> Self {
        let node = json!({
            "metadata": {"name": "n1", "resourceVersion": "1"},
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "10"}},
        });
        let list = |items: Value| json!({"metadata": {"resourceVersion": "10"}, "items": items});
        let lists = HashMap::from([
            ("/api/v1/nodes", list(json!([node]))),
            ("/api/v1/pods", list(pods)),
            ("/apis/policy/v1/poddisruptionbudgets", list(json!([]))),
            ("/apis/scheduling.k8s.io/v1beta1/podgroups", list(json!([]))),
            ("/api/v1/namespaces", list(json!([]))),
            ("/api/v1/persistentvolumeclaims", list(json!([]))),
            ("/api/v1/persistentvolumes", list(json!([]))),
            ("/apis/storage.k8s.io/v1/storageclasses", list(json!([]))),
            ("/apis/storage.k8s.io/v1/csinodes", list(json!([]))),
        ]);
        let ((nodes, node_events), (pods, pod_events)) = (mpsc::channel(8), mpsc::channel(8));
        let watches = [("/api/v1/nodes".to_owned(), node_events), ("/api/v1/pods".to_owned(), pod_events)];
        let (sender, writes) = mpsc::channel(64);
        let api = Arc::new(FakeApi {
            lists,
            watches: Mutex::new(watches.into()),
            writes: sender,
            refusals: Mutex::new(refusals),
        });
        let service = tower::service_fn(move |request| api.clone().handle(request));
        let client = Client::new(service, "default");
        let (recorder, task) = recorder::start(client.clone(), DEFAULT_SCHEDULER, "");
        let (stop, shutdown) = client::shutdown::channel();
        let leadership = client::election::Leadership::permanent(shutdown);
        let writer = Writes::new(client.clone(), recorder, leadership);
        let term = Term::new(client, Scheduler::with(profiles, Backoff::default()), writer);
        World { writes, pods, _nodes: nodes, stop, term: tokio::spawn(term.run()), _recorder: task }
    }

    /// The next write to a path that ends so, with its path; others are passed over.
    async fn written(&mut self, suffix: &str) -> (String, Value) {
        let found = async {
            loop {
                let write = self.writes.recv().await.expect("the loop runs");
                if write.0.ends_with(suffix) {
                    return write;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), found).await.expect(suffix)
    }

    async fn end(self) {
        self.stop.request();
        tokio::time::timeout(Duration::from_secs(10), self.term)
            .await
            .expect("it ends")
            .expect("without a panic");
    }
}

#[tokio::test]
async fn binds_reports_and_tries_again_when_room_appears() {
    let mut world = World::start(0);
    let (path, binding) = world.written("/binding").await;
    assert_eq!(path, "/api/v1/namespaces/ns/pods/a/binding");
    assert_eq!(binding["target"], json!({"kind": "Node", "name": "n1"}));
    assert_eq!(binding["metadata"]["uid"], "uid-a", "another incarnation must not be bound");
    let (path, patch) = world.written("/status").await;
    assert_eq!(path, "/api/v1/namespaces/ns/pods/b/status");
    let message = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No \
                   preemption victims found for incoming pod.";
    assert_eq!(patch["status"]["conditions"][0]["message"], message);
    world.pods.send(json!({"type": "DELETED", "object": pod("a", 11)})).await.expect("watched");
    assert_eq!(world.written("/binding").await.0, "/api/v1/namespaces/ns/pods/b/binding");
    world.end().await;
}

#[tokio::test]
async fn a_refused_binding_is_tried_again() {
    let mut world = World::start(1);
    let first = world.written("/binding").await.0;
    let second = world.written("/binding").await.0;
    assert_ne!(first, second, "while one pod is in back-off, the other one takes the room");
    world.end().await;
}

#[tokio::test]
async fn events_tell_what_happened() {
    let mut world = World::start(0);
    let mut reasons = [world.written("/events").await.1, world.written("/events").await.1];
    reasons.sort_by_key(|event| event["reason"].to_string());
    assert_eq!(reasons[0]["reason"], "FailedScheduling");
    assert_eq!(reasons[1]["message"], "Successfully assigned ns/a to n1");
    world.end().await;
}

#[tokio::test]
async fn an_event_is_told_in_the_name_of_the_scheduler_that_its_pod_asks_for() {
    let profiles = ["first", "second"].map(|name| (name.into(), Profile::default()));
    let pods = json!([pod_for("first", "a", 2), pod_for("second", "b", 3)]);
    let mut world = World::with(Profiles::new(profiles), pods, 0);
    let mut told = [world.written("/events").await.1, world.written("/events").await.1];
    told.sort_by_key(|event| event["involvedObject"]["name"].to_string());
    for (event, scheduler) in told.iter().zip(["first", "second"]) {
        assert_eq!(
            (&event["reportingComponent"], &event["source"]["component"]),
            (&json!(scheduler), &json!(scheduler))
        );
    }
    world.end().await;
}
