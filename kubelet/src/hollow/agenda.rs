//! What is to be done about which pod, and when.
//!
//! Each incarnation of a pod has at most one thing to do next; seeing the pod again doesn't begin it anew. Time
//! is an argument.

use super::SharedPod;
use super::pod::{Act, RunTimes, next, status_patch};
use http::{Method, Request};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Between a write that failed and its repetition.
const PAUSE: Duration = Duration::from_secs(1);

/// One thing to do.
#[derive(Clone, Debug)]
pub struct Work {
    pod: SharedPod,
    /// What to do.
    pub act: Act,
}

/// Everything there is to do. See the module's description.
#[derive(Debug)]
pub struct Agenda {
    times: RunTimes,
    due: BTreeMap<(Instant, u64), Work>,
    /// By uid: what was planned last.
    planned: HashMap<String, Act>,
    /// Tells equal times apart, first come first served.
    tickets: u64,
}

impl Agenda {
    /// With nothing to do.
    pub fn new(times: RunTimes) -> Self {
        Agenda { times, due: BTreeMap::new(), planned: HashMap::new(), tickets: 0 }
    }

    /// Plans what a pod of ours does next.
    pub fn observe(&mut self, pod: &SharedPod, now: Instant) {
        let Some((delay, act)) = next(pod, &self.times) else { return };
        let uid = uid(pod);
        if self.planned.insert(uid.to_owned(), act) != Some(act) {
            self.plan(Work { pod: pod.clone(), act }, now + delay);
        }
    }

    /// Forgets a pod that is gone. What it still had to do is refused by the API server.
    pub fn forget(&mut self, pod: &Pod) {
        self.planned.remove(uid(pod));
    }

    /// Plans a failed work anew.
    pub fn again(&mut self, work: Work, now: Instant) {
        self.plan(work, now + PAUSE);
    }

    /// When something is to be done next.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Up to `most` things whose time has come and that weren't overtaken by others.
    pub fn take_due(&mut self, now: Instant, most: usize) -> Vec<Work> {
        let mut taken = Vec::new();
        while taken.len() < most && self.next_due().is_some_and(|at| at <= now) {
            let (_, work) = self.due.pop_first().expect("there is a next one");
            if self.planned.get(uid(&work.pod)) == Some(&work.act) {
                taken.push(work);
            }
        }
        taken
    }

    fn plan(&mut self, work: Work, at: Instant) {
        self.tickets += 1;
        self.due.insert((at, self.tickets), work);
    }
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

impl Work {
    /// Where the pod is in the API.
    pub fn path(&self) -> String {
        let metadata = &self.pod.metadata;
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("/api/v1/namespaces/{}/pods/{}", text(&metadata.namespace), text(&metadata.name))
    }

    /// The request that does it. It names the pod's uid, so that no other incarnation is meant.
    pub fn request(&self, now: Timestamp) -> http::Result<Request<Vec<u8>>> {
        let (method, path, body) = match self.act {
            Act::Delete => {
                let uid = uid(&self.pod);
                let options = json!({
                    "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0,
                    "preconditions": {"uid": uid},
                });
                (Method::DELETE, self.path(), options)
            }
            act => (Method::PATCH, self.path() + "/status", status_patch(&self.pod, act, now)),
        };
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, kind)
            .body(body.to_string().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn pod(phase: &str, deleted: bool) -> SharedPod {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"nodeName": "fake-1", "restartPolicy": "Never", "containers": [{"name": "c"}]},
            "status": {"phase": phase},
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn acts(works: &[Work]) -> Vec<Act> {
        works.iter().map(|work| work.act).collect()
    }

    #[test]
    fn a_pod_starts_at_once_and_ends_after_its_time_however_often_it_is_seen() {
        let start = Instant::now();
        let mut agenda = Agenda::new(RunTimes { finite: Duration::from_secs(2) });
        agenda.observe(&pod("Pending", false), start);
        agenda.observe(&pod("Pending", false), start);
        assert_eq!(acts(&agenda.take_due(start, 9)), [Act::Start]);
        agenda.observe(&pod("Running", false), start);
        agenda.observe(&pod("Running", false), start + Duration::from_secs(1));
        assert_eq!(agenda.next_due(), Some(start + Duration::from_secs(2)));
        assert_eq!(acts(&agenda.take_due(start + Duration::from_secs(1), 9)), []);
        assert_eq!(acts(&agenda.take_due(start + Duration::from_secs(2), 9)), [Act::Finish { code: 0 }]);
        agenda.observe(&pod("Succeeded", false), start + Duration::from_secs(3));
        assert_eq!(agenda.next_due(), None);
    }

    #[test]
    fn deletion_overtakes_everything_and_a_failed_write_comes_again() {
        let start = Instant::now();
        let mut agenda = Agenda::new(RunTimes { finite: Duration::from_secs(2) });
        agenda.observe(&pod("Running", false), start);
        agenda.observe(&pod("Running", true), start);
        let mut works = agenda.take_due(start + Duration::from_secs(5), 9);
        assert_eq!(acts(&works), [Act::Delete]);
        agenda.again(works.remove(0), start);
        assert_eq!(acts(&agenda.take_due(start + PAUSE, 9)), [Act::Delete]);
        agenda.again(Work { pod: pod("Running", true), act: Act::Delete }, start);
        agenda.forget(&pod("Running", true));
        assert_eq!(acts(&agenda.take_due(start + PAUSE, 9)), [], "it is gone");
    }

    #[test]
    fn requests_name_the_incarnation() {
        let delete = Work { pod: pod("Running", true), act: Act::Delete };
        let request = delete.request(Timestamp::UNIX_EPOCH).expect("a request");
        assert_eq!(
            (request.method(), request.uri().path()),
            (&Method::DELETE, "/api/v1/namespaces/ns/pods/p")
        );
        assert!(String::from_utf8_lossy(request.body()).contains(r#""preconditions":{"uid":"u"}"#));
        let start = Work { pod: pod("Pending", false), act: Act::Start };
        let request = start.request(Timestamp::UNIX_EPOCH).expect("a request");
        assert!(request.uri().path().ends_with("/status"));
        assert!(String::from_utf8_lossy(request.body()).contains(r#""uid":"u""#));
    }
}
