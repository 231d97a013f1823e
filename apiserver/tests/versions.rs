//! The rules of resource versions, held against a slow model: every list is one state that was, every page of a list
//! the same one, and a watch tells exactly what came after where it starts, also after compaction.
//!
//! `VERSION_SEEDS=n` plays n histories, `VERSION_SEED=n` one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apiserver::pki::Pki;
use apiserver::{ApiServer, Body, Config, Identity, Peer};
use http::Request;
use http_body_util::BodyExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use store::kv::{Kv, Revision};
use store::model::Model;

const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// Names that the history is about: few, so that they come and go.
const NAMES: usize = 6;
/// Changes that the server keeps in memory.
const HISTORY: usize = 5;
/// What happens in one history.
const STEPS: usize = 60;
/// How long an answer may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Name to version and text.
type State = BTreeMap<String, (u64, String)>;

/// Everything that was, in the most obvious way.
#[derive(Default)]
struct Past {
    /// Each state, with the revision that made it.
    states: Vec<(u64, State)>,
    /// Revision, type and name of each change.
    events: Vec<(u64, &'static str, String)>,
    compacted: u64,
}

impl Past {
    fn at(&self, revision: u64) -> State {
        let known = self.states.iter().rev().find(|(made, _)| *made <= revision);
        known.map(|(_, state)| state.clone()).unwrap_or_default()
    }

    fn now(&self) -> State {
        self.at(u64::MAX)
    }

    fn write(&mut self, revision: u64, kind: &'static str, name: &str, text: Option<&str>) {
        let mut state = self.now();
        match text {
            Some(text) => state.insert(name.to_owned(), (revision, text.to_owned())),
            None => state.remove(name),
        };
        self.states.push((revision, state));
        self.events.push((revision, kind, name.to_owned()));
    }
}

struct Play {
    server: Arc<ApiServer>,
    store: Model,
    past: Past,
    random: StdRng,
    /// The newest version that any list has shown.
    shown: u64,
    base: u64,
    _dir: tempfile::TempDir,
}

impl Play {
    async fn start(seed: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pki = Arc::new(Pki::load_or_create(dir.path()).expect("a new authority"));
        let mut config = Config::new(pki);
        config.limits.watch_history_events = HISTORY;
        let store = Model::new();
        let server = ApiServer::start(Arc::new(store.clone()), config).await.expect("it starts");
        let base = store.status().revision.0;
        let random = StdRng::seed_from_u64(seed);
        Self { server, store, past: Past::default(), random, shown: 0, base, _dir: dir }
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Body) {
        let body = body.map(|body| Body::from(body.to_string())).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).body(body).expect("a request");
        let peer = Peer::InProcess(Identity::new("admin", &["system:masters"]));
        let answer =
            tokio::time::timeout(PATIENCE, self.server.handle(request, peer)).await.expect("in time");
        (answer.status().as_u16(), answer.into_body())
    }

    async fn json(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let (status, body) = self.ask(method, path, body).await;
        let bytes = body.collect().await.expect("a whole answer").to_bytes();
        (status, serde_json::from_slice(&bytes).expect("JSON"))
    }

    /// One write of somebody.
    async fn write(&mut self) {
        let name = format!("n{}", self.random.random_range(0..NAMES));
        let text = self.random.random_range(0..1000).to_string();
        let object = json!({"metadata": {"name": name}, "data": {"text": text}});
        let own = format!("{PATH}/{name}");
        let there = self.past.now().contains_key(&name);
        match (there, self.random.random_bool(0.4)) {
            (false, _) => {
                let (status, made) = self.json("POST", PATH, Some(object)).await;
                assert_eq!(status, 201, "{made}");
                self.past.write(version(&made), "ADDED", &name, Some(&text));
            }
            (true, true) => {
                assert_eq!(self.json("DELETE", &own, None).await.0, 200);
                self.past.write(self.store.status().revision.0, "DELETED", &name, None);
            }
            (true, false) => {
                let (status, changed) = self.json("PUT", &own, Some(object)).await;
                assert_eq!(status, 200, "{changed}");
                // An equal state is no change.
                if self.past.now()[&name].1 != text {
                    self.past.write(version(&changed), "MODIFIED", &name, Some(&text));
                }
            }
        }
    }

