//! Asks a container for its health as `grpc.health.v1.Health/Check` has it: one message out, one number back.
//!
//! Two fields need no generated code: a request is the service's name, an answer its state.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;

use crate::agent::action::dial;

/// An answer is a few bytes; more isn't read.
const ANSWER_LIMIT: usize = 64 << 10;
/// `SERVING` in `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;
/// gRPC's code of a method that the server doesn't know.
const UNIMPLEMENTED: &str = "12";

/// Asks how `service` is; the error is what the pod's event says, in upstream's words.
pub async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    let address = format!("{host}:{port}");
    let seconds = crate::pod::time::go_duration(timeout);
    let within = tokio::time::timeout(timeout, dial(host, port)).await;
    let stream = within
        .map_err(|_| {
            format!(
                "timeout: failed to connect service {address:?} within {seconds}: context deadline exceeded"
            )
        })?
        .map_err(|why| format!("error: failed to connect service at {address:?}: {why}"))?;
    let asked = tokio::time::timeout(timeout, ask(stream, &address, service)).await;
    let state = asked.map_err(|_| format!("timeout: health rpc did not complete within {seconds}"))??;
    match state {
        SERVING => Ok(()),
        other => Err(format!("service unhealthy (responded with {:?})", name(other))),
    }
}

fn name(state: u64) -> String {
    match state {
        0 => "UNKNOWN".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}

async fn ask(stream: TcpStream, address: &str, service: &str) -> Result<u64, String> {
    let failed = |error: &dyn std::error::Error| format!("error: health rpc probe failed: {error}");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(message(service)))
        .map_err(|error| failed(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let (head, body) = response.into_parts();
        // A refusal may come without a body: then its code is among the headers.
        refusal(&head.headers)?;
        let body = Limited::new(body, ANSWER_LIMIT).collect().await;
        let body = body.map_err(|error| failed(error.as_ref()))?;
        body.trailers().map_or(Ok(()), refusal)?;
        state(&body.to_bytes()).ok_or_else(|| "error: health rpc probe failed: a broken answer".to_owned())
    };
    // The connection is driven beside the exchange and dropped with it: no task is left behind.
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

/// The server's own error, if it tells one.
fn refusal(headers: &http::HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let message =
        || percent_decode_str(text("grpc-message").unwrap_or_default()).decode_utf8_lossy().into_owned();
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some(UNIMPLEMENTED) => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            message()
        )),
        Some(code) => Err(format!(
            "error: health rpc probe failed: rpc error: code = {} desc = {}",
            code_name(code),
            message()
        )),
    }
}

/// gRPC's name of a status code, by its number.
fn code_name(code: &str) -> &str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    code.parse::<usize>().ok().and_then(|code| NAMES.get(code).copied()).unwrap_or(code)
}

/// `HealthCheckRequest{service}`, uncompressed, behind gRPC's five bytes.
fn message(service: &str) -> Bytes {
    let mut field = BytesMut::new();
    if !service.is_empty() {
        field.put_u8(0x0a);
        put_varint(&mut field, service.len() as u64);
        field.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + field.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(field.len()).unwrap_or(u32::MAX));
    framed.put_slice(&field);
    framed.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// `HealthCheckResponse.status`; 0 if it isn't there. `None`: this is none.
fn state(framed: &[u8]) -> Option<u64> {
    let (head, message) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    let message = message.get(..usize::try_from(length).ok()?)?;
    match (head[0], message) {
        (0, []) => Some(0),
        (0, [0x08, value @ ..]) => varint(value),
        _ => None,
    }
}

fn varint(bytes: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (n, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(n).ok()?)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use hyper::body::{Frame, Incoming};
    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(30);

    type Answer = http::Response<http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>>;

    /// A server as gRPC's are: the body, then the status in trailers; or the status alone.
    fn answer(body: Option<&'static [u8]>, code: &'static str, why: &'static str) -> Answer {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", code.parse().expect("a code"));
        trailers.insert("grpc-message", why.parse().expect("a message"));
        let response = http::Response::builder().header("content-type", "application/grpc");
        let Some(body) = body else {
            let mut response = response.body(BodyExt::boxed(Full::default())).expect("a response");
            response.headers_mut().extend(trailers);
            return response;
        };
        let frames = [Ok(Frame::data(Bytes::from_static(body))), Ok(Frame::trailers(trailers))];
        response.body(BodyExt::boxed(StreamBody::new(futures::stream::iter(frames)))).expect("a response")
    }

    /// By the service's name as it is on the wire.
    async fn serve(request: http::Request<Incoming>) -> Result<Answer, std::convert::Infallible> {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let asked = request.into_body().collect().await.expect("a request").to_bytes();
        Ok(match &asked[..] {
            [0, 0, 0, 0, 0] => answer(Some(&[0, 0, 0, 0, 2, 8, 1]), "0", ""),
            [0, 0, 0, 0, 5, 0x0a, 3, b'b', b'a', b'd'] => answer(Some(&[0, 0, 0, 0, 2, 8, 2]), "0", ""),
            [.., b'h', b'a', b'l', b'f'] => answer(Some(&[0, 0, 0, 0, 9, 8]), "0", ""),
            [.., b'o', b'l', b'd'] => answer(None, "12", "unknown%20service"),
            _ => answer(None, "5", "no such thing"),
        })
    }

    #[tokio::test]
    async fn health_is_asked_for_by_the_services_name() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service_fn(serve)));
            }
        });
        for (service, want) in [
            ("", Ok(())),
            ("bad", Err("service unhealthy (responded with \"NOT_SERVING\")")),
            ("half", Err("error: health rpc probe failed: a broken answer")),
            (
                "old",
                Err(
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service",
                ),
            ),
            ("none", Err("error: health rpc probe failed: rpc error: code = NotFound desc = no such thing")),
        ] {
            assert_eq!(
                check("127.0.0.1", port, service, PATIENCE).await,
                want.map_err(str::to_owned),
                "{service}"
            );
        }
    }

    #[tokio::test]
    async fn who_does_not_listen_or_answer_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let port = listener.local_addr().expect("an address").port();
        let silent = check("127.0.0.1", port, "", Duration::from_millis(50)).await;
        assert_eq!(silent, Err("timeout: health rpc did not complete within 50ms".to_owned()));
        drop(listener);
        let refused = check("127.0.0.1", port, "", PATIENCE).await;
        let want = format!(
            "error: failed to connect service at \"127.0.0.1:{port}\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        );
        assert_eq!(refused, Err(want));
    }

    #[test]
    fn numbers_longer_than_a_byte_are_read() {
        assert_eq!(varint(&[0xac, 0x02]), Some(300));
        assert_eq!(varint(&[0xff; 12]), None);
        assert_eq!(message(&"x".repeat(200))[5..8], [0x0a, 0xc8, 0x01]);
    }
}
