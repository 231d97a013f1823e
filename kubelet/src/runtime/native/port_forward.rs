//! Reaching a port that a pod listens on.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use network::pod::namespace::on_a_thread_within;

use crate::runtime::{ByteStream, NetworkPlace, RuntimeError};

/// How long a connection within one host may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Connects to the port on the pod's loopback address, the older one first, as upstream's runtimes do.
pub async fn dial(place: Option<NetworkPlace>, port: u16) -> Result<Box<dyn ByteStream>, RuntimeError> {
    let namespace = place.map(|place| place.namespace);
    let dialled = on_a_thread_within(namespace, move || connect(port)).await;
    let stream = dialled.and_then(tokio::net::TcpStream::from_std);
    let attempted = format!("connect to port {port}");
    Ok(Box::new(stream.map_err(|source| RuntimeError::System { attempted, source })?))
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let older = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), CONNECT);
    let newer = || TcpStream::connect_timeout(&SocketAddr::from((Ipv6Addr::LOCALHOST, port)), CONNECT);
    // Whoever listens on neither is told of the older one.
    let stream = older.or_else(|error| newer().map_err(|_| error))?;
    stream.set_nonblocking(true)?;
    // Only a matter of latency.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
