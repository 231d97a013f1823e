//! Reaches a webhook: at its URL, or behind its Service, over TLS that its configuration vouches for.
//!
//! A Service is dialled at one of its ready endpoints and verified by the name `NAME.NAMESPACE.svc`, as
//! upstream does. Without a `caBundle` nobody vouches for the webhook, and it isn't called: this server
//! trusts no authority of the machine's.

use std::net::{IpAddr, SocketAddr};

use http::Request;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::super::lookup;
use crate::verbs::Call;
use crate::webhook;

/// Largest answer that is read, in bytes.
const ANSWER: usize = 3 << 20;

/// Where a webhook is.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// What is dialled.
    address: String,
    /// What its certificate must name.
    name: String,
    /// The path, with the query.
    path: String,
}

/// Posts a review; gives the body of the answer.
pub(super) async fn post(
    call: &Call<'_>,
    config: &Value,
    body: String,
    seconds: u64,
) -> Result<Vec<u8>, String> {
    let target = target(call, config).await?;
    let connector = connector(config)?;
    let at = &target.address;
    let shown = format!("Post \"https://{}{}?timeout={seconds}s\"", target.name, target.path);
    let name = ServerName::try_from(target.name.clone()).map_err(|error| format!("{shown}: {error}"))?;
    let tcp = TcpStream::connect(at).await.map_err(|error| format!("{shown}: dial tcp {at}: {error}"))?;
    let tls = connector.connect(name, tcp).await.map_err(|error| format!("{shown}: tls: {error}"))?;
    let speak = |error: hyper::Error| format!("{shown}: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(speak)?;
    let mut task = JoinSet::new();
    task.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to a webhook broke");
        }
    });
    let request = Request::post(format!("{}?timeout={seconds}s", target.path))
        .header(HOST, &target.name)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::<bytes::Bytes>::from(body))
        .map_err(|error| format!("{shown}: {error}"))?;
    let answer = sender.send_request(request).await.map_err(speak)?;
    let code = answer.status();
    let bytes = Limited::new(answer.into_body(), ANSWER).collect().await;
    let bytes = bytes.map_err(|error| format!("{shown}: read the answer: {error}"))?.to_bytes();
    match code.is_success() {
        true => Ok(bytes.to_vec()),
        false => Err(format!("{shown}: the server answered {code}")),
    }
}

fn connector(config: &Value) -> Result<TlsConnector, String> {
    let tls = webhook::trusting(config).map_err(|error| format!("clientConfig.caBundle: {error}"))?;
    let nobody = "clientConfig.caBundle is required: no certificate vouches for the webhook";
    tls.map(TlsConnector::from).ok_or_else(|| nobody.to_owned())
}

async fn target(call: &Call<'_>, config: &Value) -> Result<Target, String> {
    match config["url"].as_str() {
        Some(url) => of_url(url),
        None => of_service(call, &config["service"]).await,
    }
}

fn of_url(url: &str) -> Result<Target, String> {
    let uri: http::Uri = url.parse().map_err(|error| format!("clientConfig.url: {error}"))?;
    let name = uri.host().ok_or("clientConfig.url: no host")?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let address = match name.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{name}:{port}"),
    };
    Ok(Target { address, name, path: uri.path().to_owned() })
}

async fn of_service(call: &Call<'_>, service: &Value) -> Result<Target, String> {
    let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    let say = |failure: crate::error::Failure| failure.into_status().message;
    let found = lookup::one(call, "", "services", &namespace, &name).await.map_err(say)?;
    let found = found.ok_or_else(|| format!("service {name:?} not found"))?;
    let slices = lookup::list(call, "discovery.k8s.io", "endpointslices", &namespace).await.map_err(say)?;
    let wanted = service["port"].as_u64().unwrap_or(443);
    let ports = found["spec"]["ports"].as_array().into_iter().flatten();
    let port = ports.into_iter().find(|port| port["port"].as_u64() == Some(wanted));
    let port = port.ok_or_else(|| format!("no service port {wanted} found for service {name:?}"))?;
    let endpoint = endpoint(&slices, &name, port["name"].as_str().unwrap_or_default());
    let address = endpoint.ok_or_else(|| format!("no endpoints available for service {name:?}"))?;
    let path = text("path");
    let path = if path.is_empty() { "/".to_owned() } else { path };
    Ok(Target { address: address.to_string(), name: format!("{name}.{namespace}.svc"), path })
}

/// The first ready endpoint of a Service's port.
fn endpoint(slices: &[Value], service: &str, port: &str) -> Option<SocketAddr> {
    let label = |slice: &&Value| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service;
    slices.iter().filter(label).find_map(|slice| {
        let ports = slice["ports"].as_array()?;
        let number = ports.iter().find(|given| given["name"].as_str().unwrap_or_default() == port)?;
        let number = u16::try_from(number["port"].as_u64()?).ok()?;
        let endpoints = slice["endpoints"].as_array()?.iter();
        let mut ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
        let address: IpAddr = ready.next()?["addresses"][0].as_str()?.parse().ok()?;
        Some(SocketAddr::new(address, number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn urls() {
        let target = |url: &str| of_url(url).map(|target| (target.address, target.name, target.path));
        let is = |address: &str, name: &str, path: &str| {
            Ok((address.to_owned(), name.to_owned(), path.to_owned()))
        };
        assert_eq!(target("https://a.example.com/b"), is("a.example.com:443", "a.example.com", "/b"));
        assert_eq!(target("https://127.0.0.1:8443"), is("127.0.0.1:8443", "127.0.0.1", "/"));
        assert_eq!(target("https://[::1]:8443/x"), is("[::1]:8443", "::1", "/x"));
        assert!(target("https://").is_err());
    }

    #[test]
    fn a_ready_endpoint_is_dialled() {
        let slice = |ready: bool, address: &str| {
            json!({
                "metadata": {"labels": {"kubernetes.io/service-name": "hook"}},
                "ports": [{"name": "https", "port": 8443}],
                "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
            })
        };
        let slices = [slice(false, "10.0.0.1"), slice(true, "10.0.0.2")];
        assert_eq!(endpoint(&slices, "hook", "https"), "10.0.0.2:8443".parse().ok());
        assert_eq!(endpoint(&slices, "hook", "http"), None);
        assert_eq!(endpoint(&slices, "other", "https"), None);
    }
}
