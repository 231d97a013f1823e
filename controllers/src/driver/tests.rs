//! The performer against an API server that answers from a list.

use super::{Controller, End, Performer};
use crate::plan::{Action, Part, Plan, Presence, Target};
use client::{
    cause::{Cause, because},
    clock::Clock,
    config,
    election::Leadership,
    informer::ObjectKey,
    queue::WorkQueue,
    recorder, shutdown,
};
use http::{Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{client::Body, core::ApiResource};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};
use tower::Service;

type Log = Arc<Mutex<Vec<String>>>;

/// Answers in order, then with an empty object; logs method, path and body.
fn performer(answers: Vec<(u16, Value)>) -> (Performer, Log, recorder::RecorderTask, shutdown::Trigger) {
    let log: Log = Arc::default();
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let seen = log.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, answers) = (seen.clone(), answers.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let path = parts.uri.path().to_owned();
            log.lock().push(format!("{} {path} {}", parts.method, String::from_utf8_lossy(&body)));
            let (status, body) = answers.lock().pop_front().unwrap_or((200, object("x", "9")));
            let response = Response::builder().status(status).body(Body::from(body.to_string().into_bytes()));
            Ok::<_, Infallible>(response.expect("a response"))
        }
    });
    let (performer, events, trigger) = performer_of(service);
    (performer, log, events, trigger)
}

fn performer_of<S>(service: S) -> (Performer, recorder::RecorderTask, shutdown::Trigger)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    let client = config::in_process(service, "test").expect("a client");
    let (recorder, events) = recorder::start(client.clone(), "test", "");
    let (trigger, shutdown) = shutdown::channel();
    let leadership = Leadership::permanent(shutdown);
    (Performer { client, recorder, leadership, clock: Clock::start() }, events, trigger)
}

fn object(name: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "ns", "name": name, "uid": format!("u-{name}"), "resourceVersion": version}})
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    let message = format!("it is {reason}");
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code}),
    )
}

fn target(version: Option<&str>) -> Target {
    let kind = ApiResource::erase::<ConfigMap>(&());
    Target { version: version.map(str::to_owned), ..Target::named(kind, "ns", "x", "u-x") }
}

fn patch(field: &str) -> Action {
    let (reason, patch) = ("test".to_owned(), json!({"data": {field: "1"}}));
    Action::Patch { target: target(Some("5")), part: Part::Whole, patch, reason }
}

fn create() -> Action {
    let object =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "ns", "generateName": "p-"}});
    Action::Create { kind: ApiResource::erase::<Pod>(&()), object, announce: None, reason: "test".to_owned() }
}

fn plan(actions: Vec<Action>) -> Plan {
    Plan { actions, again: None }
}

#[tokio::test]
async fn a_second_patch_goes_on_from_the_first() {
    let (performer, log, _events, _trigger) =
        performer(vec![(200, object("x", "6")), (200, object("x", "7"))]);
    let report = performer.perform("test", &plan(vec![patch("a"), patch("b")])).await;
    assert_eq!(report.end, End::Complete);
    let log = log.lock();
    assert!(
        log[0].starts_with("PATCH /api/v1/namespaces/ns/configmaps/x ")
            && log[0].contains(r#""resourceVersion":"5""#)
    );
    assert!(log[1].contains(r#""resourceVersion":"6""#) && log[1].contains(r#""uid":"u-x""#), "{log:?}");
}

/// Wants one pod, once.
struct OnePod;

impl Controller for OnePod {
    type Key = ObjectKey;
    const NAME: &'static str = "one-pod";

    async fn look(&self, _: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        Ok(plan(vec![create()]))
    }
}

#[tokio::test]
async fn what_is_written_names_its_author_and_the_change_that_caused_it() {
    let seen = Arc::new(Mutex::new(None));
    let (log, (trigger, shutdown)) = (seen.clone(), shutdown::channel());
    let service = tower::service_fn(move |request: Request<Body>| {
        let header = |name: &str| request.headers()[name].to_str().unwrap_or_default().to_owned();
        *log.lock() = Some((header("user-agent"), header("amoeba-cause")));
        trigger.request();
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::from(
            object("x", "8").to_string().into_bytes(),
        ))))
    });
    let (performer, _events, _leading) = performer_of(service);
    let queue = WorkQueue::default();
    because(Some(Cause(7)), || queue.add(ObjectKey::new("ns", "x")));
    super::run(&OnePod, &queue, 1, &performer, shutdown).await;
    let expected = ("kube-controller-manager/one-pod".to_owned(), "7".to_owned());
    assert_eq!(*seen.lock(), Some(expected));
}