    /// The state that a list shows must be the one that was at its version.
    fn check_list(&mut self, list: &Value, what: &str) -> u64 {
        let shown = version(list);
        assert_eq!(state_of(&[list]), self.past.at(shown), "{what} at {shown}");
        shown
    }

    async fn list_newest(&mut self) {
        let least = self.store.status().revision.0;
        let (status, list) = self.json("GET", PATH, None).await;
        assert_eq!(status, 200, "{list}");
        let shown = self.check_list(&list, "a list without version");
        assert!(shown >= least && shown >= self.shown, "{shown} after {least} and {}", self.shown);
        self.shown = shown;
    }

    async fn list_not_older(&mut self) {
        let least = self.some_revision();
        for path in [format!("{PATH}?resourceVersion=0"), format!("{PATH}?resourceVersion={least}")] {
            let (status, list) = self.json("GET", &path, None).await;
            assert_eq!(status, 200, "{list}");
            let shown = self.check_list(&list, &path);
            assert!(path.ends_with("=0") || shown >= least, "{path} shows {shown}");
        }
    }

    async fn list_exact(&mut self) {
        let wanted = self.some_revision();
        let exact = [
            format!("{PATH}?resourceVersion={wanted}&resourceVersionMatch=Exact"),
            format!("{PATH}?resourceVersion={wanted}&limit=100"),
            format!("{PATH}?atRevision={wanted}"),
        ];
        for path in exact {
            let (status, list) = self.json("GET", &path, None).await;
            if wanted < self.past.compacted {
                assert_eq!((status, list["reason"].as_str()), (410, Some("Expired")), "{path}");
                continue;
            }
            assert_eq!(status, 200, "{path}: {list}");
            assert_eq!(self.check_list(&list, &path), wanted);
        }
    }

    /// Pages with writes, and perhaps a compaction, between them.
    async fn list_in_pages(&mut self) {
        let limit = self.random.random_range(1..4);
        let (status, first) = self.json("GET", &format!("{PATH}?limit={limit}"), None).await;
        assert_eq!(status, 200);
        let (shown, mut pages) = (version(&first), vec![first]);
        while let Some(token) = continue_of(pages.last().expect("a page")) {
            self.check_remaining(shown, &pages);
            if self.random.random_bool(0.5) {
                self.write().await;
            }
            if self.random.random_bool(0.1) {
                self.compact().await;
            }
            let (status, page) =
                self.json("GET", &format!("{PATH}?limit={limit}&continue={token}"), None).await;
            if shown < self.past.compacted {
                assert_eq!((status, page["reason"].as_str()), (410, Some("Expired")), "{page}");
                return self.go_on_inconsistently(&page, &pages).await;
            }
            assert_eq!(status, 200, "{page}");
            assert_eq!(version(&page), shown, "all pages are of one version");
            pages.push(page);
        }
        assert_eq!(state_of(&pages.iter().collect::<Vec<_>>()), self.past.at(shown), "pages at {shown}");
    }

    fn check_remaining(&self, shown: u64, pages: &[Value]) {
        let seen = state_of(&pages.iter().collect::<Vec<_>>()).len();
        let told = pages.last().and_then(|page| page["metadata"]["remainingItemCount"].as_u64());
        // What is not ours is in no page, and counts (the namespace has one more map).
        assert!(told.is_some_and(|told| told as usize >= self.past.at(shown).len() - seen), "{told:?}");
    }

    /// The token of a 410 leads on, into a newer state.
    async fn go_on_inconsistently(&mut self, refusal: &Value, pages: &[Value]) {
        let token = continue_of(refusal).expect("a 410 has a token that works");
        let (status, rest) = self.json("GET", &format!("{PATH}?continue={token}"), None).await;
        assert_eq!(status, 200, "{rest}");
        let last = names_of(pages.last().expect("a page")).pop().expect("a page has items");
        let expected: Vec<String> =
            self.past.at(version(&rest)).into_keys().filter(|name| *name > last).collect();
        assert_eq!(ours(names_of(&rest)), expected, "the rest after {last}");
    }

