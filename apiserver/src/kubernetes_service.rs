//! Service `default/kubernetes`: how pods reach the API servers.
//!
//! Each server that knows where it is reached renews a Lease in `kube-system` and keeps the EndpointSlice and
//! the Endpoints of the Service as the living leases say. Who is alive is measured by our own clock since a
//! lease was last seen to change, never by comparing clocks. What to write is decided by pure functions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::auth::Identity;
use crate::body::Body;
use crate::config::Config;
use crate::handle::ApiServer;
use crate::peer::Peer;
use crate::pki::MASTERS_GROUP;

/// The Service of the cluster's DNS.
pub const DNS: &str = "kube-dns";
/// Time between looks.
const PERIOD: Duration = Duration::from_secs(10);
/// A server whose lease hasn't changed for this long isn't named any more.
const MISSED: Duration = Duration::from_secs(30);
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints/kubernetes";
/// Marks the leases of API servers, as upstream does.
const IDENTITY: &str = "apiserver.kubernetes.io/identity";

/// What is made at each start, if it isn't there: the range of addresses, and the Service if the server knows
/// where it is reached. The Service has the first address of the range.
pub fn objects(config: &Config) -> Vec<Value> {
    let range = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [config.service_range.to_string()]},
    });
    let service = config.advertise.map(|address| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": config.service_range.nth(1).to_string(),
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": address.port()}],
            },
        })
    });
    let names = config.advertise.map(|_| cluster_dns(config));
    [range].into_iter().chain(service).chain(names).collect()
}

/// The Service by which pods ask for names: node agents answer under its address, and the controllers keep its
/// endpoints. Nobody else gets the address.
fn cluster_dns(config: &Config) -> Value {
    let port = |name, protocol| json!({"name": name, "port": 53, "protocol": protocol, "targetPort": 53});
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": DNS,
            "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": config.service_range.nth(10).to_string(),
            "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
        },
    })
}

/// Keeps the Service's endpoints until the server is gone.
pub async fn keep(server: Weak<ApiServer>, own: SocketAddr) {
    let mut seen = Seen::default();
    loop {
        let Some(server) = server.upgrade() else { return };
        let draining = *server.draining.borrow();
        let keeper = Keeper { server, own };
        if let Err(why) = keeper.look(&mut seen, draining).await {
            tracing::warn!(%why, "keep the endpoints of default/kubernetes");
        }
        drop(keeper);
        if draining {
            return;
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// When each lease was last seen to change, and what it said.
#[derive(Debug, Default)]
struct Seen(BTreeMap<String, (String, Instant)>);

impl Seen {
    /// The addresses of the servers that live.
    fn alive(&mut self, leases: &[Value], now: Instant) -> Vec<SocketAddr> {
        let mut alive = Vec::new();
        for lease in leases {
            let renewed = lease["spec"]["renewTime"].as_str().unwrap_or_default().to_owned();
            let known = self.0.entry(api::object::name(lease).to_owned()).or_insert((renewed.clone(), now));
            if known.0 != renewed {
                *known = (renewed, now);
            }
            let holder: Option<SocketAddr> =
                lease["spec"]["holderIdentity"].as_str().and_then(|text| text.parse().ok());
            if now.duration_since(known.1) < MISSED {
                alive.extend(holder);
            }
        }
        alive.sort_unstable();
        alive.dedup();
        alive
    }
}

struct Keeper {
    server: Arc<ApiServer>,
    own: SocketAddr,
}

impl Keeper {
    async fn look(&self, seen: &mut Seen, leaving: bool) -> Result<(), String> {
        if !leaving {
            self.put(&format!("{LEASES}/{}", lease_name(self.own)), &lease(self.own, Timestamp::now()))
                .await?;
        }
        let list = self.get(&format!("{LEASES}?labelSelector={IDENTITY}%3Dkube-apiserver")).await?;
        let leases = list["items"].as_array().cloned().unwrap_or_default();
        let mut alive = seen.alive(&leases, Instant::now());
        alive.retain(|address| !leaving || *address != self.own);
        self.bring(SLICE, slice(&alive)).await?;
        self.bring(ENDPOINTS, endpoints(&alive)).await
    }

    /// Writes an object unless it says the same already.
    async fn bring(&self, path: &str, wanted: Value) -> Result<(), String> {
        let present = self.get(path).await?;
        let parts = ["addressType", "endpoints", "ports", "subsets"];
        let differs = parts.iter().any(|part| present[*part] != wanted[*part]);
        if differs { self.put(path, &wanted).await } else { Ok(()) }
    }

    /// The object; null if there is none.
    async fn get(&self, path: &str) -> Result<Value, String> {
        match self.send(Method::GET, path, None).await? {
            (StatusCode::OK, value) => Ok(value),
            (StatusCode::NOT_FOUND, _) => Ok(Value::Null),
            (code, value) => Err(format!("GET {path}: {code}: {}", value["message"])),
        }
    }

    /// Writes an object whatever is there.
    async fn put(&self, path: &str, object: &Value) -> Result<(), String> {
        let (code, answer) = match self.send(Method::PUT, path, Some(object)).await? {
            (StatusCode::NOT_FOUND, _) => {
                let collection = path.rsplit_once('/').map_or(path, |(collection, _)| collection);
                self.send(Method::POST, collection, Some(object)).await?
            }
            answer => answer,
        };
        // Another server made it in between; the next look sees what it says.
        let done = code.is_success() || code == StatusCode::CONFLICT;
        if done { Ok(()) } else { Err(format!("write {path}: {code}: {}", answer["message"])) }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), String> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).body(Body::from(body));
        let identity = Identity::new("system:apiserver", &[MASTERS_GROUP]);
        let request = request.map_err(|error| error.to_string())?;
        let response = self.server.handle(request, Peer::InProcess(identity)).await;
        let code = response.status();
        let bytes = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Ok((code, serde_json::from_slice(&bytes).unwrap_or_default()))
    }
}

fn lease_name(own: SocketAddr) -> String {
    format!("apiserver-{}", own.to_string().replace(['.', ':', '[', ']'], "-").trim_matches('-'))
}

fn lease(own: SocketAddr, now: Timestamp) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": lease_name(own), "namespace": "kube-system", "labels": {IDENTITY: "kube-apiserver"}},
        "spec": {
            "holderIdentity": own.to_string(),
            "leaseDurationSeconds": MISSED.as_secs(),
            "renewTime": api::time::rfc3339_micros(now),
        },
    })
}

