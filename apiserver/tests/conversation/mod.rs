//! The player of a conversation: sends the requests of a script and writes down the answers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use apiserver::pki::Pki;
use apiserver::{ApiServer, Body, Config, Identity, InProcess, Peer};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use store::kv::Kv;
use store::model::Model;

/// How long an answer may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server and what has been said so far.
pub struct Conversation {
    server: Arc<ApiServer>,
    store: Model,
    _dir: tempfile::TempDir,
    /// The revision that scripts call `{0}`.
    base: u64,
    identity: Identity,
    watches: HashMap<String, Body>,
    /// Bytes of a watch behind the last event read.
    pending: HashMap<String, Vec<u8>>,
    uids: BTreeMap<String, usize>,
    continue_token: String,
    /// The token that was made last.
    token: String,
}

/// A step, taken apart.
struct Step<'a> {
    line: Vec<&'a str>,
    headers: Vec<(&'a str, &'a str)>,
    show: Vec<&'a str>,
    body: String,
}

impl<'a> Step<'a> {
    fn parse(text: &'a str) -> Self {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let line = lines.next().unwrap_or_default().split_whitespace().collect();
        let mut step = Self { line, headers: Vec::new(), show: Vec::new(), body: String::new() };
        let mut in_body = false;
        for line in lines {
            if let Some(pointers) = line.strip_prefix("show ").filter(|_| !in_body) {
                step.show = pointers.split_whitespace().collect();
            } else if let Some(header) = line.split_once(": ").filter(|(name, _)| !in_body && is_header(name))
            {
                step.headers.push(header);
            } else {
                in_body = true;
                step.body.push_str(line);
                step.body.push('\n');
            }
        }
        step
    }
}

fn is_header(name: &str) -> bool {
    matches!(name, "Accept" | "Authorization" | "Content-Type" | "User-Agent")
        || ["Impersonate-", "Amoeba-"].iter().any(|ours| name.starts_with(ours))
}

fn drop_owners(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(drop_owners),
        Value::Object(map) => {
            map.remove("managedFields");
            map.values_mut().for_each(drop_owners);
        }
        _ => {}
    }
}

impl Conversation {
    pub async fn start() -> Self {
        let store = Model::new();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pki = Arc::new(Pki::load_or_create(dir.path()).expect("a new certificate authority"));
        let mut config = Config::new(pki);
        config.limits.freshness = Duration::from_millis(50);
        config.limits.bookmark = Duration::from_millis(50);
        config.limits.body_bytes = 10_000;
        config.limits.object_bytes = 5_000;
        config.limits.watch_history_events = 4;
        let server = ApiServer::start(Arc::new(store.clone()), config).await.expect("the server starts");
        let base = store.status().revision.0;
        Self {
            server,
            base,
            store,
            _dir: dir,
            identity: Identity::new("admin", &["system:masters"]),
            watches: HashMap::new(),
            pending: HashMap::new(),
            uids: BTreeMap::new(),
            continue_token: String::new(),
            token: String::new(),
        }
    }

    /// A client of the server in the same process.
    pub fn in_process(&self) -> InProcess {
        self.server.in_process(self.identity.clone())
    }

    /// Takes one step and tells what was answered.
    pub async fn take(&mut self, text: &str) -> String {
        let text = self.resolve(text);
        let step = Step::parse(&text);
        match step.line.as_slice() {
            ["AS", user, groups @ ..] => {
                self.identity = Identity::new(*user, groups);
                String::new()
            }
            ["COMPACT"] => {
                let newest = self.store.status().revision;
                self.store.compact(newest).await.expect("the model compacts");
                String::new()
            }
            ["WATCH", name, path] => {
                let response = self.send("GET", path, &step).await;
                let status = response.status();
                if !status.is_success() {
                    return self.tell(response, &step).await;
                }
                self.watches.insert((*name).to_owned(), response.into_body());
                status.as_u16().to_string()
            }
            ["READ", name, count] => self.read(name, count, &step).await,
            ["ESTABLISHED", name] => self.until_condition(name, "Established", &["True"], &step).await,
            ["JUDGED", name] => self.until_condition(name, "NamesAccepted", &["True", "False"], &step).await,
            ["GONE", path] => self.until(path, &step, |status, _| status == 404).await,
            [method, path] => {
                let response = self.send(method, path, &step).await;
                self.tell(response, &step).await
            }
            other => panic!("what is {other:?}?"),
        }
    }

