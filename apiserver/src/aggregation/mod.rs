//! API servers behind this one: an APIService with a Service names who serves a group and version.
//!
//! [`feed`] keeps who serves what as new as the cache, [`controller`] asks them whether they live and what they
//! have, [`forward`] passes requests on, and discovery and OpenAPI list what they said last. Who asks is decided
//! here, and said to them in headers by somebody whom they know by a certificate of an authority of its own; they
//! find it in the ConfigMap `kube-system/extension-apiserver-authentication`.

mod agenda;
mod availability;
pub mod controller;
pub mod feed;
pub mod forward;
mod learned;
mod swagger;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::{Mutex, RwLock};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::config::Config;
use crate::pki::{FRONT_PROXY_USER, Pki, Renewed};
use crate::reach::tls::{self, Trust, TrustError};
use crate::request::RequestInfo;

pub use learned::Learned;
pub use swagger::Swagger;

/// The group of APIServices; nobody else can serve it, or nobody could take an APIService away again.
pub const GROUP: &str = "apiregistration.k8s.io";
/// How API servers behind ours find whom to believe.
const AUTHENTICATION: &str = "extension-apiserver-authentication";
/// Where it holds the authorities of who speaks for others.
const FRONT_PROXY_CA: &str = "requestheader-client-ca-file";

type Backends = BTreeMap<(String, String), Arc<Backend>>;

/// Who serves what behind this server.
pub struct Aggregation {
    /// What we show them.
    identity: Arc<Renewed>,
    backends: RwLock<Arc<Backends>>,
    /// What each has said last, by the name of its APIService.
    learned: Mutex<BTreeMap<String, Learned>>,
    /// Something that could make one available or not has changed.
    changed: watch::Sender<()>,
}

/// Who serves a group and version, as its APIService says.
#[derive(Debug)]
pub struct Backend {
    /// The APIService.
    pub name: String,
    /// The API group.
    pub group: String,
    /// The version in it.
    pub version: String,
    /// Where it is: the namespace of the Service.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// The Service's port.
    pub port: u16,
    /// Whether the last look found it able to answer.
    pub available: bool,
    /// The place of the group among groups, and of the version in it; the highest first.
    pub priority: (i64, i64),
    /// Whom to believe there, or why nobody can be.
    pub tls: Result<Arc<ClientConfig>, String>,
}

/// A group and version that is served elsewhere, for those who list what there is.
#[derive(Clone, Debug)]
pub struct External {
    /// The API group.
    pub group: String,
    /// The version in it.
    pub version: String,
    /// Whether what was learned holds now.
    pub current: bool,
    /// What it has said last.
    pub learned: Learned,
}

impl Aggregation {
    /// Nobody is behind us yet.
    ///
    /// # Errors
    /// Our certificate can't be made.
    pub fn new(pki: &Arc<Pki>) -> Result<Self, TrustError> {
        Ok(Self {
            identity: pki.front_proxy()?,
            backends: RwLock::default(),
            learned: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    /// Who serves what is asked for, if it isn't this server.
    pub fn who_serves(&self, info: &RequestInfo) -> Option<Arc<Backend>> {
        let backends = self.backends.read();
        if backends.is_empty() {
            return None;
        }
        let (group, version) = match info.is_resource {
            true => (info.group.as_str(), info.version.as_str()),
            false => place_of(&info.path)?,
        };
        backends.get(&(group.to_owned(), version.to_owned())).cloned()
    }

    /// All who serve something.
    fn all(&self) -> Vec<Arc<Backend>> {
        self.backends.read().values().cloned().collect()
    }

    /// What is served elsewhere: the most important group first, and in it the most important version.
    pub fn external(&self) -> Vec<External> {
        let mut all = self.all();
        all.sort_by_key(|backend| {
            let (group, version) = backend.priority;
            (Reverse(group), backend.group.clone(), Reverse(version), backend.version.clone())
        });
        let learned = self.learned.lock();
        let of = |backend: &Arc<Backend>| {
            let known = learned.get(&backend.name).cloned();
            External {
                group: backend.group.clone(),
                version: backend.version.clone(),
                current: backend.available && known.is_some(),
                learned: known.unwrap_or_default(),
            }
        };
        all.iter().map(of).collect()
    }
}

/// `/apis/GROUP/VERSION`, and the document about it.
fn place_of(path: &str) -> Option<(&str, &str)> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        ["apis", group, version] | ["openapi", "v3", "apis", group, version] => Some((group, version)),
        _ => None,
    }
}

impl Backend {
    /// What an APIService says; `None` if this server serves it itself.
    fn of(object: &Value, identity: &Arc<Renewed>) -> Option<Self> {
        let (spec, text) = (&object["spec"], |value: &Value| value.as_str().unwrap_or_default().to_owned());
        let (group, service) = (text(&spec["group"]), &spec["service"]);
        if service.is_null() || group.is_empty() || group == GROUP {
            return None;
        }
        let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let place = |field: &str| spec[field].as_i64().unwrap_or_default();
        Some(Self {
            name: api::object::name(object).to_owned(),
            group,
            version: text(&spec["version"]),
            namespace: text(&service["namespace"]),
            service: text(&service["name"]),
            port: service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
            available: conditions.any(|found| found["type"] == "Available" && found["status"] == "True"),
            priority: (place("groupPriorityMinimum"), place("versionPriority")),
            tls: trusting(spec, identity),
        })
    }

