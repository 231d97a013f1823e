//! Exec, attach and port-forward by way of the runtime's streaming server, which speaks SPDY/3.1.
//!
//! The agent ends the user's protocol and begins the runtime's: so a client's newer one works with an older
//! runtime, as upstream's API server has it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use streaming::spdy::{self, Event, PROTOCOL, StreamId};
use streaming::{port_forward, remote_command};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use crate::authorities;
use crate::runtime::session::sizes;
use crate::runtime::{ByteStream, Input, Output, RuntimeError, Session, Streams, TerminalSize};
use crate::wire::{self, Incoming, Wire};

/// What is on its way between the runtime and who listens, in bytes.
const BUFFER: usize = 64 << 10;
/// The version of the channels in which an exit code is told as a Status.
const CHANNELS: &str = "v4.channel.k8s.io";

/// A connection to the runtime's streaming server.
type Stream = TokioIo<hyper::upgrade::Upgraded>;

fn unreachable_at(url: &str) -> impl Fn(io::Error) -> RuntimeError {
    let attempted = format!("reach the container runtime's streams at {url}");
    move |source| RuntimeError::System { attempted: attempted.clone(), source }
}

fn lost(source: io::Error) -> RuntimeError {
    RuntimeError::System { attempted: "talk to the container runtime's streams".to_owned(), source }
}

/// Whom the agent believes to be the streaming server, where that speaks HTTPS: whom the machine believes, as
/// upstream's kubelet has it, or the authorities of a file.
#[derive(Clone, Debug, Default)]
pub struct Trust(Option<PathBuf>);

impl Trust {
    /// In the authorities of this file.
    ///
    /// # Errors
    /// It can't be read, or holds none.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        authorities::of_file(path).map(|_| Self(Some(path.to_owned())))
    }

    /// As it is now: files change.
    fn connector(&self) -> io::Result<TlsConnector> {
        let roots = match &self.0 {
            Some(path) => authorities::of_file(path)?,
            None => authorities::system(),
        };
        Ok(TlsConnector::from(Arc::new(authorities::client(roots).map_err(io::Error::other)?)))
    }
}

/// Asks for an upgrade to SPDY at the address that the runtime has told.
async fn connect(url: &str, protocol: &str, trust: &Trust) -> Result<Stream, RuntimeError> {
    let failed = unreachable_at(url);
    let uri: http::Uri = url.parse().map_err(io::Error::other).map_err(&failed)?;
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(failed(io::Error::other("it is no address of HTTP or HTTPS"))),
    };
    let authority = uri.authority().ok_or_else(|| failed(io::Error::other("it names no host")))?;
    let host = authority.host().trim_matches(['[', ']']);
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(&failed)?;
    // Only a matter of latency.
    let _ = stream.set_nodelay(true);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, PROTOCOL)
        .header("X-Stream-Protocol-Version", protocol)
        .body(Empty::<Bytes>::new());
    let request = request.map_err(io::Error::other).map_err(&failed)?;
    if !secure {
        return upgrade(stream, request).await.map_err(failed);
    }
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other).map_err(&failed)?;
    let stream = trust.connector().map_err(&failed)?.connect(name, stream).await.map_err(&failed)?;
    upgrade(stream, request).await.map_err(failed)
}

async fn upgrade(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> io::Result<Stream> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut requests, connection) = handshake.map_err(io::Error::other)?;
    // Ends when the connection was upgraded, or with it.
    tokio::spawn(connection.with_upgrades());
    let response = requests.send_request(request).await.map_err(io::Error::other)?;
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        return Err(io::Error::other(format!("it answers {}", response.status())));
    }
    Ok(TokioIo::new(hyper::upgrade::on(response).await.map_err(io::Error::other)?))
}

/// The streams of one process at the runtime.
struct Channels {
    error: StreamId,
    stdin: Option<StreamId>,
    stdout: Option<StreamId>,
    stderr: Option<StreamId>,
    resize: Option<StreamId>,
}

impl Channels {
    /// Opens them in upstream's order.
    fn open(client: &mut spdy::Session, streams: Streams, out: &mut Vec<u8>) -> Self {
        let mut open = |wanted: bool, channel: remote_command::Channel| {
            wanted.then(|| client.open(&[("streamtype", channel.name())], out))
        };
        use remote_command::Channel::{Error, Resize, Stderr, Stdin, Stdout};
        Self {
            error: open(true, Error).unwrap_or_default(),
            stdin: open(streams.stdin, Stdin),
            stdout: open(streams.stdout, Stdout),
            stderr: open(streams.stderr && !streams.tty, Stderr),
            resize: open(streams.tty, Resize),
        }
    }
}

