//! Hostile input: whatever is sent to whichever endpoint, the server answers with a refusal in its own words, stores
//! nothing that it shouldn't, and doesn't grow.
//!
//! `HOSTILE_REQUESTS=n` sends n requests to each class of endpoints, `HOSTILE_SEED=n` others than usual. Nothing here
//! depends on time.

use std::sync::Arc;

use apiserver::pki::Pki;
use apiserver::{ApiServer, Body, Config, Identity, Peer};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use store::kv::Kv;
use store::model::Model;

/// Requests to each class if nobody says how many.
const REQUESTS: usize = 400;

/// One class of endpoints: how a good request looks.
struct Class {
    name: &'static str,
    method: &'static str,
    paths: &'static [&'static str],
    content_type: &'static str,
    bodies: &'static [&'static str],
}

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"resources":{"requests":{"cpu":"100m"}}}]}}"#;
const CONFIG_MAP: &str =
    r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"there"},"data":{"k":"v"}}"#;
const DEPLOYMENT: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
const THERE: &str = "/api/v1/namespaces/default/configmaps/there";

const CLASSES: [Class; 12] = [
    Class {
        name: "create",
        method: "POST",
        paths: &[
            "/api/v1/namespaces/default/pods",
            "/apis/apps/v1/namespaces/default/deployments",
            "/api/v1/nodes",
        ],
        content_type: "application/json",
        bodies: &[POD, DEPLOYMENT, CONFIG_MAP],
    },
    Class {
        name: "create in YAML",
        method: "POST",
        paths: &["/api/v1/namespaces/default/configmaps"],
        content_type: "application/yaml",
        bodies: &[
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\ndata:\n  k: |\n    text\n  l: &x [1, *x]\n",
        ],
    },
    Class {
        name: "create in protobuf",
        method: "POST",
        paths: &["/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/pods"],
        content_type: "application/vnd.kubernetes.protobuf",
        bodies: &["k8s\0\n\u{f}\n\u{2}v1\u{12}\tConfigMap\u{12}\u{a}\n\u{8}\n\u{1}a\u{12}\0\u{1a}\0"],
    },
    Class {
        name: "update",
        method: "PUT",
        paths: &[THERE],
        content_type: "application/json",
        bodies: &[CONFIG_MAP],
    },
    Class {
        name: "JSON patch",
        method: "PATCH",
        paths: &[THERE],
        content_type: "application/json-patch+json",
        bodies: &[
            r#"[{"op":"add","path":"/data/x","value":"y"},{"op":"move","from":"/data/x","path":"/data/z"},{"op":"test","path":"/data/k","value":"v"}]"#,
        ],
    },
    Class {
        name: "merge patch",
        method: "PATCH",
        paths: &[THERE],
        content_type: "application/merge-patch+json",
        bodies: &[r#"{"data":{"k":null,"x":"y"},"metadata":{"labels":{"a":"b"}}}"#],
    },
    Class {
        name: "strategic patch",
        method: "PATCH",
        paths: &["/apis/apps/v1/namespaces/default/deployments/there"],
        content_type: "application/strategic-merge-patch+json",
        bodies: &[
            r#"{"spec":{"template":{"spec":{"containers":[{"$patch":"delete","name":"c"},{"name":"d","image":"i"}],"$setElementOrder/containers":[{"name":"d"}],"$retainKeys":["containers"]}}}}"#,
        ],
    },
    Class {
        name: "apply",
        method: "PATCH",
        paths: &["/apis/apps/v1/namespaces/default/deployments/there?fieldManager=x&force=true"],
        content_type: "application/apply-patch+yaml",
        bodies: &[
            DEPLOYMENT,
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: there}\nspec: {replicas: 2}\n",
        ],
    },
    Class {
        name: "get and list",
        method: "GET",
        paths: &[
            "/api/v1/namespaces/default/configmaps?labelSelector=a%20in%20(b,c),!d&limit=5",
            "/api/v1/pods?fieldSelector=spec.nodeName=n,status.phase!=Running&resourceVersion=1&resourceVersionMatch=Exact",
            "/api/v1/configmaps?limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NSwic3RhcnQiOiJhXHUwMDAwIn0",
            "/api/v1/namespaces/default/configmaps/there?atRevision=5",
            "/api/v1/namespaces/default/configmaps/there?history=true&limit=3",
            "/api/v1/namespaces/default/configmaps?atTime=5m",
        ],
        content_type: "",
        bodies: &[""],
    },
    Class {
        name: "delete",
        method: "DELETE",
        paths: &[
            "/api/v1/namespaces/default/configmaps/nobody?propagationPolicy=Foreground&gracePeriodSeconds=5",
        ],
        content_type: "application/json",
        bodies: &[
            r#"{"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":"x"},"gracePeriodSeconds":3}"#,
        ],
    },
    Class {
        name: "reviews and transactions",
        method: "POST",
        paths: &[
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            "/apis/amoeba.dev/v1/transactions",
        ],
        content_type: "application/json",
        bodies: &[
            r#"{"spec":{"resourceAttributes":{"verb":"get","resource":"pods","namespace":"a"}}}"#,
            r#"{"spec":{"token":"abc.def.ghi"}}"#,
            r#"{"kind":"Transaction","apiVersion":"amoeba.dev/v1","steps":[{"method":"PATCH","path":"/api/v1/namespaces/default/configmaps/none","contentType":"application/merge-patch+json","body":{}}]}"#,
        ],
    },
    Class {
        name: "paths that are no resources",
        method: "GET",
        paths: &[
            "/",
            "/version",
            "/readyz?verbose&exclude=ping",
            "/openapi/v3/api/v1?hash=x",
            "/apis/apps/v1",
            "/metrics",
        ],
        content_type: "",
        bodies: &[""],
    },
];

