//! The body of a request or a response: bytes at hand, or a stream.
//!
//! One type for both directions, so that the same handlers serve a socket and an in-process client.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};

/// Any error of a body's source.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request or a response.
pub struct Body(Source);

enum Source {
    Bytes(Option<Bytes>),
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>),
}

impl Body {
    /// No bytes at all.
    pub fn empty() -> Self {
        Self(Source::Bytes(None))
    }

    /// A body of another library.
    pub fn wrap<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        Self(Source::Stream(Box::pin(body.map_err(Into::into))))
    }

    /// Chunks as they come; the response ends with the stream.
    pub fn stream(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self::wrap(StreamBody::new(chunks.map(|chunk| Ok::<_, BodyError>(Frame::data(chunk)))))
    }

    /// The same body, which keeps `guard` until it is read to its end or dropped.
    pub fn holding(self, guard: impl Send + 'static) -> Self {
        match self.0 {
            Source::Bytes(bytes) => Self(Source::Bytes(bytes)),
            Source::Stream(stream) => Self(Source::Stream(Box::pin(stream.map_frame(move |frame| {
                let _kept = &guard;
                frame
            })))),
        }
    }

    /// The bytes, shared, if the body is no stream.
    pub fn as_shared(&self) -> Option<Bytes> {
        match &self.0 {
            Source::Bytes(bytes) => bytes.clone(),
            Source::Stream(_) => None,
        }
    }

    /// The bytes, if the body is no stream.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Source::Bytes(bytes) => Some(bytes.as_deref().unwrap_or_default()),
            Source::Stream(_) => None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Bytes((!bytes.is_empty()).then_some(bytes)))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Bytes(bytes) => write!(f, "Body({} bytes)", bytes.as_ref().map_or(0, Bytes::len)),
            Source::Stream(_) => f.write_str("Body(stream)"),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Source::Bytes(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Bytes(bytes) => bytes.is_none(),
            Source::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Bytes(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Source::Stream(stream) => stream.size_hint(),
        }
    }
}
