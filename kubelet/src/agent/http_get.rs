//! Pages that probes and hooks ask a container for.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::header::LOCATION;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls_pki_types::ServerName;
use streaming::anyone::Anyone;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::agent::action::dial;
use crate::pod::effect::ProbeOutcome;
use crate::pod::handler::HttpGet;

/// What of an answer's body is read; upstream's limit.
const BODY_LIMIT: usize = 10 << 10;
/// Pages asked for in a row, each for the one before (Go's limit, and its words).
const PAGES: usize = 10;

/// What a server answered.
struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
}

/// Asks as a probe does: redirects on the same host are followed, one to another host ends well, with a warning.
pub async fn probe(get: &HttpGet, timeout: Duration) -> ProbeOutcome {
    match within(get, timeout, follow(get)).await {
        Err(why) => ProbeOutcome::Failure(why),
        Ok(Answer { status: 200..300, .. }) => ProbeOutcome::Success,
        Ok(Answer { status: 300..400, body, .. }) => {
            ProbeOutcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        Ok(Answer { status, .. }) => {
            ProbeOutcome::Failure(format!("HTTP probe failed with statuscode: {status}"))
        }
    }
}

/// Asks as a hook does: whatever is answered is well, as upstream has it.
pub async fn call(get: &HttpGet, timeout: Duration) -> Result<(), String> {
    within(get, timeout, fetch(get)).await.map(drop)
}

async fn within(
    get: &HttpGet,
    timeout: Duration,
    answer: impl Future<Output = Result<Answer, String>>,
) -> Result<Answer, String> {
    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    let answer = tokio::time::timeout(timeout, answer).await;
    answer.map_err(|_| format!("Get {:?}: {late}", url(get)))?
}

async fn follow(first: &HttpGet) -> Result<Answer, String> {
    let mut get = first.clone();
    for _ in 0..PAGES {
        let answer = fetch(&get).await?;
        let next = answer.location.as_deref().and_then(|location| redirected(&get, location));
        match next.filter(|next| next.host == first.host) {
            Some(next) => get = next,
            None => return Ok(answer),
        }
    }
    Err(format!("Get {:?}: stopped after {PAGES} redirects", url(&get)))
}

/// Where this answer's `Location` leads; `None` where that can't be read. A wish for a host other than the address
/// says is kept by locations that name none.
fn redirected(from: &HttpGet, location: &str) -> Option<HttpGet> {
    let location = location.split('#').next().unwrap_or_default();
    if let Some(path) = location.strip_prefix('/').filter(|rest| !rest.starts_with('/')) {
        return Some(HttpGet { path: format!("/{path}"), ..from.clone() });
    }
    if !location.contains("://") && !location.starts_with("//") {
        let directory = from.path.split('?').next().and_then(|path| path.rsplit_once('/'));
        let directory = directory.map_or("", |(directory, _)| directory);
        return Some(HttpGet { path: format!("{directory}/{location}"), ..from.clone() });
    }
    let scheme = if from.tls { "https:" } else { "http:" };
    let whole = if location.starts_with("//") { format!("{scheme}{location}") } else { location.to_owned() };
    let uri: Uri = whole.parse().ok()?;
    let tls = uri.scheme_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let mut headers = from.headers.clone();
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("host"));
    Some(HttpGet {
        tls,
        host: uri.host()?.to_owned(),
        port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        headers,
    })
}

fn url(get: &HttpGet) -> String {
    let scheme = if get.tls { "https" } else { "http" };
    format!("{scheme}://{}:{}{}", get.host, get.port, get.path)
}

async fn fetch(get: &HttpGet) -> Result<Answer, String> {
    let about = |message: String| format!("Get {:?}: {message}", url(get));
    let stream = dial(&get.host, get.port).await.map_err(about)?;
    if get.tls {
        let name = ServerName::try_from(get.host.clone()).map_err(|error| about(error.to_string()))?;
        let tls = UNVERIFIED.connect(name, stream).await.map_err(|error| about(error.to_string()))?;
        exchange(get, tls).await.map_err(about)
    } else {
        exchange(get, stream).await.map_err(about)
    }
}