    /// From any revision, a watch tells what came after, in order.
    async fn watch(&mut self) {
        let from = self.some_revision();
        let (status, mut body) =
            self.ask("GET", &format!("{PATH}?watch=1&resourceVersion={from}"), None).await;
        assert_eq!(status, 200);
        // What is written now comes, too, behind the past, even if it's more than memory holds while nobody reads.
        for _ in 0..self.random.random_range(1..3 * HISTORY) {
            self.write().await;
        }
        let expected: Vec<_> = self.past.events.iter().filter(|(at, ..)| *at > from).cloned().collect();
        let mut seen: Vec<(u64, String, String)> = Vec::new();
        let mut bytes = Vec::new();
        while seen.len() < expected.len() {
            let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("an event in time");
            let frame = frame.unwrap_or_else(|| panic!("the watch from {from} ends after {seen:?}"));
            bytes.extend_from_slice(&frame.expect("a frame").into_data().unwrap_or_default());
            while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = bytes.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).expect("JSON");
                if event["type"] == "ERROR" {
                    assert_eq!(event["object"]["code"], 410, "{event}");
                    assert!(
                        from < self.past.compacted,
                        "{from} is kept, {} is compacted",
                        self.past.compacted
                    );
                    return;
                }
                seen.push((
                    version(&event["object"]),
                    text(&event["type"]),
                    text(&event["object"]["metadata"]["name"]),
                ));
            }
        }
        let expected: Vec<_> =
            expected.into_iter().map(|(at, kind, name)| (at, kind.to_owned(), name)).collect();
        assert_eq!(seen, expected, "a watch from {from}");
    }

    /// A watch that begins with the state: the state, its end, and what follows.
    async fn watch_list(&mut self) {
        let query =
            "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let (status, mut body) = self.ask("GET", &format!("{PATH}?{query}"), None).await;
        assert_eq!(status, 200);
        let (mut state, mut bytes) = (State::new(), Vec::new());
        let end = loop {
            let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("an event in time");
            bytes.extend_from_slice(&frame.expect("a frame").expect("data").into_data().unwrap_or_default());
            let mut events = bytes
                .split_inclusive(|byte| *byte == b'\n')
                .map(|line| serde_json::from_slice::<Value>(line).expect("a chunk is whole lines"));
            if let Some(end) = events.find(|event| event["type"] == "BOOKMARK") {
                break end;
            }
        };
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line).expect("JSON");
            if event["type"] == "ADDED" {
                state.extend(state_of(&[&json!({"items": [event["object"]]})]));
            }
        }
        let at = version(&end["object"]);
        assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
        assert_eq!(state, self.past.at(at), "the initial events at {at}");
    }

    async fn compact(&mut self) {
        let newest = self.store.status().revision.0;
        let at = self.random.random_range(self.base..=newest);
        if at > self.past.compacted {
            self.store.compact(Revision(at)).await.expect("the model compacts");
            self.past.compacted = at;
        }
    }

    /// A revision since the beginning.
    fn some_revision(&mut self) -> u64 {
        self.random.random_range(self.base..=self.store.status().revision.0)
    }

    async fn step(&mut self) {
        match self.random.random_range(0..12) {
            0..5 => self.write().await,
            5 => self.list_newest().await,
            6 => self.list_not_older().await,
            7 => self.list_exact().await,
            8 => self.list_in_pages().await,
            9 => self.watch().await,
            10 => self.watch_list().await,
            _ if self.random.random_bool(0.3) => self.compact().await,
            _ => {}
        }
    }
}

fn version(object: &Value) -> u64 {
    let version = object["metadata"]["resourceVersion"].as_str();
    version.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no version in {object}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn continue_of(list: &Value) -> Option<String> {
    list["metadata"]["continue"].as_str().map(str::to_owned)
}

fn names_of(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| text(&item["metadata"]["name"])).collect()
}

/// Others may keep maps in the namespace.
fn ours(names: Vec<String>) -> Vec<String> {
    names.into_iter().filter(|name| name.starts_with('n')).collect()
}

fn state_of(lists: &[&Value]) -> State {
    let items = lists.iter().flat_map(|list| list["items"].as_array().into_iter().flatten());
    let entry =
        |item: &Value| (text(&item["metadata"]["name"]), (version(item), text(&item["data"]["text"])));
    items.map(entry).filter(|(name, _)| name.starts_with('n')).collect()
}

#[tokio::test]
async fn lists_and_watches_show_what_was() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("VERSION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("VERSION_SEEDS").unwrap_or(12),
    };
    for seed in seeds {
        eprintln!("VERSION_SEED={seed}");
        let mut play = Play::start(seed).await;
        for _ in 0..STEPS {
            play.step().await;
        }
    }
}
