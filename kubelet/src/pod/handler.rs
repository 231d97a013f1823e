//! The actions of probes and hooks as plain values, with ports and addresses resolved.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pod::ContainerName;
use crate::pod::effect::{Hook, ProbeKind};
use crate::pod::roles::spec_of;
use crate::pod::time::seconds;

/// Something to be done to a container from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run a command; success is exit code 0.
    Exec(Vec<String>),
    /// Fetch a page; success is a status from 200 to 399.
    Http(HttpGet),
    /// Open a connection.
    Tcp {
        /// A name or an address.
        host: String,
        /// A TCP port.
        port: u16,
    },
    /// Ask for the health of a service; success is `SERVING`.
    Grpc {
        /// An address.
        host: String,
        /// A TCP port.
        port: u16,
        /// Empty: the server as a whole.
        service: String,
    },
    /// Wait.
    Sleep(Duration),
}

/// A page to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGet {
    /// TLS, without checking the certificate.
    pub tls: bool,
    /// A name or an address.
    pub host: String,
    /// A TCP port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Added to the request.
    pub headers: Vec<(String, String)>,
}

/// What a probe does and how long it may take.
pub fn probe(
    pod: &Pod,
    name: &ContainerName,
    kind: ProbeKind,
    pod_ip: &str,
) -> Result<(Action, Duration), String> {
    let container = spec_of(pod, name).ok_or("the container is gone")?;
    let probe = match kind {
        ProbeKind::Startup => &container.startup_probe,
        ProbeKind::Liveness => &container.liveness_probe,
        ProbeKind::Readiness => &container.readiness_probe,
    };
    let probe = probe.as_ref().ok_or("the probe is gone")?;
    let timeout = seconds(i64::from(probe.timeout_seconds.unwrap_or(1).max(1)));
    Ok((probe_action(&container, probe, pod_ip)?, timeout))
}

fn probe_action(container: &Container, probe: &Probe, pod_ip: &str) -> Result<Action, String> {
    let handler = LifecycleHandler {
        exec: probe.exec.clone(),
        http_get: probe.http_get.clone(),
        tcp_socket: probe.tcp_socket.clone(),
        sleep: None,
    };
    if let Some(grpc) = &probe.grpc {
        let service = grpc.service.clone().unwrap_or_default();
        let port = port(container, &IntOrString::Int(grpc.port))?;
        return Ok(Action::Grpc { host: pod_ip.to_owned(), port, service });
    }
    action(container, &handler, pod_ip)
}

/// What a lifecycle hook does.
pub fn hook(pod: &Pod, name: &ContainerName, hook: Hook, pod_ip: &str) -> Result<Action, String> {
    let container = spec_of(pod, name).ok_or("the container is gone")?;
    let lifecycle = container.lifecycle.as_ref().ok_or("the hook is gone")?;
    let handler = match hook {
        Hook::PostStart => &lifecycle.post_start,
        Hook::PreStop => &lifecycle.pre_stop,
    };
    action(&container, handler.as_ref().ok_or("the hook is gone")?, pod_ip)
}

fn action(container: &Container, handler: &LifecycleHandler, pod_ip: &str) -> Result<Action, String> {
    match handler {
        LifecycleHandler { exec: Some(exec), .. } => {
            Ok(Action::Exec(exec.command.clone().unwrap_or_default()))
        }
        LifecycleHandler { http_get: Some(get), .. } => http(container, get, pod_ip).map(Action::Http),
        LifecycleHandler { tcp_socket: Some(tcp), .. } => {
            Ok(Action::Tcp { host: host(tcp.host.as_deref(), pod_ip), port: port(container, &tcp.port)? })
        }
        LifecycleHandler { sleep: Some(sleep), .. } => Ok(Action::Sleep(seconds(sleep.seconds))),
        _ => Err("missing handler".to_owned()),
    }
}

fn host(wanted: Option<&str>, pod_ip: &str) -> String {
    wanted.filter(|host| !host.is_empty()).unwrap_or(pod_ip).to_owned()
}

fn http(container: &Container, get: &HTTPGetAction, pod_ip: &str) -> Result<HttpGet, String> {
    let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let headers = get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone()));
    Ok(HttpGet {
        tls: get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        host: host(get.host.as_deref(), pod_ip),
        port: port(container, &get.port)?,
        path: format!("{slash}{path}"),
        headers: headers.collect(),
    })
}

/// A number, or the name of one of the container's ports.
fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => named_port(container, name).or_else(|| name.parse().ok()),
    };
    let valid = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    valid.ok_or_else(|| match port {
        IntOrString::Int(number) => format!("invalid port number: {number}"),
        IntOrString::String(name) => format!("couldn't find port: {name:?}"),
    })
}

fn named_port(container: &Container, name: &str) -> Option<i32> {
    let mut ports = container.ports.iter().flatten();
    ports.find(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port)
}
