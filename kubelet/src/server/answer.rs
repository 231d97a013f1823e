//! Answers requests: from what is asked for to who knows it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;

use crate::agent::table::{LogRefusal, LogTarget};
use crate::pod::ContainerId;
use crate::runtime::{Runtime, Streams};
use crate::server::Tls;
use crate::server::auth::{Caller, Gate};
use crate::server::connection::Slot;
use crate::server::logs::{LogOptions, LogReader};
use crate::server::machine_logs;
use crate::server::route::{Metrics, Place, Refusal, Route, route};
use crate::server::streams::{self, Agreed, Doing};
use crate::server::{Asker, Found, LogSource};
use crate::stats::{self, Operations, Sampler};

/// How long a command may run whose output is answered whole.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// What an answer consists of.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// What requests are answered from.
pub struct Served {
    /// How connections are accepted.
    pub tls: Tls,
    /// Who may do what.
    pub gate: Gate,
    /// Where the logs are.
    pub logs: LogSource,
    /// The agent's loop, which knows the pods.
    pub asker: Asker,
    /// What runs their containers.
    pub runtime: Arc<dyn Runtime>,
    /// What they use.
    pub sampler: Sampler,
    /// What the runtime was asked for.
    pub operations: Operations,
    /// The node's name.
    pub node: String,
}

/// Answers one request. If it upgrades its connection, `slot` has what goes on there.
pub async fn answer(
    served: &Served,
    caller: Option<&Caller>,
    request: Request<Incoming>,
    slot: &Slot,
) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if let Err((code, message)) = served.gate.admit(caller, request.headers(), &method, &path).await {
        return text(code, message);
    }
    let answered = match route(request.method(), request.uri(), Timestamp::now()) {
        Ok(route) => served.answer(route, request, slot).await,
        Err(refusal) => Err(refusal),
    };
    answered.unwrap_or_else(|(code, message)| text(code, message))
}

impl Served {
    async fn answer(
        &self,
        route: Route,
        request: Request<Incoming>,
        slot: &Slot,
    ) -> Result<Response<Body>, Refusal> {
        match route {
            Route::Healthz => Ok(text(StatusCode::OK, "ok".to_owned())),
            Route::Pods => self.pods().await,
            Route::Summary => {
                let summary = stats::summary(&self.node, &self.sampler.stats().await);
                Ok(of_type("application/json", summary.to_string()))
            }
            Route::Metrics(kind) => self.metrics(kind).await,
            Route::MachineLogs(path) => machine_logs::show(Path::new(machine_logs::DIRECTORY), path).await,
            Route::Log { namespace, pod, container, options } => {
                self.log(&namespace, &pod, &container, options).await
            }
            Route::Exec(place, command, streams) => {
                self.command(place, Some(command), streams, request, slot).await
            }
            Route::Attach(place, streams) => self.command(place, None, streams, request, slot).await,
            Route::PortForward(place, ports) => self.port_forward(place, ports, request, slot).await,
            Route::Run(place, command) => self.run(place, &command).await,
        }
    }

    async fn metrics(&self, kind: Metrics) -> Result<Response<Body>, Refusal> {
        let stats = self.sampler.stats().await;
        let metrics = match kind {
            Metrics::Resource => stats::resource(&stats),
            Metrics::Cadvisor => stats::cadvisor(&stats),
            Metrics::Own => {
                let pods = self.asker.pods().await.map_err(|error| stopping(&error))?;
                stats::own(&self.node, &stats, pods.len(), &self.operations)
            }
        };
        Ok(of_type("text/plain; version=0.0.4; charset=utf-8", metrics))
    }

