//! One HTTP/1.1 connection over TLS: requests one after another, or one watch.
//!
//! A load of N connections is N of these in N tasks, as N independent clients would be.

use crate::kubeconfig::Target;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::VecDeque;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// An open connection. Dropping it closes it.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    /// Connects and shakes hands.
    pub async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(&target.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(target.tls.clone());
        let stream = connector.connect(target.name.clone(), stream).await.context("TLS handshake")?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("HTTP handshake")?;
        let task = tokio::spawn(async move {
            // The error reaches the request that is under way.
            let _ = connection.await;
        });
        Ok(Connection { sender, host: target.address.clone(), task })
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let response = self.start(method, path, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await.context("read the answer")?.to_bytes();
        Ok((status, body))
    }

    /// Sends a request that must succeed; its answer is JSON.
    pub async fn json(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let (status, answer) = self.send(method.clone(), path, bytes).await?;
        if !status.is_success() {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&answer));
        }
        serde_json::from_slice(&answer).with_context(|| format!("{method} {path}: the answer isn't JSON"))
    }

    /// Turns the connection into a watch.
    pub async fn watch(mut self, path: &str) -> Result<Watch> {
        let response = self.start(Method::GET, path, Bytes::new()).await?;
        if !response.status().is_success() {
            bail!("watch {path}: {}", response.status());
        }
        Ok(Watch {
            body: response.into_body(),
            partial: Vec::new(),
            events: VecDeque::new(),
            _connection: self,
        })
    }

    async fn start(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header("host", &self.host)
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::new(body))?;
        self.sender.ready().await.context("the connection is closed")?;
        self.sender.send_request(request).await.with_context(|| format!("{method} {path}"))
    }
}

/// A stream of watch events.
pub struct Watch {
    body: Incoming,
    /// Bytes after the last complete line.
    partial: Vec<u8>,
    events: VecDeque<Value>,
    _connection: Connection,
}

impl Watch {
    /// The next event, `{"type": …, "object": …}`.
    pub async fn next(&mut self) -> Result<Value> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let frame = self.body.frame().await.context("the watch ended")?.context("read the watch")?;
            if let Ok(data) = frame.into_data() {
                self.take_lines(&data)?;
            }
        }
    }

    fn take_lines(&mut self, data: &[u8]) -> Result<()> {
        self.partial.extend_from_slice(data);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.events.push_back(serde_json::from_slice(&line).context("an event of the watch")?);
        }
        Ok(())
    }
}