/// Begins to talk to a process of which the runtime has told where its streams are.
pub async fn start(url: &str, streams: Streams, trust: &Trust) -> Result<Session, RuntimeError> {
    let stream = connect(url, CHANNELS, trust).await?;
    let (wire, incoming) = wire::open(spdy::Session::client(), stream);
    let mut channels = None;
    let opening = wire.send(|client, out| channels = Some(Channels::open(client, streams, out))).await;
    opening.map_err(lost)?;
    let channels = channels.ok_or_else(|| lost(io::ErrorKind::BrokenPipe.into()))?;
    let (stdin, typed) = tokio::io::duplex(BUFFER);
    let (stdout, out) = tokio::io::duplex(BUFFER);
    let (stderr, err) = tokio::io::duplex(BUFFER);
    let (resize, new_sizes) = sizes();
    let wanted = [channels.stdin, channels.stdout, channels.stderr].map(|channel| channel.is_some());
    let pipes = Pipes { typed, out: wanted[1].then_some(out), err: wanted[2].then_some(err), new_sizes };
    Ok(Session {
        stdin: wanted[0].then(|| Box::new(stdin) as Input),
        stdout: wanted[1].then(|| Box::new(stdout) as Output),
        stderr: wanted[2].then(|| Box::new(stderr) as Output),
        resize,
        end: Box::pin(converse(wire, incoming, channels, pipes)),
    })
}

/// Our ends of what the session hands out.
struct Pipes {
    typed: DuplexStream,
    out: Option<DuplexStream>,
    err: Option<DuplexStream>,
    new_sizes: mpsc::Receiver<TerminalSize>,
}

async fn converse<S: AsyncRead + AsyncWrite>(
    wire: Wire<spdy::Session, S>,
    mut incoming: Incoming<S>,
    channels: Channels,
    pipes: Pipes,
) -> Result<i32, RuntimeError> {
    let Pipes { typed, out, err, new_sizes } = pipes;
    tokio::select! {
        ended = hear(&wire, &mut incoming, &channels, out, err) => ended,
        said = send_all(&wire, channels.stdin, typed) => Err(lost(said)),
        said = send_sizes(&wire, channels.resize, new_sizes) => Err(lost(said)),
    }
}

/// Hands out what the process says, until the runtime has told how it ended.
async fn hear<S: AsyncRead + AsyncWrite>(
    wire: &Wire<spdy::Session, S>,
    incoming: &mut Incoming<S>,
    channels: &Channels,
    mut out: Option<DuplexStream>,
    mut err: Option<DuplexStream>,
) -> Result<i32, RuntimeError> {
    let mut status = Vec::new();
    let mut open: Vec<StreamId> =
        [Some(channels.error), channels.stdout, channels.stderr].into_iter().flatten().collect();
    while !open.is_empty() {
        match incoming.next(wire).await {
            Some(Event::Data { id, bytes }) if id == channels.error => status.extend_from_slice(&bytes),
            Some(Event::Data { id, bytes }) => {
                let to = if Some(id) == channels.stdout { &mut out } else { &mut err };
                // Who doesn't listen any more isn't told any more.
                if let Some(pipe) = to
                    && pipe.write_all(&bytes).await.is_err()
                {
                    *to = None;
                }
            }
            Some(Event::Finished(id) | Event::Reset(id)) => open.retain(|known| *known != id),
            Some(Event::Opened { .. }) => {}
            Some(Event::GoAway) | None => break,
        }
    }
    ended(&status)
}

/// The Status that the runtime sends at the end; nothing is success, as of a process that is attached to.
fn ended(status: &[u8]) -> Result<i32, RuntimeError> {
    if status.is_empty() {
        return Ok(0);
    }
    let told: Value = serde_json::from_slice(status).unwrap_or(Value::Null);
    if told["status"] == "Success" {
        return Ok(0);
    }
    let causes = told["details"]["causes"].as_array().into_iter().flatten();
    let mut codes = causes.filter(|cause| cause["reason"] == "ExitCode");
    let code = codes.next().and_then(|cause| cause["message"].as_str()?.parse().ok());
    let said =
        || told["message"].as_str().map_or_else(|| String::from_utf8_lossy(status).into(), str::to_owned);
    code.ok_or_else(|| RuntimeError::Start(said()))
}

/// Sends what is typed, and its end. Returns only if it can't.
async fn send_all<S: AsyncRead + AsyncWrite>(
    wire: &Wire<spdy::Session, S>,
    to: Option<StreamId>,
    mut from: DuplexStream,
) -> io::Error {
    let Some(to) = to else { return std::future::pending().await };
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let sent = wire.send(|client, out| match read {
            0 => client.finish(to, out),
            read => client.send(to, &buffer[..read], out),
        });
        match sent.await {
            Err(error) => return error,
            Ok(()) if read == 0 => return std::future::pending().await,
            Ok(()) => {}
        }
    }
}

/// Sends the terminal's sizes. Returns only if it can't.
async fn send_sizes<S: AsyncRead + AsyncWrite>(
    wire: &Wire<spdy::Session, S>,
    to: Option<StreamId>,
    mut sizes: mpsc::Receiver<TerminalSize>,
) -> io::Error {
    while let Some(TerminalSize { width, height }) = sizes.recv().await {
        let Some(to) = to else { continue };
        let text = serde_json::json!({ "Width": width, "Height": height }).to_string();
        if let Err(error) = wire.send(|client, out| client.send(to, text.as_bytes(), out)).await {
            return error;
        }
    }
    std::future::pending().await
}

