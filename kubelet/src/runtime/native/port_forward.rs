//! Reaching a port that a pod listens on.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::runtime::{ByteStream, RuntimeError};

/// How long a connection within one host may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Connects to the port on the loopback address, the older one first, as upstream's runtimes do.
pub async fn dial(port: u16) -> Result<Box<dyn ByteStream>, RuntimeError> {
    let fails = |source| RuntimeError::System { attempted: format!("connect to port {port}"), source };
    let addresses =
        [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
    let connected = tokio::time::timeout(CONNECT, TcpStream::connect(&addresses[..])).await;
    let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(fails)?;
    // Only a matter of latency.
    let _ = stream.set_nodelay(true);
    Ok(Box::new(stream))
}
