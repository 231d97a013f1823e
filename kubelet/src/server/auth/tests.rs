//! The gate with somebody who knows two users, and counts how often he is asked.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use http::HeaderValue;

use super::*;

#[derive(Default)]
struct Asked(Arc<AtomicUsize>);

#[async_trait]
impl Reviewer for Asked {
    async fn whose(&self, token: &str) -> Result<Option<Caller>, kube::Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok((token == "good").then(|| Caller { user: "robot".to_owned(), ..Caller::default() }))
    }

    async fn may(&self, caller: &Caller, act: &Act, node: &str) -> Result<bool, kube::Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        if caller.user == "unlucky" {
            return Err(kube::Error::Service("nobody is there".into()));
        }
        Ok(node == "n1"
            && (act.subresource == "metrics" || (caller.user == "admin" && act.subresource == "proxy")))
    }
}

fn caller(user: &str, groups: &[&str]) -> Caller {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Caller { user: user.to_owned(), groups, ..Caller::default() }
}

async fn ask(gate: &Gate, certified: Option<&Caller>, token: Option<&str>, path: &str) -> String {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).expect("a header");
        headers.insert(AUTHORIZATION, value);
    }
    match gate.admit(certified, &headers, &Method::GET, path).await {
        Ok(()) => "in".to_owned(),
        Err((code, message)) => format!("{} {message}", code.as_u16()),
    }
}

#[tokio::test]
async fn who_calls_is_asked_for_and_what_he_may() {
    let gate = Gate::new("n1", Asked::default());
    assert_eq!(ask(&gate, None, None, "/metrics").await, "401 Unauthorized");
    assert_eq!(ask(&gate, None, Some("bad"), "/metrics").await, "401 Unauthorized");
    assert_eq!(ask(&gate, None, Some("good"), "/metrics").await, "in");
    assert_eq!(
        ask(&gate, None, Some("good"), "/pods").await,
        "403 Forbidden (user=robot, verb=get, resource=nodes, subresource(s)=[pods proxy])"
    );
    let admin = caller("admin", &[]);
    assert_eq!(ask(&gate, Some(&admin), None, "/pods").await, "in", "who may proxy may see pods");
    assert_eq!(ask(&gate, Some(&admin), Some("bad"), "/pods").await, "in", "the certificate comes first");
    assert_eq!(
        ask(&gate, Some(&caller("unlucky", &[])), None, "/stats/summary").await,
        "500 Authorization error (user=unlucky, verb=get, resource=nodes, subresource=stats)"
    );
}

#[tokio::test]
async fn answers_are_remembered_and_masters_arent_asked_about() {
    let count = Arc::new(AtomicUsize::new(0));
    let gate = Gate::new("n1", Asked(count.clone()));
    for _ in 0..3 {
        assert_eq!(ask(&gate, None, Some("good"), "/metrics").await, "in");
    }
    assert_eq!(count.load(Ordering::Relaxed), 2, "once whose it is, once whether he may");
    for _ in 0..3 {
        assert_eq!(ask(&gate, None, Some("bad"), "/metrics").await, "401 Unauthorized");
        assert!(ask(&gate, None, Some("good"), "/run/a/b/c").await.starts_with("403"));
    }
    assert_eq!(count.load(Ordering::Relaxed), 4, "refusals, too");
    let api_server = caller("kube-apiserver-kubelet-client", &[MASTERS]);
    assert_eq!(ask(&gate, Some(&api_server), None, "/exec/a/b/c").await, "in");
    assert_eq!(count.load(Ordering::Relaxed), 4);
    for _ in 0..2 {
        assert!(ask(&gate, Some(&caller("unlucky", &[])), None, "/stats").await.starts_with("500"));
    }
    assert_eq!(count.load(Ordering::Relaxed), 6, "that nobody could be asked isn't remembered");
}