/// What is put where it doesn't belong.
const SNIPPETS: [&str; 28] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "-1",
    "1e999",
    "18446744073709551616",
    "\u{0}",
    "\\u0000",
    "\\ud800",
    "..",
    "%",
    "%00",
    "%2f",
    "&",
    "?",
    "=",
    "$patch",
    "~0~2",
    "*",
    "- ",
    "\t",
    "💥",
    "metadata",
];
const HEADERS: [(&str, &str); 10] = [
    ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"),
    ("accept", ";;;,=;as"),
    ("accept-encoding", "gzip;q=x"),
    ("authorization", "Bearer \u{1}"),
    ("impersonate-user", "a\u{e9}"),
    ("impersonate-extra-%zz", "x"),
    ("content-type", "application/json; charset=\""),
    ("user-agent", "/////"),
    ("amoeba-cause", "-5"),
    ("audit-id", "x"),
];

struct Hostile {
    server: Arc<ApiServer>,
    store: Model,
    random: StdRng,
    _dir: tempfile::TempDir,
}

impl Hostile {
    async fn start(seed: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pki = Arc::new(Pki::load_or_create(dir.path()).expect("a new authority"));
        let store = Model::new();
        let server = ApiServer::start(Arc::new(store.clone()), Config::new(pki)).await.expect("it starts");
        let mut hostile = Self { server, store, random: StdRng::seed_from_u64(seed), _dir: dir };
        for (path, body) in [
            ("/api/v1/namespaces/default/configmaps", CONFIG_MAP.to_owned()),
            ("/apis/apps/v1/namespaces/default/deployments", DEPLOYMENT.replace("\"d\"", "\"there\"")),
        ] {
            let made = hostile.send("POST", path, "application/json", body.into_bytes(), None).await;
            assert_eq!(made.expect("a request").status(), 201);
        }
        hostile
    }

