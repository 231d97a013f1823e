//! Opening and accepting connections between members, up to the greeting.

use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::PeerContext;
use super::frame::{self, Frame, Hello, RefusedCall};
use crate::config::PeerTls;
use crate::failpoint::failpoint;
use crate::kv::MemberId;
use crate::membership::Membership;

/// Connecting, TLS and greeting together must take no longer.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection whose bytes aren't acknowledged for so long is broken.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(2);

/// A byte stream, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A greeted connection.
pub type Connection = Box<dyn Stream>;

/// Calls a peer.
///
/// # Errors
/// If it can't be reached, isn't trusted, or doesn't answer in time.
pub async fn call(context: &PeerContext, peer: MemberId, address: &str) -> io::Result<Connection> {
    let shared = &context.shared;
    let opening = async {
        failpoint!("peer_before_call");
        let mut connection = open(address, shared.tls.as_ref()).await?;
        let own = shared.handle.shared.membership().get(shared.id).map(|member| member.peer_address.clone());
        let address = own.unwrap_or_default();
        let hello = Hello { cluster: shared.cluster, from: shared.id, to: peer, address };
        say(&mut connection, &Frame::Hello(hello)).await?;
        failpoint!("peer_after_greeting");
        Ok(connection)
    };
    tokio::time::timeout(GREETING_TIMEOUT, opening).await?
}

/// Sends a frame at once.
///
/// # Errors
/// Of the connection.
pub async fn say(connection: &mut Connection, frame: &Frame) -> io::Result<()> {
    frame::write(connection, frame).await?;
    connection.flush().await
}

/// Opens a connection to `host:port`, encrypted if there is TLS.
///
/// # Errors
/// If nobody is there, or it isn't trusted.
pub async fn open(address: &str, tls: Option<&PeerTls>) -> io::Result<Connection> {
    let stream = TcpStream::connect(address).await?;
    tune(&stream)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = tls.server_name.clone().unwrap_or_else(|| host(address).to_owned());
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    let stream = TlsConnector::from(tls.client.clone()).connect(name, stream).await?;
    Ok(Box::new(stream))
}

/// The host of `host:port`, without the brackets of IPv6.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Takes a call: checks that the caller belongs to this cluster and means this member. `None` if it only
/// asked who this is.
///
/// # Errors
/// If it doesn't, isn't trusted, or doesn't greet in time.
pub async fn accept(context: &PeerContext, stream: TcpStream) -> io::Result<Option<(Hello, Connection)>> {
    let accepting = async {
        tune(&stream)?;
        let mut connection: Connection = match &context.shared.tls {
            Some(tls) => Box::new(TlsAcceptor::from(tls.server.clone()).accept(stream).await?),
            None => Box::new(stream),
        };
        match frame::read(&mut connection).await? {
            Frame::Hello(hello) => match check(context, &hello) {
                Ok(()) => Ok(Some((hello, connection))),
                Err(refused) => refuse(&mut connection, refused).await,
            },
            Frame::WhoAreYou => {
                let membership = (*context.shared.handle.shared.membership()).clone();
                let members = Frame::Members { cluster: context.shared.cluster, membership };
                say(&mut connection, &members).await?;
                Ok(None)
            }
            frame => Err(io::Error::other(format!("the caller began with {frame:?}"))),
        }
    };
    tokio::time::timeout(GREETING_TIMEOUT, accepting).await?
}

/// Tells a caller why it isn't served, and gives that as the error.
///
/// # Errors
/// Always.
pub async fn refuse<T>(connection: &mut Connection, refused: RefusedCall) -> io::Result<T> {
    let error = io::Error::other(refused.why.clone());
    say(connection, &Frame::Refused(refused)).await?;
    Err(error)
}

/// Whoever belongs to this cluster and means this member is served, unless it was removed. A caller that
/// the membership doesn't know is served too: this member may lag behind, and the caller be its leader.
fn check(context: &PeerContext, hello: &Hello) -> Result<(), RefusedCall> {
    let shared = &context.shared;
    let refuse = |why: String| Err(RefusedCall { removed: None, why });
    if hello.cluster != shared.cluster {
        let (theirs, ours) = (hello.cluster, shared.cluster);
        return refuse(format!("member {} is of cluster {theirs:x}, but this is {ours:x}", hello.from));
    }
    if hello.to != shared.id {
        return refuse(format!("the caller wants member {}, but this is {}", hello.to, shared.id));
    }
    check_not_removed(context, hello.from)
}

/// A removed member has no say.
///
/// # Errors
/// What to tell it.
pub fn check_not_removed(context: &PeerContext, caller: MemberId) -> Result<(), RefusedCall> {
    let membership = context.shared.handle.shared.membership();
    if membership.was_removed(caller) {
        return Err(RefusedCall {
            removed: Some(Membership::clone(&membership)),
            why: format!("member {caller} was removed from the cluster"),
        });
    }
    Ok(())
}

/// No delay for small messages, and an end for a connection whose other side doesn't acknowledge: a cut
/// in one direction shows only that way, and afterwards TCP's own patience would outlast the cut by minutes.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT))
}
