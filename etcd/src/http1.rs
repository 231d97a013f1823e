//! HTTP/1.1 on the port of gRPC, for monitors that know nothing else.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::member::Member;
use crate::monitor;

/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;

/// Whether the client begins to speak HTTP/1.1: HTTP/2 begins with `PRI`, and no request that is answered here
/// with a `P`.
///
/// # Errors
/// If the client says nothing in time or leaves.
pub async fn begins(member: &Member, socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let peeked = tokio::time::timeout(member.limits.handshake_timeout, socket.peek(&mut first)).await;
    let read = peeked.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(first != *b"P")
}

/// Serves `io` until the client leaves or the server stops.
///
/// # Errors
/// Says how the connection ended if it didn't end in good order.
pub async fn serve<T>(member: Arc<Member>, io: T) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request: Request<Incoming>| reply(&member, request));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(member.limits.handshake_timeout)
        .max_buf_size(MAX_HEAD);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = member.stopped() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(io::Error::other)
}

async fn reply(member: &Member, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = monitor::answer(member, request.method(), request.uri()).await;
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.kind));
    Ok(response)
}
