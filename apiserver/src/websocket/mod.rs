//! Watches over WebSocket: the same events, one a message, for who can't read a stream (browsers).
//!
//! The watch is served as any other; only its stream goes into frames instead of a chunked body.

mod frame;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::body::Body;
use frame::Kind;

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
/// RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether the client wants the answer over WebSocket.
pub fn is_asked(headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade") && headers.contains_key(KEY)
}

/// Sends the stream of a successful answer over WebSocket; any other answer stays as it is.
pub fn upgraded(request: &mut Parts, response: Response<Body>) -> Response<Body> {
    let upgrade = request.extensions.remove::<OnUpgrade>();
    let (Some(upgrade), StatusCode::OK) = (upgrade, response.status()) else { return response };
    let Some(accept) = request.headers.get(KEY).map(accept) else { return response };
    let (mut head, events) = response.into_parts();
    // Ends with the watch, or with the client.
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => pump(upgraded, events).await,
            Err(error) => tracing::debug!(%error, "a WebSocket that was promised didn't come to be"),
        }
    });
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    head.headers.clear();
    head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    head.headers.insert(ACCEPT, accept);
    Response::from_parts(head, Body::empty())
}

fn accept(key: &HeaderValue) -> HeaderValue {
    let text = [key.as_bytes(), GUID.as_bytes()].concat();
    let digest = BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text));
    HeaderValue::from_str(&digest).expect("base64 is plain ASCII")
}

/// Events out, pings and the end in.
async fn pump(upgraded: Upgraded, mut events: Body) {
    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
    let (mut input, mut lines) = (BytesMut::new(), Lines::default());
    loop {
        let mut out = Vec::new();
        let go_on = tokio::select! {
            event = events.frame() => match event {
                Some(Ok(event)) => {
                    lines.take(event.into_data().unwrap_or_default(), &mut out);
                    true
                }
                _ => false,
            },
            read = reader.read_buf(&mut input) => {
                matches!(read, Ok(1..)) && answer(&mut input, &mut out)
            }
        };
        if !go_on {
            frame::close(&mut out);
        }
        if writer.write_all(&out).await.is_err() || writer.flush().await.is_err() || !go_on {
            break;
        }
    }
    // Nothing is left to do if the client doesn't hear the end.
    let _ = writer.shutdown().await;
}

/// Answers what a client says; false if it wants to end, or doesn't speak WebSocket.
fn answer(input: &mut BytesMut, out: &mut Vec<u8>) -> bool {
    loop {
        match frame::take(input) {
            Ok(Some(frame)) if frame.kind == Kind::Ping => frame::pong(&frame.payload, out),
            Ok(Some(frame)) if frame.kind == Kind::Close => return false,
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Cuts a stream into its lines: each is an event.
#[derive(Default)]
struct Lines(BytesMut);

impl Lines {
    fn take(&mut self, piece: Bytes, out: &mut Vec<u8>) {
        self.0.extend_from_slice(&piece);
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line = self.0.split_to(end + 1);
            frame::text(&line[..end], out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_that_of_the_rfc() {
        assert_eq!(
            accept(&HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==")),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        let mut headers = HeaderMap::new();
        assert!(!is_asked(&headers));
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(KEY, HeaderValue::from_static("x"));
        assert!(is_asked(&headers));
    }

    #[test]
    fn each_line_is_a_message() {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        lines.take(Bytes::from_static(b"a\nb"), &mut out);
        lines.take(Bytes::from_static(b"c\n"), &mut out);
        assert_eq!(out, b"\x81\x01a\x81\x02bc");
    }
}
