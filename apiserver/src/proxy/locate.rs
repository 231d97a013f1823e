//! Where a request for a `proxy` subresource goes: read from the name in its path and from objects.
//!
//! A name is `[SCHEME:]NAME[:PORT]`. Of a Service the ready endpoints are taken that are pods of its namespace
//! with the address that they say, so that nobody is sent elsewhere by an endpoint that somebody wrote.

use std::net::{IpAddr, SocketAddr};

use api::status::Status;
use rand::seq::IndexedRandom;
use serde_json::Value;

use super::Proxy;
use crate::error::{Failure, Outcome};
use crate::reach::services::Endpoint;
use crate::reach::{Target, Tls};
use crate::storage::decode;
use crate::storage::key::{Key, of_core};
use crate::verbs::Call;

/// A name as it stands in a path.
#[derive(Debug, PartialEq, Eq)]
struct Id<'a> {
    tls: bool,
    name: &'a str,
    /// A number, or for Services a port's name; empty if it isn't said.
    port: &'a str,
}

impl<'a> Id<'a> {
    fn parse(kind: &str, text: &'a str) -> Result<Self, Status> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => ("invalid", "", ""),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            return Err(Status::bad_request(format!("invalid {} request {text:?}", kind.to_lowercase())));
        }
        Ok(Self { tls: scheme == "https", name, port })
    }

    /// The port's number, or the scheme's own.
    fn number(&self, declared: Option<u16>) -> Result<u16, Status> {
        match self.port {
            "" => Ok(declared.unwrap_or(if self.tls { 443 } else { 80 })),
            port => port.parse().map_err(|_| Status::bad_request(format!("invalid port {port:?}"))),
        }
    }
}

/// Whom to ask.
pub(super) async fn target(call: &Call<'_>) -> Outcome<Target> {
    let id = Id::parse(&call.resource.kind, call.name())?;
    let proxy = &call.server.proxy;
    let address = match call.resource.plural.as_str() {
        "pods" => pod(&object(call, id.name).await?, &id)?,
        "services" => service(call, &id).await?,
        _ => {
            let (kubelet, target) = call.server.node_proxy.kubelet(&object(call, id.name).await?)?;
            match id.port {
                "" => return Ok(target),
                port if port == kubelet.port().to_string() => return Ok(target),
                _ => SocketAddr::new(kubelet.ip(), id.number(None)?),
            }
        }
    };
    if !proxy.may_reach(address.ip()) {
        return Err(Status::bad_request("address not allowed").into());
    }
    let tls = id.tls.then(|| Tls { config: proxy.tls.clone(), name: address.ip().to_string() });
    Ok(Target { address: address.to_string(), tls })
}

/// The object of the resource that is asked for, with all that this server wrote.
async fn object(call: &Call<'_>, name: &str) -> Outcome<Value> {
    call.storage().catch_up(&Key::Resource(call.resource).to_bytes()).await?;
    let stored = call.storage().cache.get(&Key::Object(call.resource, call.namespace(), name).to_bytes());
    decode(&*stored.ok_or_else(|| call.not_found(name))?)
}

/// The address of a pod, at the port that is asked for or the first that it declares.
fn pod(pod: &Value, id: &Id<'_>) -> Result<SocketAddr, Status> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let declared =
        containers.into_iter().find_map(|container| container["ports"][0]["containerPort"].as_u64());
    let address = pod["status"]["podIP"].as_str().and_then(|text| text.parse().ok());
    let address = address.ok_or_else(|| Status::bad_request("address not allowed"))?;
    Ok(SocketAddr::new(address, id.number(declared.and_then(|port| u16::try_from(port).ok()))?))
}

async fn service(call: &Call<'_>, id: &Id<'_>) -> Outcome<SocketAddr> {
    let found = call.server.services.find(call.namespace(), id.name).await;
    let service = found.map_err(|failure| match failure.code() {
        404 => Failure::from(call.not_found(id.name)),
        _ => failure,
    })?;
    let port = match id.port.parse() {
        Ok(number) => service.port_name(number)?,
        Err(_) => id.port,
    };
    let ready = service.ready(port);
    let own: Vec<&Endpoint<'_>> = ready.iter().filter(|endpoint| is_own_pod(call, endpoint)).collect();
    Ok(own.choose(&mut rand::rng()).ok_or_else(|| service.nobody())?.address)
}

/// Whether an endpoint is what it says: a pod of the namespace that has this address.
fn is_own_pod(call: &Call<'_>, endpoint: &Endpoint<'_>) -> bool {
    let (target, address) = (endpoint.target, endpoint.address.ip());
    if target["namespace"].as_str() != Some(call.namespace()) {
        return false;
    }
    let key = of_core("pods", call.namespace(), target["name"].as_str().unwrap_or_default());
    let pod = call.storage().cache.get(&key).and_then(|stored| stored.to_value().ok()).unwrap_or_default();
    let mut addresses = pod["status"]["podIPs"].as_array().into_iter().flatten();
    addresses.any(|given| given["ip"].as_str().and_then(|text| text.parse().ok()) == Some(address))
}

impl Proxy {
    /// Neither this machine itself, but where all is on one, nor what isn't one machine's address.
    fn may_reach(&self, address: IpAddr) -> bool {
        let local = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        !local
            && !address.is_unspecified()
            && !address.is_multicast()
            && (self.loopback || !address.to_canonical().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_have_a_scheme_and_a_port() {
        let id = |text| Id::parse("Pod", text).map(|id| (id.tls, id.name, id.port)).map_err(|s| s.message);
        assert_eq!(id("web"), Ok((false, "web", "")));
        assert_eq!(id("web:80"), Ok((false, "web", "80")));
        assert_eq!(id("https:web:"), Ok((true, "web", "")));
        for wrong in ["ftp:web:80", "a:b:c:d", ":80", ""] {
            assert_eq!(id(wrong), Err(format!("invalid pod request {wrong:?}")));
        }
    }

    #[test]
    fn a_pod_is_reached_at_its_first_port() {
        let given = json!({
            "spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 8080}]}]},
            "status": {"podIP": "10.0.0.7"},
        });
        let at = |text| {
            let found = Id::parse("Pod", text).and_then(|id| pod(&given, &id));
            found.map_or_else(|status| status.message, |address| address.to_string())
        };
        assert_eq!(at("web"), "10.0.0.7:8080");
        assert_eq!(at("web:9090"), "10.0.0.7:9090");
        assert_eq!(at("web:http"), "invalid port \"http\"");
        let id = Id::parse("Pod", "https:web:").expect("a name");
        assert_eq!(
            pod(&json!({"status": {"podIP": "fd00::7"}}), &id).expect("there").to_string(),
            "[fd00::7]:443"
        );
        assert_eq!(pod(&json!({}), &id).expect_err("nowhere").message, "address not allowed");
    }

    #[test]
    fn nobody_is_sent_to_the_machine_itself() {
        let proxy = |loopback| Proxy::new(loopback).expect("TLS");
        let reaches = |loopback, text: &str| proxy(loopback).may_reach(text.parse().expect("an address"));
        for never in ["0.0.0.0", "169.254.169.254", "224.0.0.1", "fe80::1", "::"] {
            assert!(!reaches(true, never), "{never}");
        }
        for own in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(!reaches(false, own) && reaches(true, own), "{own}");
        }
        assert!(reaches(false, "10.0.0.1") && reaches(false, "fd00::1"));
    }
}