/// Connects to a port of a pod of which the runtime has told where it is reached.
pub async fn dial(url: &str, port: u16, trust: &Trust) -> Result<Box<dyn ByteStream>, RuntimeError> {
    let stream = connect(url, port_forward::PROTOCOL, trust).await?;
    let (wire, incoming) = wire::open(spdy::Session::client(), stream);
    let (port, mut ids) = (port.to_string(), (StreamId(0), StreamId(0)));
    let opening = wire.send(|client, out| {
        let mut open = |kind| client.open(&[("streamtype", kind), ("port", &port), ("requestid", "0")], out);
        ids = (open("error"), open("data"));
        client.finish(ids.0, out);
    });
    opening.await.map_err(lost)?;
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    // Ends when either side has: a connection that nobody holds any more is dropped with its pipe.
    tokio::spawn(carry(wire, incoming, ids, theirs));
    Ok(Box::new(ours))
}

async fn carry<S: AsyncRead + AsyncWrite>(
    wire: Wire<spdy::Session, S>,
    mut incoming: Incoming<S>,
    (error, data): (StreamId, StreamId),
    pipe: DuplexStream,
) {
    let (mut from, mut to) = tokio::io::split(pipe);
    let up = async {
        let mut buffer = vec![0; BUFFER];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            wire.send(|client, out| client.send(data, &buffer[..read], out)).await?;
        }
        wire.send(|client, out| client.finish(data, out)).await
    };
    let down = async {
        while let Some(heard) = incoming.next(&wire).await {
            match heard {
                Event::Data { id, bytes } if id == data => to.write_all(&bytes).await?,
                Event::Data { id, bytes: why } if id == error => {
                    tracing::debug!(why = %String::from_utf8_lossy(&why), "a forwarded connection failed");
                    break;
                }
                Event::Finished(id) | Event::Reset(id) if id == data => break,
                Event::GoAway => break,
                _ => {}
            }
        }
        to.shutdown().await
    };
    tokio::pin!(down);
    tokio::select! {
        _ = &mut down => {}
        // Having said all, the client may still listen.
        sent = up => if sent.is_ok() { let _ = down.await; },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_from_a_status() {
        assert_eq!(ended(b"").expect("nothing is success"), 0);
        assert_eq!(ended(br#"{"metadata":{},"status":"Success"}"#).expect("success"), 0);
        let failed = br#"{"status":"Failure","reason":"NonZeroExitCode","message":"command terminated",
            "details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        assert_eq!(ended(failed).expect("a code"), 7);
        let refused = ended(br#"{"status":"Failure","message":"no such file"}"#).expect_err("no code");
        assert_eq!(refused.to_string(), "no such file");
        assert_eq!(ended(b"odd").expect_err("no status").to_string(), "odd");
    }
    /// Answers one connection by an upgrade, with a certificate for this name; its port, and the file of its authority.
    async fn serve(name: &str, dir: &Path) -> (u16, PathBuf) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = rcgen::CertifiedIssuer::self_signed(params, key).expect("an authority");
        let file = dir.join(name);
        std::fs::write(&file, authority.pem()).expect("written");
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(stream.read_u8().await.expect("a request"));
                }
                let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nhello";
                stream.write_all(answer.as_bytes()).await.expect("answered");
            }
        });
        (port, file)
    }

    #[tokio::test]
    async fn a_server_is_believed_whose_authority_is_and_who_has_the_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let (port, file) = serve("127.0.0.1", dir.path()).await;
        let (other_port, other_file) = serve("elsewhere.example", dir.path()).await;
        let reach = async |port: u16, trust: &Trust| {
            connect(&format!("https://127.0.0.1:{port}/exec/x"), CHANNELS, trust).await
        };
        let trust = |file: &Path| Trust::of_file(file).expect("an authority");
        let mut stream = reach(port, &trust(&file)).await.expect("believed");
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.expect("heard");
        assert_eq!(&heard, b"hello");
        for (port, trust, why) in [
            (port, Trust::default(), "UnknownIssuer"),
            (port, trust(&other_file), "UnknownIssuer"),
            (other_port, trust(&other_file), "not valid for name"),
        ] {
            let refused = reach(port, &trust).await.err().map(|error| error.chain()).unwrap_or_default();
            assert!(
                refused.contains("reach the container runtime's streams at https://127.0.0.1"),
                "{refused}"
            );
            assert!(refused.contains(why), "{why} is not in {refused}");
        }
        std::fs::write(&file, "nothing").expect("written");
        assert!(Trust::of_file(&file).is_err());
    }

    #[tokio::test]
    async fn an_address_of_something_else_is_refused() {
        for url in ["unix:///run/x", "http:///exec", "::"] {
            assert!(connect(url, CHANNELS, &Trust::default()).await.is_err(), "{url}");
        }
    }
}