/// The port that all servers listen on; they may differ on one machine, where each has a port of its own and
/// only those with the first one's can be named.
fn port_of(alive: &[SocketAddr]) -> Option<u16> {
    alive.first().map(SocketAddr::port)
}

fn addresses(alive: &[SocketAddr]) -> Vec<String> {
    let port = port_of(alive);
    alive
        .iter()
        .filter(|address| Some(address.port()) == port)
        .map(|address| address.ip().to_string())
        .collect()
}

fn slice(alive: &[SocketAddr]) -> Value {
    let ready = |address: String| json!({"addresses": [address], "conditions": {"ready": true}});
    let ipv6 = alive.first().is_some_and(SocketAddr::is_ipv6);
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": if ipv6 { "IPv6" } else { "IPv4" },
        "endpoints": addresses(alive).into_iter().map(ready).collect::<Vec<_>>(),
        "ports": [{"name": "https", "port": port_of(alive), "protocol": "TCP"}],
    })
}

fn endpoints(alive: &[SocketAddr]) -> Value {
    let ready: Vec<Value> = addresses(alive).into_iter().map(|address| json!({"ip": address})).collect();
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
    });
    if !ready.is_empty() {
        let ports = json!([{"name": "https", "port": port_of(alive), "protocol": "TCP"}]);
        object["subsets"] = json!([{"addresses": ready, "ports": ports}]);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_renews_lives() {
        let lease = |name: &str, holder: &str, renewed: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": holder, "renewTime": renewed}});
        let (mut seen, start) = (Seen::default(), Instant::now());
        let first =
            [lease("b", "10.0.0.2:6443", "1"), lease("a", "10.0.0.1:6443", "1"), lease("x", "nonsense", "1")];
        let both: Vec<SocketAddr> =
            ["10.0.0.1:6443", "10.0.0.2:6443"].map(|text| text.parse().expect("one")).into();
        assert_eq!(seen.alive(&first, start), both);
        let later = [lease("b", "10.0.0.2:6443", "1"), lease("a", "10.0.0.1:6443", "2")];
        assert_eq!(seen.alive(&later, start + MISSED / 2), both);
        assert_eq!(seen.alive(&later, start + MISSED), both[..1]);
    }

    #[test]
    fn one_port_is_named() {
        let alive: Vec<SocketAddr> =
            ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:2"].map(|text| text.parse().expect("one")).into();
        assert_eq!(addresses(&alive), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(slice(&alive)["ports"][0]["port"], 1);
        assert!(endpoints(&[]).get("subsets").is_none());
    }
}
