//! Streams of text over WebSocket, for who can't read one (browsers): watches, an event a message, and logs.
//!
//! The stream is served as any other; only it goes into frames instead of a chunked body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use streaming::websocket::{self, Decoder, Event, close, message, pong};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::body::Body;

/// Text as it comes, in bytes and in base64.
const BINARY: [&str; 2] = ["binary.k8s.io", "base64.binary.k8s.io"];

/// How a stream is cut into messages.
#[derive(Debug, PartialEq, Eq)]
enum Cut {
    /// A line each: it is an event.
    Lines(BytesMut),
    /// As it comes.
    Pieces { base64: bool },
}

/// Whether the client wants the answer over WebSocket.
pub fn is_asked(headers: &HeaderMap) -> bool {
    websocket::is_asked(headers)
}

/// Sends the stream of a successful answer over WebSocket; any other answer stays as it is.
pub fn upgraded(request: &mut Parts, response: Response<Body>) -> Response<Body> {
    let upgrade = request.extensions.remove::<OnUpgrade>();
    let (Some(upgrade), StatusCode::OK) = (upgrade, response.status()) else { return response };
    let (cut, protocol) = Cut::of(&request.headers, response.headers());
    let Some(head) = websocket::switching(&request.headers, protocol) else { return response };
    let stream = response.into_body();
    // Ends with the stream, or with the client.
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => pump(upgraded, stream, cut).await,
            Err(error) => tracing::debug!(%error, "a WebSocket that was promised didn't come to be"),
        }
    });
    head.map(|()| Body::empty())
}

/// The stream out, pings and the end in.
async fn pump(upgraded: Upgraded, mut stream: Body, mut cut: Cut) {
    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
    let (mut input, mut decoder) = (BytesMut::new(), Decoder::default());
    loop {
        let mut out = Vec::new();
        let go_on = tokio::select! {
            piece = stream.frame() => match piece {
                Some(Ok(piece)) => {
                    cut.take(piece.into_data().unwrap_or_default(), &mut out);
                    true
                }
                _ => false,
            },
            read = reader.read_buf(&mut input) => {
                matches!(read, Ok(1..)) && answer(&mut decoder, &mut input, &mut out)
            }
        };
        if !go_on {
            close(&mut out);
        }
        if writer.write_all(&out).await.is_err() || writer.flush().await.is_err() || !go_on {
            break;
        }
    }
    // Nothing is left to do if the client doesn't hear the end.
    let _ = writer.shutdown().await;
}

/// Answers what a client says; false if it wants to end, or doesn't speak WebSocket.
fn answer(decoder: &mut Decoder, input: &mut BytesMut, out: &mut Vec<u8>) -> bool {
    loop {
        match decoder.take(input) {
            Ok(Some(Event::Ping(payload))) => pong(&payload, out),
            Ok(Some(Event::Close)) => return false,
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

impl Cut {
    /// Events are JSON; whatever else is streamed is text, in the client's dearest spelling.
    fn of<'a>(request: &'a HeaderMap, response: &HeaderMap) -> (Self, Option<&'a str>) {
        if response.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
            return (Self::Lines(BytesMut::new()), None);
        }
        let protocol = websocket::offered(request).into_iter().find(|name| BINARY.contains(name));
        (Self::Pieces { base64: protocol == Some(BINARY[1]) }, protocol)
    }

    fn take(&mut self, piece: Bytes, out: &mut Vec<u8>) {
        match self {
            Self::Lines(rest) => {
                rest.extend_from_slice(&piece);
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line = rest.split_to(end + 1);
                    message(true, &[&line[..end]], out);
                }
            }
            Self::Pieces { base64: true } => message(true, &[BASE64.encode(&piece).as_bytes()], out),
            Self::Pieces { base64: false } => message(false, &[&piece], out),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};

    use super::*;

    #[test]
    fn each_line_of_a_watch_is_a_message() {
        let (mut lines, mut out) = (Cut::Lines(BytesMut::new()), Vec::new());
        lines.take(Bytes::from_static(b"a\nb"), &mut out);
        lines.take(Bytes::from_static(b"c\n"), &mut out);
        assert_eq!(out, b"\x81\x01a\x81\x02bc");
    }

    #[test]
    fn logs_come_as_bytes_or_in_base64() {
        let headers = |name: HeaderName, value: &'static str| {
            HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
        };
        let text = headers(CONTENT_TYPE, "text/plain");
        for (offer, want) in [
            ("x, base64.binary.k8s.io", &b"\x81\x04aGk="[..]),
            ("binary.k8s.io", b"\x82\x02hi"),
            ("x", b"\x82\x02hi"),
        ] {
            let request = headers(SEC_WEBSOCKET_PROTOCOL, offer);
            let (mut cut, protocol) = Cut::of(&request, &text);
            assert_eq!(protocol.is_some(), offer != "x", "{offer}");
            let mut out = Vec::new();
            cut.take(Bytes::from_static(b"hi"), &mut out);
            assert_eq!(out, want, "{offer}");
        }
        let events = headers(CONTENT_TYPE, "application/json");
        assert_eq!(Cut::of(&text, &events), (Cut::Lines(BytesMut::new()), None));
    }
}
