//! Ports for the parts of a local cluster.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::UpError;

/// Below what Linux hands out by itself (32768 and up), above what services are known by.
const LASTING: std::ops::Range<u16> = 20_000..32_000;
/// So many ports are tried before we give up.
const LASTING_ATTEMPTS: usize = 1000;

/// An address of this machine that only this machine reaches.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Fails with a clear error if nobody could listen on `port`.
pub fn ensure_free(port: u16) -> Result<(), UpError> {
    match TcpListener::bind(local(port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(bind_error(port, error)),
    }
}

/// What a failed bind of the API's port means.
pub fn bind_error(port: u16, source: io::Error) -> UpError {
    match source.kind() {
        io::ErrorKind::AddrInUse => UpError::PortInUse { port },
        _ => UpError::System { attempt: "listen on the port of --port", source },
    }
}

/// Distinct ports that are free now. Somebody may take one before it is used: then the child fails to bind,
/// says so in its log, and is started again.
pub fn free(count: usize) -> Result<Vec<u16>, UpError> {
    let failed = |source| UpError::System { attempt: "find a free port", source };
    // All are held until all are known, so that none is given out twice.
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind(local(0))).collect::<Result<_, _>>().map_err(failed)?;
    held.iter().map(|listener| Ok(listener.local_addr().map_err(failed)?.port())).collect()
}

/// Distinct ports that are free now and stay so while the cluster is down, as far as we can choose: none that
/// the kernel hands out to whoever asks for any.
pub fn lasting(count: usize) -> Result<Vec<u16>, UpError> {
    let mut held: Vec<(u16, TcpListener)> = Vec::new();
    for _ in 0..LASTING_ATTEMPTS {
        let port = rand::random_range(LASTING);
        let new = held.iter().all(|(other, _)| *other != port);
        held.extend(TcpListener::bind(local(port)).ok().filter(|_| new).map(|listener| (port, listener)));
        if held.len() == count {
            return Ok(held.into_iter().map(|(port, _)| port).collect());
        }
    }
    Err(UpError::System { attempt: "find a free port", source: io::ErrorKind::AddrInUse.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn free_ports_are_distinct() {
        let ports: BTreeSet<u16> = free(8).expect("ports").into_iter().collect();
        assert_eq!(ports.len(), 8);
        let ports: BTreeSet<u16> = lasting(8).expect("ports").into_iter().collect();
        assert!(ports.len() == 8 && ports.iter().all(|port| LASTING.contains(port)), "{ports:?}");
    }

    #[test]
    fn a_taken_port_is_named_with_its_flag() {
        let taken = TcpListener::bind(local(0)).expect("bound");
        let port = taken.local_addr().expect("an address").port();
        let message = ensure_free(port).expect_err("taken").to_string();
        assert!(message.contains(&port.to_string()) && message.contains("--port"), "{message}");
    }
}