async fn exchange(
    get: &HttpGet,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Answer, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request = request(get).map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        // Read so that a server isn't cut off in the middle of its answer.
        let body = Limited::new(body, BODY_LIMIT).collect().await.map(|body| body.to_bytes());
        let leads = matches!(head.status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let location = head.headers.get(LOCATION).filter(|_| leads);
        Ok(Answer {
            status: head.status.as_u16(),
            location: location.and_then(|location| location.to_str().ok()).map(str::to_owned),
            body: String::from_utf8_lossy(&body.unwrap_or_default()).into_owned(),
        })
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
    use tokio::task::JoinHandle;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::server::testing;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn page(port: u16, tls: bool) -> HttpGet {
        let headers = vec![("X-Probe".to_owned(), "yes".to_owned())];
        HttpGet { tls, host: "127.0.0.1".to_owned(), port, path: "/ok?a=b".to_owned(), headers }
    }

    /// A server that gives these answers, each to one request; returns its port and what it was asked.
    async fn server(answers: Vec<String>) -> (u16, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let port = listener.local_addr().expect("address").port();
        let asked = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("accept");
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.expect("read");
                stream.write_all(answer.as_bytes()).await.expect("write");
                asked.push(String::from_utf8_lossy(&request[..length]).to_lowercase());
            }
            asked
        });
        (port, asked)
    }

    fn answer(status: &str, location: &str) -> String {
        let location = if location.is_empty() { String::new() } else { format!("location: {location}\r\n") };
        format!("HTTP/1.1 {status}\r\n{location}content-length: 2\r\n\r\nok")
    }

    #[tokio::test]
    async fn pages_are_judged_by_their_status() {
        let failed = "HTTP probe failed with statuscode: 503".to_owned();
        let left = "Probe terminated redirects, Response body: ok".to_owned();
        for (status, location, want) in [
            ("200 OK", "", ProbeOutcome::Success),
            ("503 Busy", "", ProbeOutcome::Failure(failed)),
            ("300 Many", "", ProbeOutcome::Warning(left.clone())),
            ("302 Found", "http://0.0.0.0/", ProbeOutcome::Warning(left)),
        ] {
            let (port, asked) = server(vec![answer(status, location)]).await;
            assert_eq!(probe(&page(port, false), PATIENCE).await, want);
            let asked = &asked.await.expect("asked")[0];
            assert!(asked.starts_with("get /ok?a=b http/1.1\r\n"), "{asked}");
            assert!(asked.contains("x-probe: yes") && asked.contains("user-agent: kube-probe/"), "{asked}");
        }
    }

    #[tokio::test]
    async fn redirects_on_the_host_are_followed() {
        let (port, asked) =
            server(vec![answer("302 Found", "/a/b?c"), answer("301 Moved", "d"), answer("500 Broken", "")])
                .await;
        let failed = ProbeOutcome::Failure("HTTP probe failed with statuscode: 500".to_owned());
        assert_eq!(probe(&page(port, false), PATIENCE).await, failed);
        let asked = asked.await.expect("asked");
        assert!(
            asked[1].starts_with("get /a/b?c http") && asked[2].starts_with("get /a/d http"),
            "{asked:?}"
        );
        assert!(asked[2].contains("x-probe: yes"), "{asked:?}");
        let (port, _asked) = server(vec![answer("302 Found", "/round"); PAGES]).await;
        let stopped = format!("Get \"http://127.0.0.1:{port}/round\": stopped after 10 redirects");
        assert_eq!(probe(&page(port, false), PATIENCE).await, ProbeOutcome::Failure(stopped));
    }

    #[test]
    fn locations_are_read_as_browsers_do() {
        let from = HttpGet { headers: vec![("Host".to_owned(), "web".to_owned())], ..page(8080, true) };
        let read = |location: &str| {
            let to = redirected(&from, location).expect("a location");
            format!("{} {}", url(&to), to.headers.len())
        };
        for (location, want) in [
            ("/x", "https://127.0.0.1:8080/x 1"),
            ("x?y", "https://127.0.0.1:8080/x?y 1"),
            ("//other/x#part", "https://other:443/x 0"),
            ("http://127.0.0.1:81", "http://127.0.0.1:81/ 0"),
        ] {
            assert_eq!(read(location), want, "{location}");
        }
        assert_eq!(redirected(&from, "http://"), None);
    }

    #[tokio::test]
    async fn a_hook_takes_any_answer() {
        let (port, _asked) = server(vec![answer("500 Broken", "")]).await;
        assert_eq!(call(&page(port, false), PATIENCE).await, Ok(()));
    }

    #[tokio::test]
    async fn refused_connections_and_silent_servers_are_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let port = listener.local_addr().expect("address").port();
        let about = |why: String| Err(format!("Get \"http://127.0.0.1:{port}/ok?a=b\": {why}"));
        let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        let silent = call(&page(port, false), Duration::from_millis(50)).await;
        assert_eq!(silent, about(late.to_owned()));
        drop(listener);
        let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(call(&page(port, false), PATIENCE).await, about(refused));
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
        assert_eq!(probe(&page(port, true), PATIENCE).await, ProbeOutcome::Success);
        let (port, _asked) = server(vec![answer("200 OK", "")]).await;
        let told = call(&page(port, true), PATIENCE).await.expect_err("it doesn't speak TLS");
        assert!(told.starts_with(&format!("Get \"https://127.0.0.1:{port}/ok?a=b\": ")), "{told}");
    }
}