    /// Puts in what only this run knows.
    fn resolve(&self, text: &str) -> String {
        let mut resolved = text.replace("{continue}", &self.continue_token).replace("{token}", &self.token);
        for offset in 0..100 {
            resolved = resolved.replace(&format!("{{{offset}}}"), &(self.base + offset).to_string());
        }
        for (uid, number) in &self.uids {
            resolved = resolved.replace(&format!("{{UID{number}}}"), uid);
        }
        resolved
    }

    /// Plays the controller that gives a namespace its default service account, when the first pod needs it.
    async fn default_account(&self, path: &str) {
        let namespace = path.strip_prefix("/api/v1/namespaces/").and_then(|rest| rest.split_once("/pods"));
        let Some((namespace, "")) = namespace else { return };
        let uri = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        let admin = || Peer::InProcess(Identity::new("admin", &["system:masters"]));
        let found = Request::get(format!("{uri}/default")).body(Body::empty()).expect("a request");
        if self.server.handle(found, admin()).await.status() == 404 {
            let body = r#"{"metadata":{"name":"default"}}"#;
            let made = Request::post(uri).body(Body::from(body.to_owned())).expect("a request");
            self.server.handle(made, admin()).await;
        }
    }

    async fn send(&self, method: &str, path: &str, step: &Step<'_>) -> Response<Body> {
        if method == "POST" {
            self.default_account(path.split('?').next().unwrap_or_default()).await;
        }
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in &step.headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(step.body.clone())).expect("a well-formed request");
        // Who shows a token comes over the network, and is nobody else.
        let peer = match request.headers().contains_key("authorization") {
            true => Peer::Tls { certs: Vec::new(), addr: ([127, 0, 0, 1], 1).into() },
            false => Peer::InProcess(self.identity.clone()),
        };
        let answer = self.server.handle(request, peer);
        tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time")
    }

    /// Asks until a definition has a condition with one of these values.
    async fn until_condition(&self, name: &str, kind: &str, values: &[&str], step: &Step<'_>) -> String {
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        let holds = |_: u16, crd: &Value| {
            let conditions = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == kind && values.iter().any(|value| c["status"] == *value))
        };
        self.until(&path, step, holds).await
    }

    /// Asks until the answer is what is waited for: some things happen a moment after they were asked for.
    async fn until(&self, path: &str, step: &Step<'_>, holds: impl Fn(u16, &Value) -> bool) -> String {
        let wait = async {
            loop {
                let response = self.send("GET", path, step).await;
                let status = response.status().as_u16();
                let body = response.into_body().collect().await.expect("a whole body").to_bytes();
                if holds(status, &serde_json::from_slice(&body).unwrap_or_default()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{path} in time"));
        "yes".to_owned()
    }

    async fn tell(&mut self, response: Response<Body>, step: &Step<'_>) -> String {
        let mut told = response.status().as_u16().to_string();
        for name in ["warning", "retry-after"] {
            for value in response.headers().get_all(name) {
                told.push_str(&format!("\n{name}: {}", value.to_str().expect("ASCII")));
            }
        }
        let body = response.into_body().collect().await.expect("a whole body").to_bytes();
        match serde_json::from_slice::<Value>(&body) {
            Ok(value) => told.push_str(&self.show(value, &step.show)),
            Err(_) => told.push_str(&format!("\n{}", String::from_utf8_lossy(&body))),
        }
        told
    }

    async fn read(&mut self, name: &str, count: &str, step: &Step<'_>) -> String {
        let mut body = self.watches.remove(name).unwrap_or_else(|| panic!("no watch {name}"));
        let mut bytes = self.pending.remove(name).unwrap_or_default();
        let wanted = count.parse().unwrap_or(usize::MAX);
        let mut told = Vec::new();
        while told.len() < wanted {
            if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = bytes.drain(..=end).collect();
                told.push(self.event(&line, step));
                continue;
            }
            let next = tokio::time::timeout(PATIENCE, body.frame()).await;
            match next.unwrap_or_else(|_| panic!("watch {name} said only {told:?}")) {
                Some(frame) => {
                    bytes.extend_from_slice(&frame.expect("a frame").into_data().unwrap_or_default())
                }
                None => {
                    told.push("(end)".to_owned());
                    break;
                }
            }
        }
        self.watches.insert(name.to_owned(), body);
        self.pending.insert(name.to_owned(), bytes);
        told.join("\n")
    }

    fn event(&mut self, line: &[u8], step: &Step<'_>) -> String {
        let event: Value = serde_json::from_slice(line).expect("an event is a line of JSON");
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        format!("{kind}{}", self.show(event["object"].clone(), &step.show))
    }

    /// The value, or parts of it, one a line.
    fn show(&mut self, mut value: Value, pointers: &[&str]) -> String {
        self.normalize(&mut value);
        if pointers.is_empty() {
            drop_owners(&mut value);
            return format!("\n{value}");
        }
        let part = |pointer: &&str| format!("\n{pointer} = {}", at(&value, pointer));
        pointers.iter().map(part).collect()
    }

    /// Replaces what differs from run to run. Owners of fields would fill every answer: they are shown to
    /// who asks for them.
    fn normalize(&mut self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.normalize(item)),
            Value::String(text) if text.starts_with("JTI=") => *text = "JTI=ID".to_owned(),
            Value::String(text) => *text = self.normalize_message(text),
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    match value {
                        Value::String(text) => *text = self.normalize_text(key, text),
                        other => self.normalize(other),
                    }
                }
            }
            _ => {}
        }
    }

    fn normalize_text(&mut self, key: &str, text: &str) -> String {
        match key {
            "uid" if text.len() == 36 => {
                let next = self.uids.len() + 1;
                format!("UID{}", self.uids.entry(text.to_owned()).or_insert(next))
            }
            "token" if text.len() > 100 => {
                self.token = text.to_owned();
                "TOKEN".to_owned()
            }
            "resourceVersion" | "cause" | "revision" => self.normalize_revision(text),
            "continue" => {
                self.continue_token = text.to_owned();
                let json = URL_SAFE_NO_PAD.decode(text).expect("base64url");
                let json: Value = serde_json::from_slice(&json).expect("a token is JSON");
                format!("{} at {}", json["start"], self.normalize_revision(&json["rv"].to_string()))
            }
            "message" => self.normalize_message(text),
            "name" if text.starts_with("kube-api-access-") => "kube-api-access-RANDOM".to_owned(),
            _ if text.parse::<jiff::Timestamp>().is_ok() => "TIME".to_owned(),
            _ => text.to_owned(),
        }
    }

    fn normalize_revision(&self, text: &str) -> String {
        match text.parse::<u64>() {
            Ok(revision) if (self.base..self.base + 100).contains(&revision) => {
                format!("{{{}}}", revision - self.base)
            }
            _ => text.to_owned(),
        }
    }

    fn normalize_message(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (uid, number) in &self.uids {
            text = text.replace(uid, &format!("UID{number}"));
        }
        if !text.contains("resource version") && !text.contains("revision") {
            return text; // Other numbers only look like revisions.
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '.';
        let mut told = String::new();
        for word in text.split_inclusive(|c| !is_word(c)) {
            let number = word.trim_end_matches(|c| !is_word(c));
            told.push_str(&self.normalize_revision(number));
            told.push_str(&word[number.len()..]);
        }
        told
    }
}

/// The value at a pointer; `*` takes all items of a list.
fn at(value: &Value, pointer: &str) -> Value {
    match pointer.split_once("/*") {
        None => value.pointer(pointer).cloned().unwrap_or(Value::Null),
        Some((list, rest)) => {
            let items = value.pointer(list).and_then(Value::as_array).cloned().unwrap_or_default();
            Value::Array(items.iter().map(|item| at(item, rest)).collect())
        }
    }
}
