//! One call as the server sees it: who calls what, and the way to answer.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use prost::Message;
use tokio::sync::oneshot;

use super::{Messages, Sink, Status, encode};
use crate::caller::Caller;
use crate::monitor::Answer;

/// Up to this size an answer is handed to HTTP/2 at once; more waits until the receiver has room, so that
/// a slow one costs no memory.
const SEND_AT_ONCE: usize = 16 << 10;

/// What a call says about itself besides its message.
#[derive(Clone)]
pub struct Metadata {
    /// Who calls, with which program.
    pub caller: Arc<Caller>,
    /// The caller wants an error rather than an answer while there is no leader (`hasleader: true`).
    pub require_leader: bool,
}

/// A call that waits for its answer.
pub struct Call {
    /// About the call.
    pub metadata: Metadata,
    head: http::request::Parts,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    max_bytes: usize,
}

impl Call {
    /// From an HTTP/2 stream; messages have at most `max_bytes`.
    pub fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        caller: Arc<Caller>,
        max_bytes: usize,
    ) -> Self {
        let (head, body) = request.into_parts();
        let require_leader = head.headers.get("hasleader").is_some_and(|value| value == "true");
        Self { metadata: Metadata { caller, require_leader }, head, body, respond, max_bytes }
    }

    /// `/package.Service/Method`.
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// The request's method; gRPC has only POST.
    pub fn method(&self) -> &http::Method {
        &self.head.method
    }

    /// All of the request's target.
    pub fn uri(&self) -> &http::Uri {
        &self.head.uri
    }

    /// Whether this is gRPC at all.
    pub fn is_grpc(&self) -> bool {
        let kind = self.head.headers.get(http::header::CONTENT_TYPE);
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    }

    /// One message in, one out.
    pub async fn unary<Q, A, F>(self, answer: impl FnOnce(Q) -> F)
    where
        Q: Message + Default,
        A: Message,
        F: Future<Output = Result<A, Status>>,
    {
        let mut messages = Messages::new(self.body, self.max_bytes);
        let result = match messages.only().await {
            Ok(request) => answer(request).await,
            Err(status) => Err(status),
        };
        messages.wait_for_end().await;
        match result {
            Ok(message) => succeed(self.respond, encode(&message)).await,
            Err(status) => fail(self.respond, &status),
        }
    }

    /// As [`Call::unary`] for answers that may take long: `answer` is told when the client goes away, and
    /// may then tidy up.
    pub async fn patient_unary<Q, A, F>(mut self, answer: impl FnOnce(Q, oneshot::Receiver<()>) -> F)
    where
        Q: Message + Default,
        A: Message,
        F: Future<Output = Result<A, Status>>,
    {
        let mut messages = Messages::new(self.body, self.max_bytes);
        let (tell, gone) = oneshot::channel();
        let mut tell = Some(tell);
        let mut work = pin!(async {
            let request = messages.only().await?;
            answer(request, gone).await
        });
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                _gone = std::future::poll_fn(|cx| self.respond.poll_reset(cx)), if tell.is_some() => tell = None,
            }
        };
        match result {
            Ok(message) => succeed(self.respond, encode(&message)).await,
            Err(status) => fail(self.respond, &status),
        }
    }

    /// Messages in both directions, as they come.
    ///
    /// # Errors
    /// If the client is gone already.
    pub fn stream(mut self) -> Result<(Messages, Sink), Status> {
        let stream = self.respond.send_response(headers(), false);
        let stream = stream.map_err(|error| Status::cancelled(&error))?;
        Ok((Messages::new(self.body, self.max_bytes), Sink::new(stream)))
    }

    /// Refuses the call.
    pub async fn refuse(self, status: &Status) {
        Messages::new(self.body, self.max_bytes).wait_for_end().await;
        fail(self.respond, status);
    }

    /// Refuses something that wants to be a call, but isn't gRPC.
    pub async fn not_grpc(mut self) {
        Messages::new(self.body, self.max_bytes).wait_for_end().await;
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let _gone = self.respond.send_response(response, true);
    }

    /// Answers something that isn't gRPC.
    pub async fn plain(mut self, answer: Answer) {
        Messages::new(self.body, self.max_bytes).wait_for_end().await;
        let mut response = Response::new(());
        *response.status_mut() = answer.status;
        response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(answer.kind));
        // Errors here mean that the client is gone: nobody is left to be told.
        if let Ok(mut stream) = self.respond.send_response(response, false) {
            let _gone = stream.send_data(answer.body.into(), true);
        }
    }
}

/// The trailers of success.
pub fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

fn headers() -> Response<()> {
    let mut response = Response::new(());
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

async fn succeed(mut respond: SendResponse<Bytes>, message: Bytes) {
    // Errors here mean that the client is gone: nobody is left to be told.
    let Ok(stream) = respond.send_response(headers(), false) else { return };
    let mut sink = Sink::new(stream);
    let sent = if message.len() <= SEND_AT_ONCE { sink.send_now(message) } else { sink.send(message).await };
    if sent.is_ok() {
        sink.finish(Ok(()));
    }
}

fn fail(mut respond: SendResponse<Bytes>, status: &Status) {
    let mut response = headers();
    response.headers_mut().extend(status.trailers());
    let _gone = respond.send_response(response, true);
}
