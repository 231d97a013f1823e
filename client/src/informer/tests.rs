//! An informer against a scripted API server in this process.

use super::{Builder, Change, Digest, Informer, ObjectKey, Told};
use crate::{backoff::Policy, config};
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, ResourceExt, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::mpsc;

type Frames = mpsc::UnboundedSender<Value>;

/// What the server answers, in order: a status and a body for lists, a stream for watches.
enum Answer {
    List(u16, Value),
    Watch(mpsc::UnboundedReceiver<Value>),
}

fn server(answers: Vec<Answer>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let log = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        log.lock().push(request.uri().to_string());
        let answer = answers.lock().pop_front();
        async move {
            let (status, receiver) = match answer {
                Some(Answer::List(status, body)) => (status, once(body)),
                Some(Answer::Watch(receiver)) => (200, receiver),
                None => std::future::pending().await,
            };
            let frames = futures::stream::unfold(receiver, |mut receiver| async {
                let value = receiver.recv().await?;
                let line = Bytes::from(format!("{value}\n"));
                Some((Ok::<_, Infallible>(Frame::data(line)), receiver))
            });
            let response = Response::builder().status(status).body(StreamBody::new(frames));
            Ok::<_, Infallible>(response.expect("a response"))
        }
    });
    (config::in_process(service, "test").expect("a client"), asked)
}

fn once(body: Value) -> mpsc::UnboundedReceiver<Value> {
    let (sender, receiver) = mpsc::unbounded_channel();
    sender.send(body).expect("open");
    receiver
}

fn watch() -> (Frames, Answer) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Answer::Watch(receiver))
}

fn object(name: &str, version: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "ns", "name": name,
        "uid": name, "resourceVersion": version.to_string(), "managedFields": [{"manager": "m"}]}})
}

fn list(version: u32, objects: &[Value]) -> Answer {
    Answer::List(
        200,
        json!({"apiVersion": "v1", "kind": "ConfigMapList",
        "metadata": {"resourceVersion": version.to_string()}, "items": objects}),
    )
}

fn builder(client: Client) -> Builder<ConfigMap> {
    let pause = Duration::from_millis(1);
    Builder::new(Api::all(client)).backoff(Policy { first: pause, most: pause })
}

fn describe(change: Change<ConfigMap>) -> String {
    let version = |object: &ConfigMap| object.metadata.resource_version.clone().unwrap_or_default();
    let name = |object: &ConfigMap| object.metadata.name.clone().unwrap_or_default();
    match change {
        Change::Applied { old, new } => {
            format!(
                "{} {} -> {}",
                name(&new),
                old.map_or("new".to_owned(), |old| version(&old)),
                version(&new)
            )
        }
        Change::Deleted(last) => format!("{} gone", name(&last)),
        Change::Synced => "synced".to_owned(),
    }
}

async fn told(subscription: &mut super::Subscription<ConfigMap>, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    while told.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(5), subscription.recv()).await;
        told.push(describe(next.expect("a change in time").expect("the informer runs")));
    }
    told
}

#[tokio::test]
async fn lists_then_watches_and_tells_changes_in_order() {
    let (frames, answer) = watch();
    let (client, asked) = server(vec![list(5, &[object("a", 3)]), answer]);
    let informer = builder(client).start();
    let mut changes = informer.subscribe(1);
    assert_eq!(told(&mut changes, 2).await, ["a new -> 3", "synced"]);
    frames.send(json!({"type": "ADDED", "object": object("b", 6)})).expect("open");
    frames.send(json!({"type": "MODIFIED", "object": object("a", 7)})).expect("open");
    frames.send(json!({"type": "DELETED", "object": object("b", 8)})).expect("open");
    assert_eq!(told(&mut changes, 3).await, ["b new -> 6", "a 3 -> 7", "b gone"]);
    let kept = informer.store().get(&ObjectKey::new("ns", "a")).expect("kept");
    assert_eq!(kept.metadata.managed_fields, None);
    assert!(asked.lock()[1].contains("resourceVersion=5"), "{:?}", asked.lock());
    let mut late = informer.subscribe(1);
    assert_eq!(told(&mut late, 2).await, ["a new -> 7", "synced"]);
    informer.shutdown().await;
    assert!(late.recv().await.is_none());
}

#[tokio::test]
async fn an_expired_watch_relists_and_tells_the_differences() {
    let (frames, first) = watch();
    let (_keep, second) = watch();
    let expired = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Failure", "message": "too old", "reason": "Expired", "code": 410}});
    let failure = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "no leader", "reason": "ServiceUnavailable", "code": 503});
    let answers = vec![
        list(5, &[object("a", 3), object("b", 4)]),
        first,
        Answer::List(503, failure),
        list(9, &[object("b", 4), object("c", 8)]),
        second,
    ];
    let (client, _) = server(answers);
    let informer = builder(client).start();
    let mut changes = informer.subscribe(1);
    assert_eq!(told(&mut changes, 3).await.last().map(String::as_str), Some("synced"));
    frames.send(expired).expect("open");
    assert_eq!(told(&mut changes, 3).await, ["a gone", "c new -> 8", "synced"]);
}

/// The data of a ConfigMap.
#[derive(Debug, Clone, PartialEq)]
struct Text(String);

impl Digest for Text {
    type Of = ConfigMap;

    fn of(object: &ConfigMap) -> Text {
        Text(object.data.iter().flatten().map(|(_, text)| text.clone()).collect())
    }
}

#[tokio::test]
async fn what_is_told_and_forgotten_is_told_whole_and_kept_by_its_identity() {
    let texted = |name: &str, version: u32, text: &str| {
        let mut object = object(name, version);
        object["data"] = json!({"text": text});
        object
    };
    let (events, watch) = watch();
    let answers = vec![list(5, &[texted("a", 3, "first")]), watch];
    let (client, _) = server(answers);
    let api: Api<Told<Text>> = Api::all(client);
    let (informer, mut told) = Informer::builder(api).forgetful().start_subscribed(8);
    let seen = |change: Option<Change<Told<Text>>>| match change {
        Some(Change::Applied { old, new }) => {
            let old = old.map(|old| (old.name_any(), old.digest().cloned()));
            (old, new.digest().map(|text| text.0.clone()))
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(seen(told.recv().await), (None, Some("first".to_owned())));
    assert!(matches!(told.recv().await, Some(Change::Synced)));
    events.send(json!({"type": "MODIFIED", "object": texted("a", 6, "second")})).expect("open");
    let known = Some(("a".to_owned(), None));
    assert_eq!(seen(told.recv().await), (known, Some("second".to_owned())));
    let kept = informer.store().get(&ObjectKey::new("ns", "a")).expect("it is known");
    assert_eq!((kept.digest(), kept.resource_version().as_deref()), (None, Some("6")));
}