    /// The name that its certificate must have.
    fn server_name(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }
}

fn trusting(spec: &Value, identity: &Arc<Renewed>) -> Result<Arc<ClientConfig>, String> {
    let bundle = STANDARD.decode(spec["caBundle"].as_str().unwrap_or_default());
    let bundle = bundle.map_err(|error| format!("spec.caBundle: {error}"))?;
    let trust = match spec["insecureSkipTLSVerify"] == true {
        true => Trust::Anyone,
        false => Trust::Bundle(&bundle),
    };
    tls::client(trust, Some(identity)).map_err(|error| error.to_string())
}

/// What API servers behind ours need to know, as upstream publishes it.
pub fn authentication(config: &Config) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": AUTHENTICATION, "namespace": "kube-system"},
        "data": {
            "client-ca-file": config.pki.ca_pem(),
            FRONT_PROXY_CA: config.pki.front_proxy_ca_pem(),
            "requestheader-allowed-names": json!([FRONT_PROXY_USER]).to_string(),
            "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
            "requestheader-group-headers": r#"["X-Remote-Group"]"#,
            "requestheader-uid-headers": r#"["X-Remote-Uid"]"#,
            "requestheader-username-headers": r#"["X-Remote-User"]"#,
        },
    })
}

/// What is to be written so that the published ConfigMap says what this member needs; `None` if it does. Members
/// that don't share their authorities each add their own.
pub fn authentication_with(there: &Value, wanted: &Value) -> Option<Value> {
    if api::object::kind(wanted) != "ConfigMap" || api::object::name(wanted) != AUTHENTICATION {
        return None;
    }
    let mut next = there.clone();
    for (key, value) in wanted["data"].as_object()? {
        let (had, value) = (there["data"][key].as_str().unwrap_or_default(), value.as_str()?);
        next["data"][key] = match had.contains(value) {
            true => json!(had),
            false if had.contains("BEGIN CERTIFICATE") => json!(format!("{had}{value}")),
            false => json!(value),
        };
    }
    (next != *there).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_grows_by_who_is_missing() {
        let published = |ca: &str| json!({"kind": "ConfigMap", "metadata": {"name": AUTHENTICATION}, "data": {FRONT_PROXY_CA: ca, "x": "y"}});
        let (first, second) = ("-----BEGIN CERTIFICATE-----\nA\n", "-----BEGIN CERTIFICATE-----\nB\n");
        assert_eq!(authentication_with(&published(first), &published(first)), None);
        let both = authentication_with(&published(first), &published(second)).expect("a change");
        assert_eq!(both["data"][FRONT_PROXY_CA], json!(format!("{first}{second}")));
        assert_eq!(authentication_with(&both, &published(first)), None);
        let mut lost = published(first);
        lost["data"]["x"] = json!("z");
        assert_eq!(authentication_with(&lost, &published(first)), Some(published(first)));
    }

    #[test]
    fn only_documents_of_a_version_are_its_servers() {
        assert_eq!(place_of("/apis/a.example/v1/"), Some(("a.example", "v1")));
        assert_eq!(place_of("/openapi/v3/apis/a.example/v1"), Some(("a.example", "v1")));
        for ours in ["/apis/a.example", "/apis", "/openapi/v3", "/api/v1", "/healthz"] {
            assert_eq!(place_of(ours), None, "{ours}");
        }
    }
}
