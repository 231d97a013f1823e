//! A runtime's socket for tests: one container, and a stream of events or none.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::container::CONTAINER_NAME;
use super::proto::{self, ContainerState};
use super::sandbox;

/// Whose container it has.
pub const AGENT: &str = "me";

type Frames = std::pin::Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;
type Response = http::Response<StreamBody<Frames>>;

/// A runtime that answers as far as it is asked.
pub struct FakeSocket {
    dir: tempfile::TempDir,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

struct State {
    tells: bool,
    ended: Mutex<bool>,
    images: Mutex<Vec<proto::Image>>,
    removed: Mutex<Vec<String>>,
    calls: watch::Sender<BTreeMap<String, usize>>,
    /// Of the stream that is open.
    events: watch::Sender<Option<mpsc::Sender<()>>>,
}

impl FakeSocket {
    /// `tells`: of events.
    pub fn start(tells: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("socket")).expect("bound");
        let state = State {
            tells,
            ended: Mutex::default(),
            images: Mutex::default(),
            removed: Mutex::default(),
            calls: watch::Sender::default(),
            events: watch::Sender::default(),
        };
        let state = Arc::new(state);
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, state.clone()));
        Self { dir, state, _serving: serving }
    }

    /// Where it listens.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// The container ends with code 3. Nobody is told.
    pub fn end_container(&self) {
        *self.state.ended.lock() = true;
    }

    /// The images that it has.
    pub fn has_images(&self, images: Vec<proto::Image>) {
        *self.state.images.lock() = images;
    }

    /// The images that were to be removed, by their identifiers.
    pub fn removed(&self) -> Vec<String> {
        self.state.removed.lock().clone()
    }

    /// Tells of an event, once somebody listens.
    pub async fn tell(&self) {
        let mut events = self.state.events.subscribe();
        let open = events.wait_for(Option::is_some).await.expect("kept").clone().expect("open");
        open.send(()).await.expect("heard");
    }

    /// Ends the stream of events.
    pub fn break_off(&self) {
        self.state.events.send_replace(None);
    }

    /// How often this was called.
    pub fn calls(&self, method: &str) -> usize {
        self.state.calls.borrow().get(method).copied().unwrap_or(0)
    }

    /// Waits until the calls are so.
    pub async fn when(&self, so: impl Fn(&dyn Fn(&str) -> usize) -> bool) {
        let mut calls = self.state.calls.subscribe();
        let so = |calls: &BTreeMap<String, usize>| so(&|method| calls.get(method).copied().unwrap_or(0));
        calls.wait_for(so).await.expect("kept");
    }
}

async fn accept(listener: UnixListener, state: Arc<State>) {
    let mut serving = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        serving.spawn(serve(stream, state.clone()));
    }
}

async fn serve(stream: UnixStream, state: Arc<State>) {
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let state = state.clone();
        async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            let asked = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let response = state.answer(&method, &asked);
            state.calls.send_modify(|calls| *calls.entry(method).or_default() += 1);
            Ok::<_, Infallible>(response)
        }
    });
    let server = http2::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), answer).await;
}

impl State {
    fn answer(&self, method: &str, asked: &[u8]) -> Response {
        match method {
            "Version" => unary(&proto::VersionResponse::default()),
            "ListContainers" => unary(&proto::ListContainersResponse { containers: vec![self.container()] }),
            "ContainerStatus" => unary(&proto::ContainerStatusResponse { status: Some(Self::status()) }),
            "ListImages" => unary(&proto::ListImagesResponse { images: self.images.lock().clone() }),
            "RemoveImage" => {
                // Before the message is its length.
                let asked = proto::RemoveImageRequest::decode(&asked[5..]).expect("well formed");
                self.removed.lock().extend(asked.image.map(|image| image.image));
                unary(&proto::RemoveImageResponse {})
            }
            "GetContainerEvents" if self.tells => self.events(),
            _ => unimplemented(),
        }
    }

    fn state(&self) -> ContainerState {
        if *self.ended.lock() { ContainerState::ContainerExited } else { ContainerState::ContainerRunning }
    }

    fn container(&self) -> proto::Container {
        let labels = [
            (sandbox::POD_NAMESPACE, "shop"),
            (sandbox::POD_NAME, "web"),
            (sandbox::POD_UID, "u"),
            (sandbox::AGENT, AGENT),
            (CONTAINER_NAME, "main"),
        ];
        proto::Container {
            id: "c".to_owned(),
            image_ref: "used".to_owned(),
            metadata: Some(proto::ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
            state: self.state().into(),
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..Default::default()
        }
    }

    fn status() -> proto::ContainerStatus {
        proto::ContainerStatus { started_at: 1, finished_at: 2, exit_code: 3, ..Default::default() }
    }

    fn events(&self) -> Response {
        let (events, told) = mpsc::channel(8);
        self.events.send_replace(Some(events));
        let told = stream::unfold(told, async |mut told| told.recv().await.map(|()| ((), told)));
        let told = told.map(|()| data(&proto::ContainerEventResponse { container_id: "c".to_owned() }));
        response(told.chain(stream::once(std::future::ready(fine()))).boxed())
    }
}

fn unary(message: &impl Message) -> Response {
    response(stream::iter([data(message), fine()]).boxed())
}

/// As a server that has never heard of the method.
fn unimplemented() -> Response {
    let mut response = response(stream::empty().boxed());
    let code = http::HeaderValue::from(i32::from(tonic::Code::Unimplemented));
    response.headers_mut().insert("grpc-status", code);
    response
}

fn response(frames: Frames) -> Response {
    let response = http::Response::builder().header("content-type", "application/grpc");
    response.body(StreamBody::new(frames)).expect("well formed")
}

/// A message that isn't compressed, and its length before it.
fn data(message: &impl Message) -> Result<Frame<Bytes>, Infallible> {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).expect("short"));
    message.encode(&mut framed).expect("room grows");
    Ok(Frame::data(framed.freeze()))
}

fn fine() -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::trailers(
        [("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))].into_iter().collect(),
    ))
}
