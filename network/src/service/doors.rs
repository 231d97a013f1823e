//! Answers balancers on the ports that Services have for it (`healthCheckNodePort`), on all of the machine's addresses.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::health::Check;

/// Balancers ask every few seconds, each on a connection of its own; beyond so many at once they wait.
const CONCURRENT: usize = 64;
/// The longest that one may take.
const VISIT: Duration = Duration::from_secs(10);
/// After the system had no descriptor to spare.
const PAUSE: Duration = Duration::from_millis(100);

/// The ports that are open. Dropped, they are closed.
#[derive(Debug, Default)]
pub struct Doors(BTreeMap<u16, Door>);

#[derive(Debug)]
struct Door {
    check: watch::Sender<Check>,
    /// The one task that serves it.
    _serving: JoinSet<()>,
}

impl Doors {
    /// Opens and closes until these are open, and tells on each what is so now. A port that can't be had is tried
    /// again with the next change.
    pub async fn bring(&mut self, checks: BTreeMap<u16, Check>) {
        self.0.retain(|port, _| checks.contains_key(port));
        for (port, check) in checks {
            if let Some(door) = self.0.get(&port) {
                door.check.send_replace(check);
                continue;
            }
            let service = format!("{}/{}", check.namespace, check.name);
            match Door::open(port, check).await {
                Ok(door) => drop(self.0.insert(port, door)),
                Err(error) => tracing::warn!(%error, service, port, "open the port for health checks"),
            }
        }
    }
}

impl Door {
    async fn open(port: u16, check: Check) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        let (check, seen) = watch::channel(check);
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, seen));
        Ok(Self { check, _serving: serving })
    }
}

async fn serve(listener: TcpListener, check: watch::Receiver<Check>) {
    let mut visits = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = visits.join_next(), if !visits.is_empty() => {}
            accepted = listener.accept(), if visits.len() < CONCURRENT => match accepted {
                Ok((stream, _)) => drop(visits.spawn(timeout(VISIT, answer(stream, check.clone())))),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

/// Who leaves early has heard enough.
async fn answer(stream: TcpStream, check: watch::Receiver<Check>) {
    let answer = service_fn(|_: Request<Incoming>| ready(Ok::<_, Infallible>(check.borrow().answer())));
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), answer);
    let _ = connection.await;
}