#[tokio::test]
async fn a_conflict_drops_the_rest() {
    let (performer, log, _events, _trigger) = performer(vec![failure(409, "Conflict")]);
    let report = performer.perform("test", &plan(vec![patch("a"), patch("b")])).await;
    assert_eq!((report.end, log.lock().len()), (End::Conflict("it is Conflict".to_owned()), 1));
}

#[tokio::test]
async fn refused_creates_cost_few_requests_and_are_reported() {
    let answers = vec![(201, object("a", "1")), (201, object("b", "2")), failure(403, "Forbidden")];
    let (performer, log, _events, _trigger) = performer(answers);
    let report = performer.perform("test", &plan(vec![create(); 100])).await;
    assert_eq!(report.end, End::Refused("it is Forbidden".to_owned()));
    assert_eq!((report.created.len(), log.lock().len()), (2, 3), "batches of 1 and 2, then no more");
}

#[tokio::test]
async fn a_look_that_does_not_confirm_drops_the_rest() {
    let gone = Action::Confirm { target: target(None), expected: Presence::Gone, reason: "test".to_owned() };
    let delete = Action::Delete {
        target: target(Some("5")),
        propagation: None,
        grace: None,
        announce: None,
        reason: "test".to_owned(),
    };
    let (alive, log, _events, _trigger) = performer(vec![(200, object("x", "5"))]);
    let report = alive.perform("test", &plan(vec![gone.clone(), delete.clone()])).await;
    assert!(matches!(report.end, End::Conflict(_)));
    assert_eq!(log.lock().len(), 1);

    let (reused, log, _events, _trigger) = performer(vec![failure(404, "NotFound")]);
    let report = reused.perform("test", &plan(vec![gone, delete])).await;
    assert_eq!((report.end, report.gone), (End::Complete, vec!["u-x".to_owned()]));
    assert!(
        log.lock()[1].contains(r#""preconditions":{"resourceVersion":"5","uid":"u-x"}"#),
        "{:?}",
        log.lock()
    );
}

#[tokio::test]
async fn nothing_is_written_without_leadership() {
    let (mut performer, log, _events, trigger) = performer(Vec::new());
    let (_, ended) = shutdown::channel();
    performer.leadership = Leadership::expired(ended);
    let report = performer.perform("test", &plan(vec![create(), patch("a")])).await;
    assert_eq!((report.end, log.lock().len()), (End::NotLeading, 0));
    drop(trigger);
}

#[tokio::test]
async fn pods_that_were_patched_are_reported_although_another_had_changed() {
    let (performer, log, _events, _trigger) =
        performer(vec![(200, object("a", "6")), failure(409, "Conflict")]);
    let release = |name: &str| Action::Patch {
        target: Target {
            version: Some("5".to_owned()),
            ..Target::named(ApiResource::erase::<Pod>(&()), "ns", name, &format!("u-{name}"))
        },
        part: Part::Whole,
        patch: json!({"metadata": {"finalizers": []}}),
        reason: "test".to_owned(),
    };
    let report = performer.perform("test", &plan(vec![release("a"), release("b"), patch("later")])).await;
    assert_eq!((report.end, log.lock().len()), (End::Conflict("it is Conflict".to_owned()), 2));
    let patched: Vec<_> =
        report.patched.iter().map(|written| (written.uid.as_str(), written.version)).collect();
    assert_eq!(patched, [("u-a", 6)], "what is done must be remembered, or a Job counts it twice");
}

#[tokio::test]
async fn leadership_that_ends_within_a_plan_ends_the_plan() {
    let valid_until = Arc::new(Mutex::new(Instant::now() + Duration::from_secs(3600)));
    let (ended, log) = (valid_until.clone(), Log::default());
    let requests = log.clone();
    // The server takes so long to answer the first write that our time is over by then.
    let service = tower::service_fn(move |request: Request<Body>| {
        requests.lock().push(request.method().to_string());
        *ended.lock() = Instant::now();
        let response = Response::new(Body::from(object("x", "6").to_string().into_bytes()));
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let (mut performer, _events, _trigger) = performer_of(service);
    let (_ending, shutdown) = shutdown::channel();
    performer.leadership = Leadership::until(valid_until, shutdown);
    let report = performer.perform("test", &plan(vec![patch("a"), create(), patch("b")])).await;
    assert_eq!(
        (report.end, log.lock().len()),
        (End::NotLeading, 1),
        "an old leader that wakes up changes nothing"
    );
}