    async fn pods(&self) -> Result<Response<Body>, Refusal> {
        let items = self.asker.pods().await.map_err(|error| stopping(&error))?;
        let list =
            serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items });
        Ok(of_type("application/json", list.to_string()))
    }

    async fn log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        options: LogOptions,
    ) -> Result<Response<Body>, Refusal> {
        let target = self.asker.log(namespace, pod, container).await.map_err(|error| stopping(&error))?;
        let target = target.map_err(|refusal| match refusal {
            LogRefusal::NoPod(message) => (StatusCode::NOT_FOUND, message),
            LogRefusal::NotNow(message) => (StatusCode::BAD_REQUEST, message),
        })?;
        let attempt = run_of(&target, pod, container, options.previous)?;
        let name = crate::pod::ContainerName(container.to_owned());
        let path = crate::runtime::native::log_path(&self.logs.data_dir, &target.pod, &name, attempt);
        let opened =
            LogReader::open(path, self.logs.limits, options, self.asker.clone(), target.pod, attempt);
        let reader =
            opened.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("open the log: {error}")))?;
        let frames = reader.stream().map(|chunk| chunk.map(Frame::data));
        let mut response = text(StatusCode::OK, String::new());
        *response.body_mut() = BodyExt::boxed(StreamBody::new(frames));
        Ok(response)
    }

    /// A command beside a container, or, without one, the container itself.
    async fn command(
        &self,
        place: Place,
        command: Option<Vec<String>>,
        streams: Streams,
        request: Request<Incoming>,
        slot: &Slot,
    ) -> Result<Response<Body>, Refusal> {
        let id = self.running(place).await?;
        let agreed = streams::for_command(request.headers(), streams)?;
        let runtime = self.runtime.clone();
        let doing = if command.is_some() { Doing::Exec } else { Doing::Attach };
        let start = Box::pin(async move {
            match command {
                Some(command) => runtime.exec(&id, &command, streams).await,
                None => runtime.attach(&id, streams).await,
            }
        });
        Ok(upgraded(request, slot, agreed, move |stream, codec| {
            Box::pin(streams::converse(stream, codec, streams, doing, start))
        }))
    }

    async fn port_forward(
        &self,
        place: Place,
        ports: Vec<u16>,
        request: Request<Incoming>,
        slot: &Slot,
    ) -> Result<Response<Body>, Refusal> {
        let pod = self.found(place).await?.pod;
        let agreed = streams::for_ports(request.headers(), ports)?;
        let (runtime, target) = (self.runtime.clone(), pod.clone());
        let dial: streams::Dial = Arc::new(move |port| {
            let (runtime, pod) = (runtime.clone(), target.clone());
            Box::pin(async move { runtime.port_forward(&pod, port).await })
        });
        Ok(upgraded(request, slot, agreed, move |stream, codec| {
            Box::pin(streams::forward(stream, codec, pod, dial))
        }))
    }

    async fn run(&self, place: Place, command: &[String]) -> Result<Response<Body>, Refusal> {
        let id = self.running(place).await?;
        let done = self.runtime.exec_sync(&id, command, RUN_LIMIT).await;
        let done = done.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.chain()))?;
        let mut said = String::from_utf8_lossy(&done.output).into_owned();
        if done.code != 0 {
            said += &format!("error: command terminated with exit code {}\n", done.code);
        }
        Ok(text(StatusCode::OK, said))
    }

    async fn found(&self, place: Place) -> Result<Found, Refusal> {
        let found = self.asker.find(place).await.map_err(|error| stopping(&error))?;
        found.ok_or_else(|| (StatusCode::NOT_FOUND, "pod does not exist".to_owned()))
    }

    async fn running(&self, place: Place) -> Result<ContainerId, Refusal> {
        let refusal = format!("container not found ({:?})", place.container);
        let found = self.found(place).await?;
        found.run.ok_or((StatusCode::INTERNAL_SERVER_ERROR, refusal))
    }
}

/// Accepts an upgrade; the conversation begins when the answer has gone out.
fn upgraded<C: Send + 'static>(
    request: Request<Incoming>,
    slot: &Slot,
    (codec, response): Agreed<C>,
    drive: impl FnOnce(TokioIo<Upgraded>, C) -> BoxFuture<'static, ()> + Send + 'static,
) -> Response<Body> {
    let upgrade = hyper::upgrade::on(request);
    *slot.lock() = Some(Box::pin(async move {
        match upgrade.await {
            Ok(stream) => drive(TokioIo::new(stream), codec).await,
            Err(error) => tracing::debug!(%error, "an upgrade that was promised didn't come to be"),
        }
    }));
    response.map(|()| body(Bytes::new()))
}

fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn text(code: StatusCode, message: String) -> Response<Body> {
    let mut response = of_type("text/plain; charset=utf-8", message);
    *response.status_mut() = code;
    response
}

fn of_type(content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(body(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn stopping(error: &crate::server::Stopping) -> Refusal {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
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
