//! Who is behind a Service: its ready endpoints.
//!
//! An endpoint is dialled, not the Service's own address: that one works only where an agent routes, and a member
//! may run where none does. So it is with upstream's `--enable-aggregator-routing`; only a Service that is
//! another's name has nothing else than that name.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock, Weak};

use api::status::Status;
use rand::seq::IndexedRandom;
use serde_json::Value;

use crate::error::{Failure, Outcome};
use crate::registry::Registry;
use crate::registry::resource::Resource;
use crate::storage::key::Key;
use crate::storage::{Storage, decode};

/// The label by which a slice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Finds Services. Clones look in the same place.
#[derive(Clone, Debug)]
pub struct Services(Arc<Inner>);

struct Inner {
    registry: Arc<Registry>,
    /// Given once the cache is filled, by what is told of it.
    storage: OnceLock<Weak<Storage>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Services")
    }
}

/// A Service as it is now.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    object: Value,
    slices: Vec<Value>,
}

/// A ready endpoint of a Service's port.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Endpoint<'a> {
    /// Where it listens.
    pub address: SocketAddr,
    /// `targetRef`: what it is, mostly a pod.
    pub target: &'a Value,
}

impl Services {
    /// Knows nobody until it is told where to look.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self(Arc::new(Inner { registry, storage: OnceLock::new() }))
    }

    /// Looks here from now on.
    pub fn look_in(&self, storage: &Arc<Storage>) {
        let _ = self.0.storage.set(Arc::downgrade(storage)); // there is one storage to a server
    }

    /// A Service and its slices, with all that this server wrote.
    ///
    /// # Errors
    /// 404 if there is none of the name.
    pub async fn find(&self, namespace: &str, name: &str) -> Outcome<Service> {
        let unknown = || Failure::from(Status::not_found("service", "", name));
        let storage = self.0.storage.get().and_then(Weak::upgrade).ok_or_else(unknown)?;
        let services = self.row("", "services").ok_or_else(unknown)?;
        storage.catch_up(&Key::Resource(&services).to_bytes()).await?;
        let stored = storage.cache.get(&Key::Object(&services, namespace, name).to_bytes());
        let object = decode(&*stored.ok_or_else(unknown)?)?;
        Ok(Service { name: name.to_owned(), object, slices: self.slices(&storage, namespace, name).await? })
    }

    async fn slices(&self, storage: &Storage, namespace: &str, service: &str) -> Outcome<Vec<Value>> {
        let Some(row) = self.row("discovery.k8s.io", "endpointslices") else { return Ok(Vec::new()) };
        let prefix = Key::Resource(&row).to_bytes();
        storage.catch_up(&prefix).await?;
        let all = storage.cache.snapshot(&prefix, &Key::Namespace(&row, namespace).range()).objects;
        let own = all.iter().filter(|stored| stored.label(SERVICE_NAME) == Some(service));
        own.map(|stored| decode(stored)).collect()
    }

    fn row(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.0.registry.find(group, "v1", plural)
    }

    /// What is dialled for a port of a Service: one of its ready endpoints, any of them.
    ///
    /// # Errors
    /// 404 without the Service, 503 without its port or a ready endpoint.
    pub async fn address(&self, namespace: &str, name: &str, port: u16) -> Result<String, Status> {
        let service = self.find(namespace, name).await.map_err(Failure::into_status)?;
        let addresses = service.addresses(port)?;
        Ok(addresses.choose(&mut rand::rng()).expect("there is one at least").clone())
    }
}

impl Service {
    /// The object.
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// Whether no slice tells of its endpoints.
    pub fn has_no_slices(&self) -> bool {
        self.slices.is_empty()
    }

    /// The name of the port with this number.
    ///
    /// # Errors
    /// 503 if there is none.
    pub fn port_name(&self, number: u16) -> Result<&str, Status> {
        let mut ports = self.object["spec"]["ports"].as_array().into_iter().flatten();
        let port = ports.find(|port| port["port"].as_u64() == Some(number.into()));
        let missing =
            || Status::unavailable(format!("no service port {number} found for service {:?}", self.name));
        Ok(port.ok_or_else(missing)?["name"].as_str().unwrap_or_default())
    }

    /// Where a port is reached; never empty.
    ///
    /// # Errors
    /// 503 without the port or a ready endpoint.
    pub fn addresses(&self, port: u16) -> Result<Vec<String>, Status> {
        if self.object["spec"]["type"] == "ExternalName" {
            let host = self.object["spec"]["externalName"].as_str().unwrap_or_default();
            return Ok(vec![format!("{host}:{port}")]);
        }
        let ready = self.ready(self.port_name(port)?);
        if ready.is_empty() {
            Err(self.nobody())
        } else {
            Ok(ready.iter().map(|e| e.address.to_string()).collect())
        }
    }

    /// The ready endpoints of the port with this name.
    pub fn ready(&self, port: &str) -> Vec<Endpoint<'_>> {
        self.slices.iter().flat_map(|slice| ready(slice, port)).collect()
    }

    /// The refusal if there is no endpoint.
    pub fn nobody(&self) -> Status {
        Status::unavailable(format!("no endpoints available for service {:?}", self.name))
    }
}

fn ready<'a>(slice: &'a Value, port: &str) -> Vec<Endpoint<'a>> {
    let mut ports = slice["ports"].as_array().into_iter().flatten();
    let number = ports.find(|given| given["name"].as_str().unwrap_or_default() == port);
    let Some(number) = number.and_then(|port| u16::try_from(port["port"].as_u64()?).ok()) else {
        return Vec::new();
    };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let of = |endpoint: &'a Value| {
        let address: IpAddr = endpoint["addresses"][0].as_str()?.parse().ok()?;
        Some(Endpoint { address: SocketAddr::new(address, number), target: &endpoint["targetRef"] })
    };
    ready.filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(spec: Value, ready: &[bool]) -> Service {
        let endpoints = ready.iter().enumerate().map(|(number, ready)| {
            json!({"addresses": [format!("10.0.0.{number}")], "conditions": {"ready": ready}})
        });
        let endpoints: Vec<Value> = endpoints.collect();
        let slice = json!({"ports": [{"name": "https", "port": 8443}], "endpoints": endpoints});
        Service { name: "hook".to_owned(), object: json!({"spec": spec}), slices: vec![slice] }
    }

    fn told(service: &Service, port: u16) -> String {
        match service.addresses(port) {
            Ok(addresses) => addresses.join(" "),
            Err(status) => format!("{} {}", status.code(), status.message),
        }
    }

    #[test]
    fn ready_endpoints_of_the_port_are_dialled() {
        let ports = json!({"ports": [{"name": "https", "port": 443}, {"name": "other", "port": 80}]});
        let some = service(ports.clone(), &[false, true, true]);
        assert_eq!(told(&some, 443), "10.0.0.1:8443 10.0.0.2:8443");
        assert_eq!(told(&some, 80), r#"503 no endpoints available for service "hook""#);
        assert_eq!(told(&some, 81), r#"503 no service port 81 found for service "hook""#);
        assert_eq!(told(&service(ports, &[false]), 443), r#"503 no endpoints available for service "hook""#);
        let alias = json!({"type": "ExternalName", "externalName": "hook.example.com"});
        assert_eq!(told(&service(alias, &[]), 443), "hook.example.com:443");
    }
}
