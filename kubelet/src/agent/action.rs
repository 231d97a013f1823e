//! Performs the actions of probes and hooks: commands, pages, connections.

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls_pki_types::ServerName;
use streaming::anyone::Anyone;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::agent::grpc;
use crate::pod::ContainerId;
use crate::pod::handler::{Action, HttpGet};
use crate::runtime::{EXEC_OUTPUT_LIMIT, Runtime, RuntimeError};

/// Performs the action; the error is what the pod's event says.
pub async fn perform(
    runtime: &dyn Runtime,
    id: &ContainerId,
    action: &Action,
    timeout: Duration,
) -> Result<(), String> {
    match action {
        Action::Exec(command) => exec(runtime, id, command, timeout).await,
        Action::Http(get) => {
            let late = || format!("Get {:?}: context deadline exceeded", url(get));
            tokio::time::timeout(timeout, fetch(get)).await.map_err(|_| late())?
        }
        Action::Tcp { host, port } => {
            let late = || format!("dial tcp {host}:{port}: i/o timeout");
            tokio::time::timeout(timeout, dial(host, *port)).await.map_err(|_| late())?.map(drop)
        }
        Action::Grpc { host, port, service } => grpc::check(host, *port, service, timeout).await,
        Action::Sleep(time) => {
            tokio::time::sleep((*time).min(timeout)).await;
            Ok(())
        }
    }
}

async fn exec(
    runtime: &dyn Runtime,
    id: &ContainerId,
    command: &[String],
    timeout: Duration,
) -> Result<(), String> {
    match runtime.exec_sync(id, command, timeout).await {
        Ok(done) if done.code == 0 => Ok(()),
        Ok(done) => Err(String::from_utf8_lossy(&done.output).trim_end().to_owned()),
        Err(RuntimeError::ExecTimeout(_)) => {
            let program = command.join(" ");
            Err(format!("command timed out: {program:?} timed out after {}s", timeout.as_secs()))
        }
        Err(error) => Err(error.chain()),
    }
}

fn url(get: &HttpGet) -> String {
    let scheme = if get.tls { "https" } else { "http" };
    format!("{scheme}://{}:{}{}", get.host, get.port, get.path)
}

/// Opens a connection; the error is as Go has it.
pub async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("dial tcp {host}:{port}: {}", plain(&error)))
}

/// The system's own words, without a number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connect: connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}

async fn fetch(get: &HttpGet) -> Result<(), String> {
    let about = |message: String| format!("Get {:?}: {message}", url(get));
    let stream = dial(&get.host, get.port).await.map_err(about)?;
    let status = if get.tls {
        let name = ServerName::try_from(get.host.clone()).map_err(|error| about(error.to_string()))?;
        let tls = UNVERIFIED.connect(name, stream).await.map_err(|error| about(error.to_string()))?;
        exchange(get, tls).await.map_err(about)?
    } else {
        exchange(get, stream).await.map_err(about)?
    };
    let good = (200..400).contains(&status);
    if good { Ok(()) } else { Err(format!("HTTP probe failed with statuscode: {status}")) }
}

async fn exchange(
    get: &HttpGet,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<u16, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request = request(get).map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        // Read so that a server isn't cut off in the middle of its answer; what it says doesn't matter.
        let _ = Limited::new(response.into_body(), EXEC_OUTPUT_LIMIT).collect().await;
        Ok(status)
    };
    // The connection is driven beside the exchange and dropped with it: no task is left behind.
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

fn request(get: &HttpGet) -> Result<http::Request<Empty<Bytes>>, http::Error> {
    let mut request = http::Request::get(&get.path);
    let has = |name: &str| get.headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name));
    if !has("host") {
        request = request.header("Host", format!("{}:{}", get.host, get.port));
    }
    if !has("user-agent") {
        request = request.header("User-Agent", "kube-probe/1.37");
    }
    if !has("accept") {
        request = request.header("Accept", "*/*");
    }
    let request = request.header("Connection", "close");
    get.headers.iter().fold(request, |request, (name, value)| request.header(name, value)).body(Empty::new())
}

/// A probe asks whether the container answers, not who it is (upstream skips the check as well).
pub(crate) static UNVERIFIED: LazyLock<TlsConnector> = LazyLock::new(|| {
    let provider = Arc::new(ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone::new(provider)))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
});

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::runtime::fake::{FakeRuntime, FakeScript};
    use crate::server::testing;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn act(action: Action, timeout: Duration) -> Result<(), String> {
        let runtime = FakeRuntime::new(FakeScript::default());
        perform(&runtime, &ContainerId("none".to_owned()), &action, timeout).await
    }

    fn get(port: u16) -> Action {
        page(port, false)
    }

    fn page(port: u16, tls: bool) -> Action {
        let headers = vec![("X-Probe".to_owned(), "yes".to_owned())];
        Action::Http(HttpGet { tls, host: "127.0.0.1".to_owned(), port, path: "/ok?a=b".to_owned(), headers })
    }

    /// A server that answers one request with this; returns its port and what it was asked.
    async fn server(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let port = listener.local_addr().expect("address").port();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.expect("read");
            stream.write_all(answer.as_bytes()).await.expect("write");
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (port, asked)
    }

    #[tokio::test]
    async fn pages_are_judged_by_their_status() {
        for (answer, want) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Ok(())),
            ("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", Ok(())),
            (
                "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
                Err("HTTP probe failed with statuscode: 503".to_owned()),
            ),
        ] {
            let (port, asked) = server(answer).await;
            assert_eq!(act(get(port), PATIENCE).await, want);
            let asked = asked.await.expect("asked").to_lowercase();
            assert!(asked.starts_with("get /ok?a=b http/1.1\r\n"), "{asked}");
            assert!(asked.contains("x-probe: yes") && asked.contains("user-agent: kube-probe/"), "{asked}");
        }
    }

    #[tokio::test]
    async fn refused_connections_and_silent_servers_are_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let port = listener.local_addr().expect("address").port();
        let tcp = Action::Tcp { host: "127.0.0.1".to_owned(), port };
        assert_eq!(act(tcp.clone(), PATIENCE).await, Ok(()));
        let late = act(get(port), Duration::from_millis(50)).await;
        let want = format!("Get \"http://127.0.0.1:{port}/ok?a=b\": context deadline exceeded");
        assert_eq!(late, Err(want));
        drop(listener);
        let want = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(act(tcp, PATIENCE).await, Err(want.clone()));
        let want = format!("Get \"http://127.0.0.1:{port}/ok?a=b\": {want}");
        assert_eq!(act(get(port), PATIENCE).await, Err(want));
    }

    /// A server that shows a certificate of nobody's, and answers one request over it.
    async fn strange_server() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let port = listener.local_addr().expect("address").port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accept");
            let mut stream =
                TlsAcceptor::from(Arc::new(testing::config())).accept(stream).await.expect("a handshake");
            let _request = stream.read(&mut [0; 4096]).await.expect("read");
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("write");
            stream.shutdown().await.expect("an end");
        });
        port
    }

    #[tokio::test]
    async fn who_answers_over_tls_is_not_asked_who_it_is() {
        let port = strange_server().await;
        assert_eq!(act(page(port, true), PATIENCE).await, Ok(()));
        let (port, _asked) = server("HTTP/1.1 200 OK\r\n\r\n").await;
        let told = act(page(port, true), PATIENCE).await.expect_err("it doesn't speak TLS");
        assert!(told.starts_with(&format!("Get \"https://127.0.0.1:{port}/ok?a=b\": ")), "{told}");
    }
}
