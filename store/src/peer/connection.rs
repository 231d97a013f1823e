//! Opening and accepting connections between members, up to the greeting.

use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::PeerContext;
use super::frame::{self, Frame, Hello};
use crate::failpoint::failpoint;
use crate::kv::MemberId;

/// Connecting, TLS and greeting together must take no longer.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);

/// A byte stream, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A greeted connection.
pub type Connection = Box<dyn Stream>;

/// Calls a peer.
///
/// # Errors
/// If it can't be reached, isn't trusted, or doesn't answer in time.
pub async fn call(context: &PeerContext, peer: MemberId) -> io::Result<Connection> {
    let opening = async {
        failpoint!("peer_before_call");
        let mut connection = open(context, peer).await?;
        let hello = Hello { cluster: context.shared.cluster, from: context.shared.id, to: peer };
        frame::write(&mut connection, &Frame::Hello(hello)).await?;
        connection.flush().await?;
        failpoint!("peer_after_greeting");
        Ok(connection)
    };
    tokio::time::timeout(GREETING_TIMEOUT, opening).await?
}

async fn open(context: &PeerContext, peer: MemberId) -> io::Result<Connection> {
    let address = context.shared.peers.get(&peer).ok_or(io::ErrorKind::NotFound)?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = &context.shared.tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(tls.server_name.clone()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(tls.client.clone()).connect(name, stream).await?;
    Ok(Box::new(stream))
}

/// Takes a call: checks that the caller belongs to this cluster and means this member.
///
/// # Errors
/// If it doesn't, isn't trusted, or doesn't greet in time.
pub async fn accept(context: &PeerContext, stream: TcpStream) -> io::Result<(MemberId, Connection)> {
    let accepting = async {
        stream.set_nodelay(true)?;
        let mut connection: Connection = match &context.shared.tls {
            Some(tls) => Box::new(TlsAcceptor::from(tls.server.clone()).accept(stream).await?),
            None => Box::new(stream),
        };
        let Frame::Hello(hello) = frame::read(&mut connection).await? else {
            return Err(io::Error::other("the caller didn't greet"));
        };
        check(context, hello)?;
        Ok((hello.from, connection))
    };
    tokio::time::timeout(GREETING_TIMEOUT, accepting).await?
}

fn check(context: &PeerContext, hello: Hello) -> io::Result<()> {
    let shared = &context.shared;
    if hello.cluster != shared.cluster {
        return Err(io::Error::other(format!("the caller is of another cluster ({:x})", hello.cluster)));
    }
    if hello.to != shared.id {
        return Err(io::Error::other(format!("the caller wants member {}", hello.to)));
    }
    if !shared.peers.contains_key(&hello.from) {
        return Err(io::Error::other(format!("the caller says it is member {}, who is unknown", hello.from)));
    }
    Ok(())
}
