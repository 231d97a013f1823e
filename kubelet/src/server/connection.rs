//! Accepts connections and answers requests.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::Shutdown;
use futures::StreamExt;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::agent::table::{LogRefusal, LogTarget};
use crate::server::auth::{Caller, Tls};
use crate::server::logs::{LogOptions, LogReader};
use crate::server::route::{Refusal, Route, route};
use crate::server::{Asker, LogSource};

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 512;

type Body = BoxBody<Bytes, std::io::Error>;

/// What requests are answered from.
#[derive(Clone)]
struct Context {
    tls: Tls,
    source: LogSource,
    asker: Asker,
}

/// Serves until asked to stop; open connections are closed then, since a followed log never ends.
pub async fn serve(listener: TcpListener, tls: Tls, source: LogSource, asker: Asker, shutdown: Shutdown) {
    let context = Arc::new(Context { tls, source, asker });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(converse(context.clone(), stream))),
                Err(error) => {
                    tracing::warn!(%error, "accept a connection");
                    // Out of descriptors: wait for one to be given back instead of spinning.
                    connections.join_next().await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn converse(context: Arc<Context>, stream: TcpStream) {
    let acceptor = TlsAcceptor::from(context.tls.config.clone());
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let certificates = stream.get_ref().1.peer_certificates();
    let caller = certificates.and_then(|chain| chain.first()).and_then(Caller::of);
    let service = service_fn(move |request| {
        let (context, caller) = (context.clone(), caller.clone());
        async move { Ok::<_, Infallible>(answer(&context, caller.as_ref(), &request).await) }
    });
    let connection = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the node's API broke");
    }
}

async fn answer(context: &Context, caller: Option<&Caller>, request: &Request<Incoming>) -> Response<Body> {
    if !caller.is_some_and(|caller| context.tls.allows(caller)) {
        let user = caller.map(|caller| caller.user.as_str()).unwrap_or_default();
        return text(StatusCode::FORBIDDEN, format!("Forbidden (user={user}, verb=get, resource=nodes)"));
    }
    let routed = route(request.method(), request.uri(), Timestamp::now());
    let answered = match routed {
        Ok(Route::Healthz) => Ok(text(StatusCode::OK, "ok".to_owned())),
        Ok(Route::Pods) => pods(context).await,
        Ok(Route::Log { namespace, pod, container, options }) => {
            log(context, &namespace, &pod, &container, options).await
        }
        Err(refusal) => Err(refusal),
    };
    answered.unwrap_or_else(|(code, message)| text(code, message))
}

fn text(code: StatusCode, message: String) -> Response<Body> {
    let body = Full::new(Bytes::from(message)).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn stopping(error: &crate::server::Stopping) -> Refusal {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

async fn pods(context: &Context) -> Result<Response<Body>, Refusal> {
    let items = context.asker.pods().await.map_err(|error| stopping(&error))?;
    let list = serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items });
    let mut response = text(StatusCode::OK, list.to_string());
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

async fn log(
    context: &Context,
    namespace: &str,
    pod: &str,
    container: &str,
    options: LogOptions,
) -> Result<Response<Body>, Refusal> {
    let target = context.asker.log(namespace, pod, container).await.map_err(|error| stopping(&error))?;
    let target = target.map_err(|refusal| match refusal {
        LogRefusal::NoPod(message) => (StatusCode::NOT_FOUND, message),
        LogRefusal::NotNow(message) => (StatusCode::BAD_REQUEST, message),
    })?;
    let attempt = run_of(&target, pod, container, options.previous)?;
    let name = crate::pod::ContainerName(container.to_owned());
    let path = crate::runtime::native::log_path(&context.source.data_dir, &target.pod, &name, attempt);
    let opened =
        LogReader::open(path, context.source.limits, options, context.asker.clone(), target.pod, attempt);
    let reader =
        opened.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("open the log: {error}")))?;
    let frames = reader.stream().map(|chunk| chunk.map(Frame::data));
    let mut response = text(StatusCode::OK, String::new());
    *response.body_mut() = BodyExt::boxed(StreamBody::new(frames));
    Ok(response)
}

fn run_of(target: &LogTarget, pod: &str, container: &str, previous: bool) -> Result<u32, Refusal> {
    if !previous {
        return Ok(target.current);
    }
    target.previous.ok_or_else(|| {
        let message = format!("previous terminated container {container:?} in pod {pod:?} not found");
        (StatusCode::BAD_REQUEST, message)
    })
}