    /// `None` if HTTP itself can't carry it.
    async fn send(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
        header: Option<(&str, &str)>,
    ) -> Option<Response<Body>> {
        let mut request = Request::builder().method(method).uri(path);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(Bytes::from(body))).ok()?;
        let peer = Peer::InProcess(Identity::new("mallory", &["system:masters"]));
        Some(self.server.handle(request, peer).await)
    }

    /// One request of a class, spoilt somewhere. Gives what was sent, to say it if the answer is wrong.
    fn spoil(&mut self, class: &Class) -> (String, String, Vec<u8>, Option<(&'static str, &'static str)>) {
        let path = class.paths[self.random.random_range(0..class.paths.len())].to_owned();
        let body = class.bodies[self.random.random_range(0..class.bodies.len())].as_bytes().to_vec();
        let (mut path, mut body, mut method) = (path, body, class.method.to_owned());
        match self.random.random_range(0..10) {
            0 => path = self.spoilt_path(&path),
            1 => body = self.nested(),
            2 => {
                method = ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "X"][self.random.random_range(0..6)]
                    .to_owned()
            }
            _ if body.is_empty() => path = self.spoilt_path(&path),
            _ => {}
        }
        for _ in 0..self.random.random_range(1..4) {
            self.spoil_bytes(&mut body);
        }
        let header =
            self.random.random_bool(0.2).then(|| HEADERS[self.random.random_range(0..HEADERS.len())]);
        (method, path, body, header)
    }

    fn spoilt_path(&mut self, path: &str) -> String {
        let mut bytes = path.as_bytes().to_vec();
        for _ in 0..self.random.random_range(1..4) {
            self.spoil_bytes(&mut bytes);
        }
        // What no HTTP parser lets through is escaped, so that it reaches us.
        let escape = |byte: &u8| match byte {
            b'!'..=b'~'
                if !matches!(byte, b'"' | b'<' | b'>' | b'#' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') =>
            {
                char::from(*byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        };
        let path: String = bytes.iter().map(escape).collect();
        if path.starts_with('/') { path } else { format!("/{path}") }
    }

    /// Deeper than any stack.
    fn nested(&mut self) -> Vec<u8> {
        let depth = self.random.random_range(100..50_000);
        let (open, close) = [("[", "]"), ("{\"a\":", "}"), ("- ", ""), ("&a [*a,", "]"), ("{a: ", "}")]
            [self.random.random_range(0..5)];
        format!("{}1{}", open.repeat(depth), close.repeat(depth)).into_bytes()
    }

    fn spoil_bytes(&mut self, bytes: &mut Vec<u8>) {
        let at = self.random.random_range(0..=bytes.len());
        match self.random.random_range(0..6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] = self.random.random(),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => {
                let end = self.random.random_range(at..=bytes.len());
                let copied = bytes[at..end].to_vec();
                bytes.splice(at..at, copied);
            }
            4 => bytes.insert(at, self.random.random()),
            _ => {
                let snippet = SNIPPETS[self.random.random_range(0..SNIPPETS.len())];
                bytes.splice(at..at, snippet.bytes());
            }
        }
        bytes.truncate(1 << 20);
    }

    async fn check(&mut self, class: &Class) {
        let (method, path, body, header) = self.spoil(class);
        let shown =
            || format!("{}: {method} {path} {header:?} {:?}", class.name, String::from_utf8_lossy(&body));
        let Some(answer) = self.send(&method, &path, class.content_type, body.clone(), header).await else {
            return;
        };
        let status = answer.status().as_u16();
        // A revision that doesn't exist yet is 504, as upstream has it; nothing else is the server's fault.
        assert!(status < 500 || status == 504, "{status} for {}", shown());
        let is_stream = answer.body().as_bytes().is_none();
        if is_stream {
            return; // A watch that was asked for by accident.
        }
        let text = answer.into_body().collect().await.expect("a whole answer").to_bytes();
        if status >= 400 && text.starts_with(b"{") {
            let refusal: Value =
                serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{error}: {}", shown()));
            assert_eq!(refusal["kind"], "Status", "{}", shown());
            assert!(refusal["message"].as_str().is_some_and(|message| !message.is_empty()), "{}", shown());
        }
    }

    async fn metrics(&mut self) -> usize {
        let answer = self.send("GET", "/metrics", "", Vec::new(), None).await.expect("a request");
        let text = answer.into_body().collect().await.expect("a whole answer").to_bytes();
        String::from_utf8_lossy(&text).lines().count()
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_refused_and_leave_nothing_behind() {
    let count = usize::try_from(number("HOSTILE_REQUESTS", REQUESTS as u64)).expect("a count");
    for (index, class) in CLASSES.iter().enumerate() {
        let seed = number("HOSTILE_SEED", 1) * 1000 + index as u64;
        let mut hostile = Hostile::start(seed).await;
        for _ in 0..count {
            hostile.check(class).await;
        }
        // Series are bounded by what there is, not by what is sent: verbs × resources × codes at most.
        let series = hostile.metrics().await;
        assert!(series < 3000, "{}: {series} lines of metrics", class.name);
        // Few of the spoilt requests are still good; what they wrote is bounded by them.
        let written = hostile.store.status().revision.0;
        assert!(written < 2000 + count as u64, "{}: {written} revisions", class.name);
        let good = hostile.send("GET", THERE, "", Vec::new(), None).await.expect("a request");
        assert!(matches!(good.status().as_u16(), 200 | 404), "it still serves");
    }
}
